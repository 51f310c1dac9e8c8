"""Rules for the edges of relations: functions of a grid's sizes, each with its row in the table.

Rules that make the same edges compare equal, so a rule can key a cache. No rule loops over nodes.
To add a relation, write its rule here and add its row to `KINDS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from taghead.graph.grid_shape import GridShape

EdgeRule = Callable[[GridShape], Tensor]
"""Edges of one relation on a grid: `[2, E]` (source, target), sorted by target, then source."""


@dataclass(frozen=True)
class RelationKind:
    """A row of the table of relations: one rule, whose relations differ in one integer.

    Args:
        constructor: The name without the integer, as in the notation `past(reach=3)`.
        name: The relation's name with `{}` for the integer. No name may contain another's, so the
            integer stands between letters: `past_{}f`.
        rule: From the integer to the rule for the edges.
        argument: The name of the integer; None for a single relation, whose integer is 0.
        default: The default of the integer; None if it must be given.
        minimum: The smallest allowed integer.
        other_names: Special names of single integers, such as `time_aligned` for a reach of 1.
    """

    constructor: str
    name: str
    rule: Callable[[int], EdgeRule]
    argument: str | None = None
    default: int | None = 0
    minimum: int = 1
    other_names: Mapping[int, str] = field(default_factory=dict)

    def member_name(self, number: int) -> str:
        """The relation's name for an integer."""
        return self.other_names.get(number) or self.name.format(number)


def intra_frame_edges(grid: GridShape) -> Tensor:
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
    """Directed edges from the same position in the frames before and after, without self-loops.

    A reach of r < T frames in one direction makes P*r*(2*T-r-1)/2 edges; a larger reach makes as
    many as r = T-1.

    Args:
        before: Number of frames before the target's that a source may lie in.
        after: Number of frames after the target's.

    Shapes:
        - **output** `[2, E]`, sorted by target, then source
    """

    before: int
    after: int

    def offsets(self, frames: int) -> list[int]:
        """Source frame minus target frame, for all edges of a clip of `frames` frames."""
        before, after = min(self.before, frames - 1), min(self.after, frames - 1)
        return [offset for offset in range(-before, after + 1) if offset != 0]

    def __call__(self, grid: GridShape) -> Tensor:
        offsets = torch.tensor(self.offsets(grid.frames), dtype=torch.long)
        target = torch.arange(grid.num_nodes).view(-1, 1).expand(-1, len(offsets))
        source = target + offsets * grid.num_positions
        inside = (source >= 0) & (source < grid.num_nodes)
        return torch.stack([source[inside], target[inside]])


@dataclass(frozen=True)
class WindowEdges:
    """Edges from the positions of a frame at most `radius` rows and columns away, no self-loops.

    There are T*(S(H)*S(W)-P) edges, with S(n) = n*(2*r+1)-r*(r+1) for the smaller r of the radius
    and n-1.

    Args:
        radius: The largest distance in rows and in columns.

    Shapes:
        - **output** `[2, E]`, sorted by target, then source
    """

    radius: int

    def offsets(self, height: int, width: int) -> list[tuple[int, int]]:
        """Source minus target in (rows, columns), for all edges of a frame."""
        rows, columns = min(self.radius, height - 1), min(self.radius, width - 1)
        every = [(y, x) for y in range(-rows, rows + 1) for x in range(-columns, columns + 1)]
        return [offset for offset in every if offset != (0, 0)]

    def __call__(self, grid: GridShape) -> Tensor:
        offsets = torch.tensor(self.offsets(grid.height, grid.width)).view(-1, 2).long()
        position = grid.positions()[:, 1:].unsqueeze(1) + offsets  # [N, K, 2]
        inside = ((position >= 0) & (position < torch.tensor([grid.height, grid.width]))).all(-1)
        target = torch.arange(grid.num_nodes).view(-1, 1).expand_as(inside)
        source = target + offsets @ torch.tensor([grid.width, 1])
        return torch.stack([source[inside], target[inside]])


time_aligned_edges = TimeEdges(before=1, after=1)


class DynamicEdges(ABC):
    """A rule that computes the edges of each clip from its features, not from the grid alone."""

    @abstractmethod
    def edges_of(self, x: Tensor, grid: GridShape) -> Tensor:
        """The edges of each clip, the same number for all.

        Args:
            x: The tokens that enter the graph.
            grid: The grid of the tokens.

        Shapes:
            - **x** `[B, N, C]`
            - **output** `[B, 2, E]`, node indices within each clip, sorted by target, then source
        """

    def __call__(self, grid: GridShape) -> Tensor:
        raise ValueError(
            f"{self} has no edges on a grid alone, as they are computed from each clip's features: "
            f"use taghead.graph.clip_edges(x, grid, relation), to_data or to_hetero_data"
        )


@dataclass(frozen=True)
class CustomEdges:
    """The edges of a user's function, checked and sorted.

    Args:
        name: The relation's name, for errors.
        function: From a grid to its edges, `[2, E]`, source first, in any order.

    Raises:
        ValueError: If the function returns anything else; the message names the relation.
    """

    name: str
    function: Callable[[Any], Tensor]

    def __call__(self, grid: GridShape) -> Tensor:
        edges = self.function(grid)
        if not isinstance(edges, Tensor) or edges.dtype != torch.long or edges.dim() != 2:
            raise ValueError(f"{self._requirement} (got {_summary(edges)})")
        if len(edges) != 2:
            raise ValueError(f"{self._requirement} (got the shape {list(edges.shape)})")
        if edges.numel() and not (edges.min() >= 0 and edges.max() < grid.num_nodes):
            raise ValueError(
                f"custom relation {self.name!r}: nodes must be from 0 to {grid.num_nodes - 1} on "
                f"{grid} (got {int(edges.min())} to {int(edges.max())})"
            )
        return edges[:, edge_order(edges, grid.num_nodes)]

    @property
    def _requirement(self) -> str:
        return f"custom relation {self.name!r}: the function must return an int64 tensor [2, E]"


def _summary(value: object) -> str:
    """A tensor's dtype and shape, or anything else's type."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of the shape {list(value.shape)}"
    return type(value).__name__


def edge_order(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The permutation that sorts edges by target, then source; it is stable."""
    source, target = edge_index
    return (target * num_nodes + source).argsort(stable=True)


KINDS = (
    RelationKind("intra_frame", "intra_frame", lambda _: intra_frame_edges),
    RelationKind(
        "time_aligned",
        "time_{}f",
        lambda reach: TimeEdges(reach, reach),
        argument="reach",
        default=1,
        other_names={1: "time_aligned"},
    ),
    RelationKind("past", "past_{}f", lambda reach: TimeEdges(reach, 0), "reach", 1),
    RelationKind("future", "future_{}f", lambda reach: TimeEdges(0, reach), "reach", 1),
    RelationKind("spatial_window", "window_{}p", WindowEdges, "radius", None),
)
"""The relations of this module's rules."""
