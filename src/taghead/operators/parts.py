"""The parts of a dense neighbourhood: a token's own frame, and tokens at a fixed offset.

Each part gives every token the same number of slots. Slots without an edge are masked: a token's
own slot in its frame, and the slots that would lie outside the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from taghead.graph.cache import CACHE, can_cache, derived
from taghead.graph.edges import TimeEdges, WindowEdges, intra_frame_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.operators.algebra import Arrays

LOOP = -1  # relation index of the self-loops that an operator adds

Size = tuple[int, int, int]
Tensors = tuple[Tensor | None, ...]
MakeArrays = Callable[..., Arrays]


class TensorOwner:
    """A value with tensors that are computed from it alone, cached by dtype and device."""

    @property
    def key(self) -> tuple:
        """The value as a tuple of its class and plain fields, which a compiler can hold."""
        raise NotImplementedError

    @derived
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in fields(self)))  # type: ignore

    def __hash__(self) -> int:
        return self._hash

    def tensors(
        self, make: MakeArrays, dtype: torch.dtype, device: torch.device, *options: Any
    ) -> Tensors:
        """The arrays that a function computes from this value and plain options, as tensors.

        The function must be at module level; boolean arrays keep their dtype.
        """
        if can_cache(device):
            return CACHE.get(_tensors, self, make, dtype, device, options)
        return _constants(self.key, make, dtype, device, options)


@torch.compiler.assume_constant_result
def _constants(
    key: tuple, make: MakeArrays, dtype: torch.dtype, device: torch.device, options: tuple
) -> Tensors:
    return _tensors(_from_key(key), make, dtype, device, options)


def _from_key(key: Any) -> Any:
    if not isinstance(key, tuple):
        return key
    fields = tuple(map(_from_key, key))
    return fields[0](*fields[1:]) if fields and isinstance(fields[0], type) else fields


def _tensors(
    owner: Any, make: MakeArrays, dtype: torch.dtype, device: torch.device, options: tuple
) -> Tensors:
    return tuple(
        None
        if a is None
        else torch.tensor(a, dtype=None if a.dtype == bool else dtype, device=device)
        for a in make(owner, *options)
    )


@dataclass(frozen=True)
class FramePart(TensorOwner):
    """All tokens of a token's frame, or those in a window around it.

    Args:
        size: Frames, rows and columns of the grid.
        relation: The relation's index among those given.
        loops: Whether a token is its own neighbour.
        window: The radius of the spatial window; 0 for the whole frame.
    """

    size: Size
    relation: int
    loops: bool = False
    window: int = 0

    __hash__ = TensorOwner.__hash__
    order = 0  # sources come in the order of their frames

    @property
    def num_slots(self) -> int:
        return self.size[1] * self.size[2]

    @property
    def key(self) -> tuple:
        return FramePart, self.size, self.relation, self.loops, self.window

    @property
    def transposed(self) -> FramePart:
        """The part with its edges reversed."""
        return self

    def reaches(self, frame: int) -> bool:
        """Whether every token of a frame has an incoming edge of this part."""
        return True

    def sources(self) -> np.ndarray:
        """The source in each token's slots, `[N, P]`; -1 where there is no edge."""
        (hidden,) = _hidden_in_frame(self)
        nodes = np.arange(self.size[0] * self.num_slots).reshape(self.size[0], 1, -1)
        return np.where(hidden, -1, nodes).reshape(-1, self.num_slots)

    def hide(self, scores: Tensor, value: float) -> Tensor:
        """Fills slots without an edge with a value; `scores` is `[..., P, P]`."""
        if self.loops:
            return scores
        (hidden,) = self.tensors(_hidden_in_frame, scores.dtype, scores.device)
        assert hidden is not None
        return scores.masked_fill(hidden, value)

    def dot(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Inner products of targets and sources: two `[B, T, H, P, C]` -> `[B, T, H, P, P]`."""
        return targets @ sources.transpose(-2, -1)

    def add(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Sums of a target's and a source's value: two `[B, T, H, P]` -> `[B, T, H, P, P]`."""
        return targets.unsqueeze(-1) + sources.unsqueeze(-2)

    def mix(self, weights: Tensor, values: Tensor) -> Tensor:
        """Weighted sums: `[B, T, H, P, P]`, `[B, T, H, P, C]` -> `[B, T, H, P, C]`."""
        return weights @ values

    def offsets(self, like: Tensor) -> Tensor:
        """The source minus the target in (t, y, x) of each slot, `[1, P, P, 3]`."""
        (found,) = self.tensors(_offsets_in_frame, like.dtype, like.device)
        assert found is not None
        return found

    def dot_edges(self, x: Tensor, edges: Tensor, of_source: bool = False) -> Tensor:
        """Inner products of edge features with their targets, or with their sources.

        Shapes:
            - **x** `[B, T, H, P, D]`, **edges** `[1, P, P, D]` or `[1, 1, 1, D]`
            - **output** broadcasts to `[B, T, H, P, P]`
        """
        if edges.size(2) > 1:
            source = "bthjd,ijd->bthij" if of_source else "bthid,ijd->bthij"
            return torch.einsum(source, x, edges[0])
        products = (x * edges.unsqueeze(2)[..., 0, :]).sum(-1)
        return products.unsqueeze(-2 if of_source else -1)

    def mix_edges(self, weights: Tensor, edges: Tensor) -> Tensor:
        """Weighted sums of edge features: `[B, T, H, P, P]`, as above -> `[B, T, H, P, D]`."""
        if edges.size(2) > 1:
            return torch.einsum("bthij,ijd->bthid", weights, edges[0])
        return weights.sum(-1, keepdim=True) * edges.unsqueeze(2)[..., 0, :]


@dataclass(frozen=True)
class ShiftPart(TensorOwner):
    """The token at an offset in frames, rows and columns; at offset 0 the token itself.

    Args:
        size: Frames, rows and columns of the grid.
        relation: The relation's index among those given; `LOOP` for added self-loops.
        offset: The source's frame, row and column, counted from the target's.
        window: The radius of the spatial window that this is a part of; 0 for none.
    """

    size: Size
    relation: int
    offset: Size
    window: int = 0

    __hash__ = TensorOwner.__hash__
    num_slots = 1

    @property
    def order(self) -> int:
        _, height, width = self.size
        frame, row, column = self.offset
        return (frame * height + row) * width + column

    @property
    def key(self) -> tuple:
        return ShiftPart, self.size, self.relation, self.offset, self.window

    @property
    def transposed(self) -> ShiftPart:
        frame, row, column = self.offset
        return replace(self, offset=(-frame, -row, -column))

    def reaches(self, frame: int) -> bool:
        return 0 <= frame + self.offset[0] < self.size[0]

    def sources(self) -> np.ndarray:
        """The source of each token, `[N, 1]`; -1 where there is none."""
        found = np.indices(self.size).reshape(3, -1) + np.array(self.offset)[:, None]
        inside = ((found >= 0) & (found < np.array(self.size)[:, None])).all(0)
        return np.where(inside, np.ravel_multi_index(found, self.size, mode="clip"), -1)[:, None]

    def hide(self, scores: Tensor, value: float) -> Tensor:
        """Fills slots without an edge with a value; `scores` is `[B, T, ..., P, C]`."""
        if not any(self.offset):
            return scores
        (outside,) = self.tensors(_outside_grid, scores.dtype, scores.device)
        assert outside is not None
        frames, positions = outside.shape
        middle = [1] * (scores.dim() - 4)
        return scores.masked_fill(outside.view(frames, *middle, positions, 1), value)

    def source(self, x: Tensor, outside: float = 0.0) -> Tensor:
        """Shifts x `[B, T, ..., P, C]` so that every target has its source, or `outside`."""
        frame, row, column = self.offset
        if frame:
            padding = [0, 0] * (x.dim() - 2) + _padding(frame)
            x = F.pad(_inside(x, 1, frame), padding, value=outside)
        if row or column:
            x = x.unflatten(-2, self.size[1:])
            x = _inside(_inside(x, x.dim() - 3, row), x.dim() - 2, column)
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

    def offsets(self, like: Tensor) -> Tensor:
        """The source minus the target in (t, y, x), `[1, 1, 1, 3]`."""
        (found,) = self.tensors(_offset, like.dtype, like.device)
        assert found is not None
        return found

    def dot_edges(self, x: Tensor, edges: Tensor, of_source: bool = False) -> Tensor:
        """`[B, T, H, P, D]`, `[T or 1, P or 1, 1, D]` -> `[B, T, H, P, 1]`."""
        x = self.source(x) if of_source else x
        return (x * edges.squeeze(2).unsqueeze(1)).sum(-1, keepdim=True)

    def mix_edges(self, weights: Tensor, edges: Tensor) -> Tensor:
        """`[B, T, H, P, 1]`, `[T or 1, P or 1, 1, D]` -> `[B, T, H, P, D]`."""
        return weights * edges.squeeze(2).unsqueeze(1)


Part = FramePart | ShiftPart


def _hidden_in_frame(part: FramePart) -> tuple[np.ndarray]:
    """The mask of a token's own slot and of the slots outside its window, `[P, P]`."""
    _, height, width = part.size
    rows, columns = np.divmod(np.arange(height * width), width)
    distance = np.maximum(abs(rows[:, None] - rows), abs(columns[:, None] - columns))
    outside = distance > (part.window or distance.max())
    return (outside if part.loops else outside | (distance == 0),)


def _offsets_in_frame(part: FramePart) -> tuple[np.ndarray]:
    """The offset of each pair of positions, target first, `[1, P, P, 3]`."""
    pos = np.indices((1, *part.size[1:])).reshape(3, -1).T.astype(float)
    return (pos[None, None] - pos[None, :, None],)


def _offset(part: ShiftPart) -> tuple[np.ndarray]:
    return (np.array(part.offset, dtype=float).reshape(1, 1, 1, 3),)


def _outside_grid(part: ShiftPart) -> tuple[np.ndarray]:
    """The mask of the tokens without a source at the offset, `[T or 1, P or 1]`."""
    outside = (part.sources() < 0).reshape(part.size[0], -1)
    frame, *in_frame = part.offset
    outside = outside if any(in_frame) else outside[:, :1]
    return (outside if frame else outside[:1],)


def _inside(x: Tensor, dim: int, offset: int) -> Tensor:
    """The slice of x that is still inside the grid after a shift along a dimension."""
    return x.narrow(dim, max(offset, 0), x.size(dim) - abs(offset)) if offset else x


def _padding(offset: int) -> list[int]:
    return [max(-offset, 0), max(offset, 0)]


def parts_of(grid: Grid, relation: Relation, index: int) -> list[Part] | None:
    """The parts of a relation, an empty list without edges; None if it has no dense form."""
    frames, height, width = size = (grid.frames, grid.height, grid.width)
    rule = relation.edges
    if isinstance(rule, TimeEdges):
        return [ShiftPart(size, index, (offset, 0, 0)) for offset in rule.offsets(frames)]
    if isinstance(rule, WindowEdges) and rule.radius < max(height, width) - 1:
        offsets = rule.offsets(height, width)
        return [ShiftPart(size, index, (0, *offset), rule.radius) for offset in offsets]
    if isinstance(rule, WindowEdges) or rule is intra_frame_edges:
        return [FramePart(size, index)] if grid.num_positions > 1 else []
    return None
