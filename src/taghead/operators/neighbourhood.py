"""The neighbourhood of every token of a grid, as dense tensors: the dense form of an edge list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from taghead.graph.cache import CACHE, derived
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.operators.algebra import (
    Arrays,
    GridMatrix,
    Term,
    add_up,
    apply,
    inverse_root,
    zeros_from,
)
from taghead.operators.parts import (
    LOOP,
    FramePart,
    Part,
    ShiftPart,
    Size,
    TensorOwner,
    parts_of,
)

PAIRS_PER_SLOT = 6  # how many pairs of a frame cost as much as one slot of a window
MatrixOf = Callable[..., GridMatrix]
"""Builds a grid matrix from the adjacency matrix and plain options."""


class Degrees(NamedTuple):
    """The in-degree of each token, and functions of it.

    Each is `[T, P, 1]`, with heads `[T, 1, P, 1]`; P is 1 if it is uniform over a frame.
    """

    number: Tensor
    present: Tensor  # 1 where there is an edge, else 0
    inverse: Tensor  # of the degree, 1 where there is no edge: turns a sum into a mean
    inverse_root: Tensor  # 0 where there is no edge


@dataclass(frozen=True)
class Neighbourhood(TensorOwner):
    """The edges of a grid in parts, each with the same number of slots at every token.

    Tensors of nodes are `[B, T, P, C]`, of heads `[B, T, H, P, C]`, of scores and weights
    `[B, T, H, P, K]` with one slot for each possible neighbour: K is the sum of the parts' slots.

    Args:
        size: Frames, rows and columns of the grid.
        parts: The parts that have edges.
        is_transposed: Whether edges run from the relations' targets to their sources.
        of_means: Whether it acts on frame means, `[B, T, 1, C]`: a linear map of edges without
            windows commutes with the mean over a frame.
    """

    size: Size
    parts: tuple[Part, ...]
    is_transposed: bool = False
    of_means: bool = False

    __hash__ = TensorOwner.__hash__

    @classmethod
    def of(cls, grid: Grid, relations: Sequence[Relation]) -> Neighbourhood | None:
        """The union of the relations' edges; None if one of them has no dense form."""
        parts: list[Part] = []
        for i, relation in enumerate(relations):
            found = parts_of(grid, relation, i)
            if found is None:
                return None
            parts += found
        size = (grid.frames, grid.height, grid.width)
        return cls(size, tuple(sorted(parts, key=lambda part: part.order)))

    @derived
    def shape(self) -> tuple[int, int]:
        """Frames of the grid and positions of a frame, T and P."""
        return self.size[0], self.size[1] * self.size[2]

    @property
    def key(self) -> tuple:
        parts = tuple(part.key for part in self.parts)
        return Neighbourhood, self.size, parts, self.is_transposed, self.of_means

    @property
    def nbytes(self) -> int:
        """The bytes of its parts and of the neighbourhoods derived from it, from above."""
        return 2**12 * len(self.parts)

    def _with(self, parts: Sequence[Part], **changes: Any) -> Neighbourhood:
        return replace(self, parts=tuple(parts), **changes)

    @derived
    def transposed(self) -> Neighbourhood:
        """The same with every edge reversed, for operators with `flow="target_to_source"`."""
        parts = [part.transposed for part in self.parts]
        return self._with(parts, is_transposed=not self.is_transposed)

    @derived
    def framed(self) -> Neighbourhood:
        """The same with each window as one part of its frame, where that is faster.

        Inner products of all pairs of a frame are one matrix product: cheaper than a window's, one
        by one, unless the frame has many times more positions than the window.
        """
        if not self.has_windows:
            return self
        found: list[Part] = []
        for part in self.parts:
            if part.window and self.shape[1] <= PAIRS_PER_SLOT * (2 * part.window + 1) ** 2:
                part = FramePart(self.size, part.relation, window=part.window)
            if part not in found or not isinstance(part, FramePart):
                found.append(part)
        return self._with(found)

    @derived
    def on_means(self) -> Neighbourhood:
        """The same, acting on frame means."""
        return self._with(self.parts, of_means=True)

    def with_self_loops(self, apart: bool = False) -> Neighbourhood:
        """The same with self-loops: in their frame's part, or `apart`, as the last part."""
        return self._looped_apart if apart else self._looped

    @derived
    def _looped(self) -> Neighbourhood:
        parts = list(self.parts)
        for i, part in enumerate(parts):
            if isinstance(part, FramePart) and not part.window:
                parts[i] = replace(part, loops=True)
                return self._with(parts)
        return self._looped_apart

    @derived
    def _looped_apart(self) -> Neighbourhood:
        return self._with([*self.parts, ShiftPart(self.size, LOOP, (0, 0, 0))])

    @derived
    def without_self_loops(self) -> Neighbourhood:
        """The same without the self-loops that are a part of their own."""
        return self._with([part for part in self.parts if part.relation != LOOP])

    def of_relation(self, index: int) -> Neighbourhood:
        """The edges of one relation."""
        return self._by_relation.get(index) or self._with(())

    @derived
    def _by_relation(self) -> dict[int, Neighbourhood]:
        by_index = {i: [p for p in self.parts if p.relation == i] for i in self.relations}
        return {i: self._with(parts) for i, parts in by_index.items()}

    @derived
    def relations(self) -> list[int]:
        """The indices of the relations that have edges; LOOP for self-loops in their own part."""
        return sorted({part.relation for part in self.parts})

    @derived
    def has_windows(self) -> bool:
        """Whether a part is a spatial window, so that edges depend on the position in the frame."""
        return any(part.window for part in self.parts)

    @derived
    def reaches_all(self) -> bool:
        """Whether every token has at least one incoming edge."""
        frames = range(self.size[0])
        return all(any(part.reaches(frame) for part in self.parts) for frame in frames)

    # Linear: sums over neighbours with fixed weights

    def adjacency(self) -> GridMatrix:
        """The adjacency matrix: the sum over incoming edges."""
        eye = np.eye(self.size[0])
        sums, nodes = np.zeros_like(eye), np.zeros_like(eye)
        for part in self.parts:
            if part.window:
                continue
            if isinstance(part, FramePart):
                sums += eye
                nodes += (part.loops - 1.0) * eye
            else:
                nodes += np.eye(len(eye), k=part.offset[0])
        windows = Counter(radius for _, radius in {(p.relation, p.window) for p in self.parts})
        windows.pop(0, None)
        nodes -= windows.total() * eye  # a window holds the token itself, which is no edge
        return GridMatrix(self.size, (Term(sums, nodes, dict(windows)),))

    def linear(
        self,
        x: Tensor,
        matrix: MatrixOf | None = None,
        *options: Any,
        polynomial: tuple[Any, ...] | None = None,
    ) -> Tensor:
        """Applies the adjacency matrix, or a matrix built from it.

        Args:
            x: The tokens, `[..., T, P, C]`.
            matrix: A module-level function that builds the matrix from the adjacency matrix and
                `options`; the adjacency matrix itself if not given.
            options: Plain values.
            polynomial: A function `(propagation, start, *numbers)` of matrices or of tokens, and
                its numbers. It is applied as one matrix; with windows, step by step.
        """
        if polynomial is not None and self.has_windows:
            function, *numbers = polynomial
            return function(lambda x: self.linear(x, matrix, *options), x, *numbers)
        arguments = x.dtype, x.device, matrix, options, polynomial
        return apply(self.tensors(_matrix_arrays, *arguments), x, self.size[1:])

    def degrees(self, like: Tensor) -> Degrees:
        """The in-degree of each token; `like` is `[B, T, P, C]`, or with heads."""
        tensors = self.tensors(_degree_arrays, like.dtype, like.device, like.dim() - 4)
        return Degrees(*tensors)  # type: ignore[arg-type]

    # Attend: weights computed for each neighbour

    def softmax(self, scores: Sequence[Tensor], values: Tensor | Sequence[Tensor]) -> Tensor:
        """Softmax of the scores over all neighbours of a target; 0 in slots without an edge.

        Shapes:
            - **scores** `[B, T, H, P, K]` for each part
            - **values** as for `mix`; they determine the shape if there is no part
            - **output** `[B, T, H, P, K]`
        """
        if not scores:
            return (values if isinstance(values, Tensor) else values[0])[..., :0]
        least = torch.finfo(scores[0].dtype).min
        pairs = zip(self.parts, scores, strict=True)
        hidden = [part.hide(score, least) for part, score in pairs]
        weights = torch.cat(hidden, dim=-1).softmax(-1)
        return weights if self.reaches_all else weights * self.degrees(weights).present

    def mix(self, weights: Tensor, values: Tensor | Sequence[Tensor]) -> Tensor:
        """The sum of the neighbours' values, weighted.

        Shapes:
            - **weights** `[B, T, H, P, K]`
            - **values** `[B, T, H, P, C]`, of all parts or of each; one if there is no part
            - **output** `[B, T, H, P, C]`
        """
        if not self.parts:
            return zeros_from(values if isinstance(values, Tensor) else values[0])
        if isinstance(values, Tensor):
            values = [values] * len(self.parts)
        slices = weights.split([part.num_slots for part in self.parts], dim=-1)
        triples = zip(self.parts, slices, values, strict=True)
        return add_up(part.mix(weight, value) for part, weight, value in triples)

    def mix_edges(self, weights: Tensor, edges: Sequence[Tensor]) -> Tensor:
        """The sum of the edges' features, weighted.

        Shapes:
            - **weights** `[B, T, H, P, K]`
            - **edges** `[T or 1, P or 1, K or 1, D]` for each part, of which there is at least one
            - **output** `[B, T, H, P, D]`
        """
        slices = weights.split([part.num_slots for part in self.parts], dim=-1)
        triples = zip(self.parts, slices, edges, strict=True)
        return add_up(part.mix_edges(weight, e) for part, weight, e in triples)

    def absent(self, like: Tensor) -> Tensor:
        """The mask of the slots without an edge, `[T, P, K]`."""
        (found,) = self.tensors(_absent_slots, like.dtype, like.device)
        assert found is not None
        return found

    def in_edge_order(self, weights: Tensor) -> Tensor:
        """Weights in PyG's order: by clip, target and source; added self-loops at the end.

        Shapes:
            - **weights** `[B, T, H, P, K]`
            - **output** `[B*E, H]`, or `[B*E + B*N, H]` with self-loops
        """
        edges, loops = self.tensors(_slot_arrays, torch.long, weights.device)
        assert edges is not None
        by_node = weights.transpose(2, 3).flatten(1, 2)  # [B, N, H, K]
        by_slot = by_node.transpose(2, 3).flatten(1, 2)  # [B, N*K, H]
        listed = by_slot[:, edges].flatten(0, 1)
        return listed if loops is None else torch.cat([listed, by_slot[:, loops].flatten(0, 1)])


