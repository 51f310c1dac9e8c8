"""Norms of graph layers: torch's LayerNorm, and PyG's, which know each token's clip."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import norm

from taghead.components import Component, names_of
from taghead.nn.runner import Runner

LAYER_NORM = "layer_norm"
WITHOUT = ("HeteroBatchNorm", "HeteroLayerNorm", "MessageNorm")  # they need more than tokens
NORMS: dict[str, type[Any] | Component] = {
    LAYER_NORM: nn.LayerNorm,
    **names_of(getattr(norm, name) for name in norm.__all__ if name not in WITHOUT),
}
"""The norms by name: torch's LayerNorm as `layer_norm`, PyG's by their classes' names."""


def norm_widths(channels: int) -> dict[str, int]:
    """What classes call the width of the tokens."""
    names = ("normalized_shape", "num_features", "in_channels", "channels", "num_channels")
    return dict.fromkeys(names, channels)


def apply_norm(norm: nn.Module, x: Tensor, runner: Runner) -> Tensor:
    """A norm of tokens.

    torch's LayerNorm and the identity act on each token by itself. All others get one row a token,
    with the argument `batch` if they take it.

    Shapes:
        - **x**, **output** `[..., channels]`
    """
    if type(norm) in (nn.LayerNorm, nn.Identity):
        return norm(x)
    rows = x.flatten(0, -2)
    names = inspect.signature(type(norm).forward).parameters
    if "batch" not in names:
        return norm(rows).view_as(x)
    batch, size = runner.batch_of(x)
    given = {"batch": batch} | ({"batch_size": size} if "batch_size" in names else {})
    return norm(rows, **given).view_as(x)
