"""The parts that a dense neighbourhood is made of: a token's own frame, and frames at a distance.

Each part gives every token the same number of slots. A slot without an edge is hidden: a token's
own slot in its frame, and the slots of a frame before the first or after the last one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from taghead.grid import EdgeRule, Grid, Relation, intra_frame_edges, time_aligned_edges
from taghead.operators.constants import constants
from taghead.operators.linear_map import LinearMap

LOOP = -1  # stands for the relation of a self-loop that an operator adds


@dataclass(frozen=True)
class FramePart:
    """All tokens of a token's frame.

    Args:
        frames: Frames of the grid, T.
        positions: Positions of a frame, P.
        relation: The relation's place among those given.
        loops: Whether a token is its own neighbour.
    """

    frames: int
    positions: int
    relation: int
    loops: bool = False

    order = 0  # sources come in the order of their frames

    @property
    def num_slots(self) -> int:
        return self.positions

    @property
    def key(self) -> tuple[str, int]:
        """The part as plain values, for cached recipes."""
        return ("frame", int(self.loops))

    def degree(self, frame: int) -> int:
        """The number of edges that arrive at a token of a frame."""
        return self.positions - 1 + self.loops

    def hide(self, scores: Tensor, value: float) -> Tensor:
        """Writes a value where there is no edge; `scores` is `[..., P, P]`."""
        if self.loops:
            return scores
        (own,) = constants(own_slot, (self.positions,), scores.dtype, scores.device)
        assert own is not None
        return scores.masked_fill(own, value)

    def spread(self, x: Tensor) -> Tensor:
        """Every source's values in its slot: `[B, T, H, P, C]` -> `[B, T, H, 1, P, C]`."""
        return x.unsqueeze(-3)

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
    """The token at the same position, `offset` frames later; with offset 0 the token itself.

    Args:
        frames: Frames of the grid, T.
        positions: Positions of a frame, P.
        relation: The relation's place among those given; `LOOP` for added self-loops.
        offset: The source's frame, counted from the target's.
    """

    frames: int
    positions: int
    relation: int
    offset: int

    num_slots = 1

    @property
    def order(self) -> int:
        return self.offset

    @property
    def key(self) -> tuple[str, int]:
        return ("shift", self.offset)

    def degree(self, frame: int) -> int:
        return int(0 <= frame + self.offset < self.frames)

    def hide(self, scores: Tensor, value: float) -> Tensor:
        """Writes a value where there is no edge; `scores` is `[B, T, ...]`."""
        if self.offset == 0:
            return scores
        arguments = (self.frames, self.offset)
        (outside,) = constants(outside_frames, arguments, scores.dtype, scores.device)
        assert outside is not None
        return scores.masked_fill(outside.view(-1, *[1] * (scores.dim() - 2)), value)

    def source(self, x: Tensor) -> Tensor:
        """Every target's source, zero where there is none: `[B, T, ...]` -> `[B, T, ...]`."""
        if self.offset == 0:
            return x
        padding = [0, 0] * (x.dim() - 2) + [max(-self.offset, 0), max(self.offset, 0)]
        kept = x[:, self.offset :] if self.offset > 0 else x[:, : self.offset]
        return F.pad(kept, padding)

    def spread(self, x: Tensor) -> Tensor:
        """`[B, T, H, P, C]` -> `[B, T, H, P, 1, C]`."""
        return self.source(x).unsqueeze(-2)

    def dot(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Two `[B, T, H, P, C]` -> `[B, T, H, P, 1]`."""
        return (targets * self.source(sources)).sum(-1, keepdim=True)

    def add(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Two `[B, T, H, P]` -> `[B, T, H, P, 1]`."""
        return (targets + self.source(sources)).unsqueeze(-1)

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        """`[B, T, H, P, 1]`, `[B, T, H, P, C]` -> `[B, T, H, P, C]`."""
        return weights * self.source(values)


Part = FramePart | ShiftPart

OFFSETS: dict[EdgeRule, tuple[int, ...]] = {time_aligned_edges: (-1, 1)}
"""The frames that a relation in time joins, counted from the target's."""


def parts_of(grid: Grid, relation: Relation, place: int) -> list[Part] | None:
    """The parts of one relation, none of them without edges; None if it has no dense form."""
    frames, positions = grid.frames, grid.num_positions
    if relation.edges is intra_frame_edges:
        return [FramePart(frames, positions, place)] if positions > 1 else []
    if relation.edges not in OFFSETS:
        return None
    offsets = [offset for offset in OFFSETS[relation.edges] if abs(offset) < frames]
    return [ShiftPart(frames, positions, place, offset) for offset in offsets]


def add_loops(parts: Iterable[Part], frames: int, positions: int, apart: bool) -> list[Part]:
    """The parts with a self-loop at every token: in its frame's part, if any, or as its own part.

    Args:
        parts: Parts without self-loops.
        frames: Frames of the grid.
        positions: Positions of a frame.
        apart: Whether the loops must be a part of their own.
    """
    parts = list(parts)
    for i, part in enumerate(parts):
        if isinstance(part, FramePart) and not apart:
            return [*parts[:i], replace(part, loops=True), *parts[i + 1 :]]
    return [*parts, ShiftPart(frames, positions, LOOP, 0)]


def own_slot(positions: int) -> tuple[np.ndarray]:
    """A token's own slot among its frame's, `[P, P]`."""
    return (np.eye(positions, dtype=bool),)


def outside_frames(frames: int, offset: int) -> tuple[np.ndarray]:
    """The frames that have no source at an offset, `[T]`."""
    source = np.arange(frames) + offset
    return ((source < 0) | (source >= frames),)


def adjacency(frames: int, positions: int, keys: tuple[tuple[str, int], ...]) -> LinearMap:
    """The sum over the edges of the parts with these keys."""
    total = LinearMap.zero(frames, positions)
    eye = np.eye(frames)
    for kind, value in keys:
        if kind == "frame":
            part = LinearMap(eye, eye * (value - 1.0), positions)
        else:
            part = LinearMap(np.zeros_like(eye), np.eye(frames, k=value), positions)
        total = total + part
    return total
