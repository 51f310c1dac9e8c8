"""Positions: learnable 3D encodings that are added to the tokens.

One of your own is a module `Positions(channels, grid, ...)` with `forward(x, grid)`.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taghead.components import Component
from taghead.graph.convert import to_tokens
from taghead.graph.grid import Grid


class PositionalEncoding(nn.Module):
    """A learnable 3D positional encoding, added to the tokens.

    Resized by trilinear interpolation for tokens of another grid.

    Args:
        channels: Width of every token.
        grid: The grid of its parameters.
        kind: `full`, a vector for every node as in the paper, or `factorised`, the sum of one for
            the frame, one for the row and one for the column.
        std: Standard deviation of the initial values; the paper's is 1.

    Shapes:
        - **x** `[B, N, channels]`
        - **output** `[B, N, channels]`
    """

    def __init__(
        self,
        channels: int,
        grid: Grid,
        kind: Literal["full", "factorised"] = "full",
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if kind not in ("full", "factorised"):
            raise ValueError(f"positions must be full or factorised (got {kind!r})")
        # the axes (t, h, w) over which each table varies; it is broadcast over the others
        self.axes = [(0, 1, 2)] if kind == "full" else [(0,), (1,), (2,)]
        self.shapes = [_shape(grid, axes) for axes in self.axes]
        self.tables = nn.ParameterList(
            nn.Parameter(torch.randn(1, prod(shape), channels) * std) for shape in self.shapes
        )

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        volumes = []  # each [1, C, T or 1, H or 1, W or 1]
        for table, axes, shape in zip(self.tables, self.axes, self.shapes, strict=True):
            volume = table.transpose(1, 2).unflatten(2, shape)
            wanted = _shape(grid, axes)
            if wanted != shape:
                volume = F.interpolate(volume, size=wanted, mode="trilinear")
            volumes.append(volume)
        encoding = torch.broadcast_tensors(*volumes)
        return x + to_tokens(torch.stack(encoding).sum(0))


POSITIONS = {
    kind: Component(PositionalEncoding, {}, kind, {"kind": kind}) for kind in ("full", "factorised")
}
"""The positions by name."""


def _shape(grid: Grid, axes: tuple[int, ...]) -> tuple[int, int, int]:
    """The grid's (T, H, W) with 1 for all other axes."""
    sizes = (grid.frames, grid.height, grid.width)
    t, h, w = (size if axis in axes else 1 for axis, size in enumerate(sizes))
    return t, h, w
