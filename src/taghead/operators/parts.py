"""The parts that a dense neighbourhood is made of: a token's own frame, and tokens at a distance.

Each part gives every token the same number of slots. A slot without an edge is hidden: a token's
own slot in its frame, and the slots that would lie outside the grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from taghead.graph.edges import TimeEdges, WindowEdges, intra_frame_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.operators.constants import constants

LOOP = -1  # stands for the relation of a self-loop that an operator adds
FRAME, SHIFT, WINDOW = range(3)  # kinds of parts in keys
PAIRS_PER_SLOT = 6  # how many pairs of a frame cost as much as one slot of a window


@dataclass(frozen=True)
class FramePart:
    """All tokens of a token's frame, or those in a window around it.

    Args:
        size: Frames, rows and columns of the grid.
        relation: The relation's place among those given.
        loops: Whether a token is its own neighbour.
        window: The radius of the spatial window; 0 for the whole frame.
    """

    size: tuple[int, int, int]
    relation: int
    loops: bool = False
    window: int = 0

    order = 0  # sources come in the order of their frames

    @property
    def positions(self) -> int:
        """Positions of a frame, P."""
        return self.size[1] * self.size[2]

    @property
    def num_slots(self) -> int:
        return self.positions

    @property
    def key(self) -> tuple[int, ...]:
        """What the part adds to the sum over the edges, as plain values for cached recipes."""
        return (WINDOW, self.relation, self.window) if self.window else (FRAME, int(self.loops))

    @property
    def slots(self) -> tuple[int, ...]:
        """The part's slots, as plain values for cached recipes."""
        return FRAME, int(self.loops), self.window

    @property
    def transposed(self) -> FramePart:
        """The part with its edges turned around."""
        return self

    def reaches(self, frame: int) -> bool:
        """Whether edges of its relation arrive at every token of a frame."""
        return True

    def hide(self, scores: Tensor, value: float) -> Tensor:
        """Writes a value where there is no edge; `scores` is `[..., P, P]`."""
        if self.loops:
            return scores
        arguments = (*self.size[1:], self.window)
        (hidden,) = constants(hidden_slots, arguments, scores.dtype, scores.device)
        assert hidden is not None
        return scores.masked_fill(hidden, value)

    def dot(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Inner products of targets and sources: two `[B, T, H, P, C]` -> `[B, T, H, P, P]`."""
        return targets @ sources.transpose(-2, -1)

    def add(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Sums of a target's and a source's number: two `[B, T, H, P]` -> `[B, T, H, P, P]`."""
        return targets.unsqueeze(-1) + sources.unsqueeze(-2)

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        """Weighted sums: `[B, T, H, P, P]`, `[B, T, H, P, C]` -> `[B, T, H, P, C]`."""
        return weights @ values


@dataclass(frozen=True)
class ShiftPart:
    """The token `offset` away in frames, rows and columns; with offset 0 the token itself.

    Args:
        size: Frames, rows and columns of the grid.
        relation: The relation's place among those given; `LOOP` for added self-loops.
        offset: The source's frame, row and column, counted from the target's.
        window: The radius of the spatial window that this is a part of; 0 for none.
    """

    size: tuple[int, int, int]
    relation: int
    offset: tuple[int, int, int]
    window: int = 0

    num_slots = 1

    @property
    def order(self) -> int:
        _, height, width = self.size
        frame, row, column = self.offset
        return (frame * height + row) * width + column

    @property
    def key(self) -> tuple[int, ...]:
        """A window's parts all have the window's key."""
        return (WINDOW, self.relation, self.window) if self.window else (SHIFT, self.offset[0])

    @property
    def slots(self) -> tuple[int, ...]:
        return (SHIFT, *self.offset)

    @property
    def transposed(self) -> ShiftPart:
        frame, row, column = self.offset
        return replace(self, offset=(-frame, -row, -column))

    def reaches(self, frame: int) -> bool:
        return 0 <= frame + self.offset[0] < self.size[0]

    def hide(self, scores: Tensor, value: float) -> Tensor:
        """Writes a value where there is no edge; `scores` is `[B, T, ..., P, C]`."""
        if not any(self.offset):
            return scores
        arguments = (self.size, self.offset)
        (outside,) = constants(outside_grid, arguments, scores.dtype, scores.device)
        assert outside is not None
        frames, positions = outside.shape  # T or 1, P or 1
        middle = [1] * (scores.dim() - 4)
        return scores.masked_fill(outside.view(frames, *middle, positions, 1), value)

    def source(self, x: Tensor, outside: float = 0.0) -> Tensor:
        """Every target's source, or a value where there is none; x is `[B, T, ..., P, C]`."""
        frame, row, column = self.offset
        if frame:
            padding = [0, 0] * (x.dim() - 2) + _padding(frame)
            x = F.pad(_kept(x, 1, frame), padding, value=outside)
        if row or column:
            x = x.unflatten(-2, self.size[1:])
            x = _kept(_kept(x, x.dim() - 3, row), x.dim() - 2, column)
            padding = [0, 0, *_padding(column), *_padding(row)]
            x = F.pad(x, padding, value=outside).flatten(-3, -2)
        return x

    def dot(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Two `[B, T, H, P, C]` -> `[B, T, H, P, 1]`."""
        return (targets * self.source(sources)).sum(-1, keepdim=True)

    def add(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Two `[B, T, H, P]` -> `[B, T, H, P, 1]`."""
        return targets.unsqueeze(-1) + self.source(sources.unsqueeze(-1))

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        """`[B, T, H, P, 1]`, `[B, T, H, P, C]` -> `[B, T, H, P, C]`."""
        return weights * self.source(values)


Part = FramePart | ShiftPart


def _kept(x: Tensor, dim: int, offset: int) -> Tensor:
    """What stays of x when its dimension is read an offset later."""
    return x.narrow(dim, max(offset, 0), x.size(dim) - abs(offset)) if offset else x


def _padding(offset: int) -> list[int]:
    return [max(-offset, 0), max(offset, 0)]


def parts_of(grid: Grid, relation: Relation, place: int) -> list[Part] | None:
    """The parts of one relation, none of them without edges; None if it has no dense form."""
    frames, height, width = size = (grid.frames, grid.height, grid.width)
    rule = relation.edges
    if isinstance(rule, TimeEdges):
        return [ShiftPart(size, place, (offset, 0, 0)) for offset in rule.offsets(frames)]
    if isinstance(rule, WindowEdges) and rule.radius < max(height, width) - 1:
        offsets = rule.offsets(height, width)
        return [ShiftPart(size, place, (0, *offset), rule.radius) for offset in offsets]
    if isinstance(rule, WindowEdges) or rule is intra_frame_edges:
        return [FramePart(size, place)] if grid.num_positions > 1 else []
    return None


def add_loops(parts: Iterable[Part], size: tuple[int, int, int], apart: bool) -> list[Part]:
    """The parts with a self-loop at every token: in its frame's part, if any, or as its own part.

    Args:
        parts: Parts without self-loops.
        size: Frames, rows and columns of the grid.
        apart: Whether the loops must be a part of their own.
    """
    parts = list(parts)
    for i, part in enumerate(parts):
        if isinstance(part, FramePart) and not part.window and not apart:
            return [*parts[:i], replace(part, loops=True), *parts[i + 1 :]]
    return [*parts, ShiftPart(size, LOOP, (0, 0, 0))]


def framed(parts: Iterable[Part], size: tuple[int, int, int]) -> list[Part]:
    """The parts with those of each window as one part of its frame, where that is faster.

    Inner products of all pairs of a frame are one matrix product: cheaper than a window's, one by
    one, unless the frame has many times more positions than the window.
    """
    found: list[Part] = []
    for part in parts:
        if isinstance(part, ShiftPart) and part.window:
            side = 2 * part.window + 1
            if size[1] * size[2] <= PAIRS_PER_SLOT * side * side:
                part = FramePart(size, part.relation, window=part.window)
        if part not in found or not isinstance(part, FramePart):
            found.append(part)
    return found


def hidden_slots(height: int, width: int, window: int) -> tuple[np.ndarray]:
    """Recipe: a token's own slot among its frame's, and those outside its window, `[P, P]`."""
    rows, columns = np.divmod(np.arange(height * width), width)
    distance = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns))
    return ((distance == 0) | (distance > (window or distance.max())),)


def outside_grid(size: tuple[int, int, int], offset: tuple[int, int, int]) -> tuple[np.ndarray]:
    """Recipe: the tokens that have no source at an offset, `[T or 1, P or 1]`."""
    outside = [
        (np.arange(n) + shift < 0) | (np.arange(n) + shift >= n)
        for n, shift in zip(size, offset, strict=True)
    ]
    frames, rows, columns = outside
    positions = (rows[:, None] | columns).reshape(1, -1)
    if not any(offset[1:]):
        return (frames[:, None],)
    return (frames[:, None] | positions if offset[0] else positions,)