def _matrix_arrays(
    hood: Neighbourhood, matrix: MatrixOf | None, options: tuple, polynomial: tuple | None
) -> Arrays:
    adjacency = hood.adjacency()
    found = one = adjacency if matrix is None else matrix(adjacency, *options)
    if polynomial is not None:
        function, *numbers = polynomial
        found = function(lambda other: one @ other, adjacency.identity, *numbers)
    return (found.of_frame_means() if hood.of_means else found).arrays()


def _degree_arrays(hood: Neighbourhood, num_axes: int) -> Arrays:
    """The arrays of `Degrees`, with some axes of size 1 for heads."""
    number = hood.adjacency().degrees()
    found = (number, number > 0, 1 / np.maximum(number, 1), inverse_root(number))
    shape = (len(number), *[1] * num_axes, -1, 1)
    return tuple(array.astype(float).reshape(shape) for array in found)


def _absent_slots(hood: Neighbourhood) -> tuple[np.ndarray]:
    sources = np.concatenate([part.sources() for part in hood.parts], axis=1)
    return ((sources < 0).reshape(*hood.shape, -1),)


def _slot_arrays(hood: Neighbourhood) -> Arrays:
    """Indices of the slots `[N*K]` that hold edges, in order, and of those of added self-loops.

    The order is by target, source and relation as the relations have them.
    """
    num_nodes = int(np.prod(hood.size))
    sources = [np.empty((num_nodes, 0), dtype=int), *(part.sources() for part in hood.parts)]
    source = np.concatenate(sources, axis=1)
    relations = np.array([part.relation for part in hood.parts for _ in range(part.num_slots)])
    target = np.arange(num_nodes)[:, None]
    own = np.flatnonzero(source == target)
    slots = np.flatnonzero((source >= 0) & (source != target))
    target, column = np.divmod(slots, source.shape[1])
    ends = [source.ravel()[slots], target]
    ends = ends[::-1] if hood.is_transposed else ends
    order = np.lexsort([relations.astype(int)[column], *ends])
    return slots[order], own if own.size else None


def neighbourhood(grid: Grid, relations: tuple[Relation, ...]) -> Neighbourhood | None:
    """The neighbourhood of the relations' union, cached; None if one has no dense form."""
    if torch.compiler.is_compiling():
        # a compiler may hold sizes as symbols; as indices they are integers again
        sizes = (index(size) for size in (grid.frames, grid.height, grid.width))
        return Neighbourhood.of(Grid(*sizes), relations)
    return CACHE.get(Neighbourhood.of, grid, relations)
