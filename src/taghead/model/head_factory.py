"""The type of head factories: from a backbone's width, the classes and a grid to a head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

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
