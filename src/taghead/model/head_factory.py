"""Heads: the type of their factories, and the head of a config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from taghead.components import find_class
from taghead.graph.grid import Grid
from taghead.nn.head import TAGHead

if TYPE_CHECKING:
    from collections.abc import Callable

    HeadFactory = Callable[[int, int, Grid], TAGHead]
else:

    class HeadFactory(Protocol):
        """Makes a head for (in_channels, num_classes, grid).

        The command line reads this signature: a head's other arguments are its options.
        """

        def __call__(self, in_channels: int, num_classes: int, grid: Grid) -> TAGHead: ...


def head_from_config(config: dict[str, Any]) -> TAGHead:
    """The head of a config, with random weights: the options of `TAGHead`, or a class path.

    A config may come from anywhere: a class of your own is taken only from a module that you named.

    Raises:
        ValueError: If the class is not allowed or no head, or an option is invalid.
    """
    if "class_path" not in config:
        return TAGHead(**config)
    try:
        cls = find_class(config["class_path"], TAGHead)
    except ValueError as error:
        raise ValueError(f"head: {error}") from error
    return cls(**config.get("init_args") or {})
