"""The edges of a grid's relations: rules that make them from a grid's sizes.

Rules are equal if they make the same edges, so they can key a cache. None loops over nodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from taghead.graph.grid import Grid

EdgeRule = Callable[["Grid"], Tensor]
"""Edges of one relation on a grid: `[2, E]` (source, target), sorted by target, then source."""


def intra_frame_edges(grid: Grid) -> Tensor:
    """Every ordered pair of distinct positions of a frame: T*P*(P-1) edges.

    Shapes:
        - **output** `[2, T*P*(P-1)]`, sorted by target, then source
    """
    num_positions = grid.num_positions
    others = torch.arange(num_positions - 1)
    # [P, P-1]: row p holds all positions but p
    neighbours = others + (others >= torch.arange(num_positions).view(-1, 1)).long()
    first = torch.arange(grid.frames).view(-1, 1, 1) * num_positions  # each frame's first node
    source = (first + neighbours).flatten()
    target = torch.arange(grid.num_nodes).repeat_interleave(num_positions - 1)
    return torch.stack([source, target])


@dataclass(frozen=True)
class TimeEdges:
    """The same position in the frames before and after, the frame itself left out.

    A reach of r < T frames in one direction makes P*r*(2*T-r-1)/2 edges, more reach no more than
    r = T-1.

    Args:
        before: How many frames earlier a source may lie.
        after: How many frames later a source may lie.

    Shapes:
        - **output** `[2, E]`, sorted by target, then source
    """

    before: int
    after: int

    def offsets(self, frames: int) -> list[int]:
        """The sources' frames, counted from the target's, that a clip of so many frames has."""
        before, after = min(self.before, frames - 1), min(self.after, frames - 1)
        return [offset for offset in range(-before, after + 1) if offset != 0]

    def __call__(self, grid: Grid) -> Tensor:
        offsets = torch.tensor(self.offsets(grid.frames), dtype=torch.long)
        target = torch.arange(grid.num_nodes).view(-1, 1).expand(-1, len(offsets))
        source = target + offsets * grid.num_positions
        inside = (source >= 0) & (source < grid.num_nodes)
        return torch.stack([source[inside], target[inside]])


@dataclass(frozen=True)
class WindowEdges:
    """The positions of a frame at most `radius` rows and columns away, itself left out.

    There are T*(S(H)*S(W)-P) edges, with S(n) = n*(2*r+1)-r*(r+1) for the smaller r of the radius
    and n-1.

    Args:
        radius: The largest distance in rows and in columns.

    Shapes:
        - **output** `[2, E]`, sorted by target, then source
    """

    radius: int

    def offsets(self, height: int, width: int) -> list[tuple[int, int]]:
        """The sources' (row, column), counted from the target's, that a frame of a size has."""
        rows, columns = min(self.radius, height - 1), min(self.radius, width - 1)
        every = [(y, x) for y in range(-rows, rows + 1) for x in range(-columns, columns + 1)]
        return [offset for offset in every if offset != (0, 0)]

    def __call__(self, grid: Grid) -> Tensor:
        offsets = torch.tensor(self.offsets(grid.height, grid.width)).view(-1, 2).long()
        place = grid.positions()[:, 1:].unsqueeze(1) + offsets  # [N, K, 2]
        inside = ((place >= 0) & (place < torch.tensor([grid.height, grid.width]))).all(-1)
        target = torch.arange(grid.num_nodes).view(-1, 1).expand_as(inside)
        source = target + offsets @ torch.tensor([grid.width, 1])
        return torch.stack([source[inside], target[inside]])


time_aligned_edges = TimeEdges(before=1, after=1)


class FeatureEdges(ABC):
    """A rule whose edges follow the features of each clip: a grid alone does not decide them."""

    @abstractmethod
    def edges_of(self, x: Tensor, grid: Grid) -> Tensor:
        """The edges of each clip, as many for all.

        Args:
            x: The tokens as they enter the graph.
            grid: The grid that they lie on.

        Shapes:
            - **x** `[B, N, C]`
            - **output** `[B, 2, E]`, nodes of one clip, sorted by target, then source
        """

    def __call__(self, grid: Grid) -> Tensor:
        raise ValueError(
            f"{self} has no edges on a grid alone, as they follow a clip's features: take "
            f"clip_edges.edges_of_clips(x, grid, relation), to_data or to_hetero_data"
        )


@dataclass(frozen=True)
class CustomEdges:
    """The edges that a function gives, checked and sorted.

    Args:
        name: The relation's name, for errors.
        function: From a grid to its edges, `[2, E]`, source first, in any order.

    Raises:
        ValueError: If the function gives anything else; the message names the relation.
    """

    name: str
    function: EdgeRule

    def __call__(self, grid: Grid) -> Tensor:
        found = self.function(grid)
        if not isinstance(found, Tensor) or found.dtype != torch.long or found.dim() != 2:
            raise ValueError(f"{self._rule} (got {_told(found)})")
        if len(found) != 2:
            raise ValueError(f"{self._rule} (got the shape {list(found.shape)})")
        if found.numel() and not (found.min() >= 0 and found.max() < grid.num_nodes):
            extremes = f"{int(found.min())} to {int(found.max())}"
            raise ValueError(
                f"custom relation {self.name!r}: nodes must be from 0 to {grid.num_nodes - 1} on "
                f"{grid} (got {extremes})"
            )
        return found[:, edge_order(found, grid.num_nodes)]

    @property
    def _rule(self) -> str:
        return f"custom relation {self.name!r}: the function must give an int64 tensor [2, E]"


def _told(found: object) -> str:
    if isinstance(found, Tensor):
        return f"{found.dtype} of the shape {list(found.shape)}"
    return type(found).__name__


def edge_order(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The order of edges by target, then source; equal ones stay in place."""
    source, target = edge_index
    return (target * num_nodes + source).argsort(stable=True)
