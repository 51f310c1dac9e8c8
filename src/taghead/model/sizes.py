"""Sizes in a saved model's config, compared with its weights before a module is built.

A config of some bytes can ask for modules of terabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

Shapes = Mapping[str, Sequence[int]]
USUAL = 4096  # an integer up to this need not be the size of a tensor
FEW = 64  # layers without weights, at most
LAYERS = {"graph_layers": "head.layers.", "encoder_layers": "head.encoder.layers."}


def check_sizes(
    config: Mapping[str, Any], shapes: Shapes, build: Callable[[Any], nn.Module]
) -> None:
    """Refuses a config whose sizes are not those of the weights.

    Args:
        config: As `VideoClassifier.config` gives it, from anywhere.
        shapes: The shape of each tensor of the weights.
        build: Builds a model of a config; it is built without memory for its weights.

    Raises:
        ValueError: Naming the first size, and what the weights have.
    """
    largest = max([USUAL, *(size for shape in shapes.values() for size in shape)])
    for key in ("head", "preprocessing"):
        for name, number in _integers(config.get(key), key):
            if abs(number) > largest:
                raise ValueError(f"{name} is {number}, and no tensor of the weights is so large")
    head = config.get("head")
    for name, prefix in LAYERS.items():
        asked = head.get(name) if isinstance(head, dict) else None
        layers = {match[1] for key in shapes if (match := re.match(rf"{prefix}(\d+)\.", key))}
        # a layer may have no weights; the shapes below tell fewer layers than are asked
        if isinstance(asked, int) and layers and not 0 <= asked - len(layers) <= FEW:
            raise ValueError(f"head.{name} is {asked}, and the weights have {len(layers)}")
    try:
        with torch.device("meta"):
            wanted = build(config).state_dict()
    except Exception:  # of a class that computes with its weights, or a fault that is told later
        return
    for name, tensor in wanted.items():
        found = list(shapes[name]) if name in shapes else "none"
        if list(tensor.shape) != found:
            raise ValueError(f"{name} is {list(tensor.shape)} by it, and {found} in the weights")


def _integers(value: Any, key: str) -> Iterator[tuple[str, int]]:
    """The integers in nested mappings and lists, with their keys."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _integers(inner, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _integers(inner, f"{key}[{index}]")
    elif isinstance(value, int) and not isinstance(value, bool):
        yield key, value
