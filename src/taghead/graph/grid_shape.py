"""Sizes and node indices of a regular space-time grid: the argument of edge rules."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GridShape:
    """Sizes and node indices of a regular grid of tokens; `Grid` adds the edges.

    Args:
        frames: Number of frames T.
        height: Number of rows H.
        width: Number of columns W.

    Raises:
        ValueError: If a size is not a positive integer.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be a positive integer (got {size!r})")

    @property
    def num_positions(self) -> int:
        """Number of positions of a frame: P = H*W."""
        return self.height * self.width

    @property
    def num_nodes(self) -> int:
        """Number of tokens: N = T*H*W."""
        return self.frames * self.num_positions

    def positions(self) -> Tensor:
        """The (t, y, x) of every node.

        Shapes:
            - **output** `[N, 3]`, int64
        """
        axes = (torch.arange(size) for size in (self.frames, self.height, self.width))
        return torch.cartesian_prod(*axes)
