"""PyG's `Sequential`, which evaluates the types of its arguments and writes code of their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from taghead.components.classes import listed_classes

NAMES = re.compile(r"\s*[A-Za-z_]\w*\s*(,\s*[A-Za-z_]\w*\s*)*")  # `x, edge_index`
SEQUENTIAL = {"Sequential": "torch_geometric.nn.Sequential"}


def check_sequential(cls: type[Any], options: Mapping[str, Any], path: str) -> None:
    """Refuses what PyG's Sequential would run as code: its arguments are names, no types.

    Raises:
        ValueError: If they are anything else.
    """
    if cls is not listed_classes()[path]:
        return
    modules = options.get("modules")
    if not isinstance(modules, list | tuple):
        raise ValueError(f"Sequential: modules must be a list (got {modules!r})")
    texts = [options.get("input_args")]
    for each in modules:
        if isinstance(each, list | tuple) and len(each) == 2:
            texts += str(each[1]).split("->") if str(each[1]).count("->") == 1 else [None]
    for text in texts:
        if not isinstance(text, str) or not NAMES.fullmatch(text):
            raise ValueError(
                f"Sequential: arguments must be names, as in 'x, edge_index -> x' (got {text!r})"
            )
