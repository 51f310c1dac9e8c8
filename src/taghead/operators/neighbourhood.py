"""The neighbourhood of every token of a grid, as dense tensors: what replaces an edge list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import index

import numpy as np
import torch
from torch import Tensor

from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.operators.constants import constants
from taghead.operators.linear_map import apply, zeros_from
from taghead.operators.parts import WINDOW, Part, add_loops, framed, parts_of
from taghead.operators.recipes import (
    Polynomial,
    Recipe,
    Size,
    edge_slots,
    edges,
    matrices,
    matrices_of_means,
    matrices_of_steps,
    mean_of_edges,
    of_degrees,
    present,
)
from taghead.operators.window_map import apply_windows


@dataclass(frozen=True)
class Neighbourhood:
    """The edges of a grid in parts, each with the same number of slots at every token.

    Tensors of nodes are `[B, T, P, C]`, of heads `[B, T, H, P, C]`, of scores and weights
    `[B, T, H, P, K]` with one slot for each possible neighbour: K is the sum of the parts' slots.

    Args:
        size: Frames, rows and columns of the grid.
        parts: The parts that have edges.
        is_transposed: Whether targets and sources are those of the relations exchanged.
    """

    size: Size
    parts: tuple[Part, ...]
    is_transposed: bool = False

    @classmethod
    def of(cls, grid: Grid, relations: Sequence[Relation]) -> Neighbourhood | None:
        """The union of the relations' edges; None if one of them has no dense form."""
        parts: list[Part] = []
        for place, relation in enumerate(relations):
            found = parts_of(grid, relation, place)
            if found is None:
                return None
            parts += found
        size = (grid.frames, grid.height, grid.width)
        return cls(size, tuple(sorted(parts, key=lambda part: part.order)))

    @property
    def frames(self) -> int:
        """Frames of the grid, T."""
        return self.size[0]

    @property
    def positions(self) -> int:
        """Positions of a frame, P."""
        return self.size[1] * self.size[2]

    @property
    def key(self) -> tuple:
        """The sum over the edges as plain values, for cached recipes."""
        keys: list[tuple[int, ...]] = []
        for part in self.parts:
            if part.key[0] != WINDOW or part.key not in keys:
                keys.append(part.key)
        return self.size, tuple(keys)

    @property
    def transposed(self) -> Neighbourhood:
        """The same with every edge turned around: what `flow="target_to_source"` works on."""
        parts = tuple(part.transposed for part in self.parts)
        return Neighbourhood(self.size, parts, not self.is_transposed)

    @property
    def framed(self) -> Neighbourhood:
        """The same for operators that weigh pairs by inner products: small windows as frames."""
        if not self.has_windows:
            return self
        return replace(self, parts=tuple(framed(self.parts, self.size)))

    def with_self_loops(self, apart: bool = False) -> Neighbourhood:
        """The same with an edge from every token to itself.

        Args:
            apart: Whether the loops must be the last part, not a slot of their frame's part.
        """
        return replace(self, parts=tuple(add_loops(self.parts, self.size, apart)))

    def of_relation(self, place: int) -> Neighbourhood:
        """The edges of one relation."""
        parts = tuple(part for part in self.parts if part.relation == place)
        return replace(self, parts=parts)

    @property
    def places(self) -> list[int]:
        """The places of the relations that have edges; LOOP for self-loops in their own part."""
        return sorted({part.relation for part in self.parts})

    @property
    def reaches_all(self) -> bool:
        """Whether at least one edge arrives at every token."""
        frames = range(self.frames)
        return all(any(part.reaches(frame) for part in self.parts) for frame in frames)

    def per_token(self, recipe: Callable[[np.ndarray], np.ndarray], like: Tensor) -> Tensor:
        """A function of the number of edges that arrive at each token.

        Args:
            recipe: The function.
            like: `[B, T, P, C]`, or `[B, T, H, P, C]` with heads.

        Shapes:
            - **output** `[T, P, 1]`, or `[T, 1, P, 1]`; P is 1 if it is alike at all positions
        """
        (tensor,) = constants(of_degrees, (recipe, self.key), like.dtype, like.device)
        assert tensor is not None
        frames, positions = tensor.shape
        return tensor.view(frames, *[1] * (like.dim() - 4), positions, 1)

    # Sums that treat all neighbours alike

    @property
    def has_windows(self) -> bool:
        """Whether the neighbourhood tells the positions of a frame apart."""
        return any(part.key[0] == WINDOW for part in self.parts)

    def linear(self, x: Tensor, recipe: Recipe, *options: float | bool | str | None) -> Tensor:
        """Applies a linear map that a recipe makes from the sum over the edges.

        Shapes:
            - **x**, **output** `[..., T, P, C]`
        """
        arrays = constants(matrices, (recipe, self.key, options), x.dtype, x.device)
        return apply_windows(arrays, self.size[1:], x) if self.has_windows else apply(arrays, x)

    def steps(
        self, x: Tensor, polynomial: Polynomial, numbers: tuple, recipe: Recipe, *options: bool
    ) -> Tensor:
        """Applies a polynomial of a linear map: at once, or step by step if there are windows.

        Args:
            x: The tokens.
            polynomial: The polynomial.
            numbers: Its other arguments.
            recipe: Makes the linear map.
            options: The recipe's options.

        Shapes:
            - **x**, **output** `[..., T, P, C]`
        """
        if self.has_windows:
            return polynomial(lambda x: self.linear(x, recipe, *options), x, *numbers)
        arguments = (polynomial, numbers, recipe, self.key, options)
        return apply(constants(matrices_of_steps, arguments, x.dtype, x.device), x)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over each token's neighbours."""
        return self.linear(x, edges)

    def mean(self, x: Tensor) -> Tensor:
        """The mean over each token's neighbours, 0 where there is none."""
        return self.linear(x, mean_of_edges)

    # Attention

    def softmax(self, scores: Sequence[Tensor], like: Tensor) -> Tensor:
        """Scores of each part -> weights over all neighbours, 0 where there is none.

        Shapes:
            - **scores** `[B, T, H, P, K]` for each part
            - **like** `[B, T, H, P, C]`, which tells the shape if there is no part
            - **output** `[B, T, H, P, K]`
        """
        if not scores:
            return like[..., :0]
        least = torch.finfo(scores[0].dtype).min
        pairs = zip(self.parts, scores, strict=True)
        hidden = [part.hide(score, least) for part, score in pairs]
        weights = torch.cat(hidden, dim=-1).softmax(-1)
        return weights if self.reaches_all else weights * self.per_token(present, weights)

    def mix(self, weights: Tensor, values: Sequence[Tensor]) -> Tensor:
        """The weighted sum of the values that each part sees.

        Shapes:
            - **weights** `[B, T, H, P, K]`
            - **values** `[B, T, H, P, C]` for each part, or one if there is no part
            - **output** `[B, T, H, P, C]`
        """
        if not self.parts:
            return zeros_from(values[0])
        slices = weights.split([part.num_slots for part in self.parts], dim=-1)
        terms = [part.mix(*pair) for part, *pair in zip(self.parts, slices, values, strict=True)]
        return sum(terms[1:], start=terms[0])

    def in_edge_order(self, weights: Tensor) -> Tensor:
        """Weights as PyG lists them: by clip, target and source; added self-loops at the end.

        Shapes:
            - **weights** `[B, T, H, P, K]`
            - **output** `[B*E, H]`, or `[B*E + B*N, H]` with self-loops
        """
        slots = tuple((part.relation, part.slots) for part in self.parts)
        arguments = (self.size, slots, self.is_transposed)
        edges, loops = constants(edge_slots, arguments, torch.long, weights.device)
        assert edges is not None
        by_node = weights.transpose(2, 3).flatten(1, 2)  # [B, N, H, K]
        by_slot = by_node.transpose(2, 3).flatten(1, 2)  # [B, N*K, H]
        listed = by_slot[:, edges].flatten(0, 1)
        return listed if loops is None else torch.cat([listed, by_slot[:, loops].flatten(0, 1)])


class FrameMeans(Neighbourhood):
    """The edges of a grid as they act on the mean over each frame, `[B, T, 1, C]`.

    A linear map that treats the positions of a frame alike commutes with that mean. Windows do not
    treat them alike.
    """

    def linear(self, x: Tensor, recipe: Recipe, *options: float | bool | str | None) -> Tensor:
        arguments = (recipe, self.key, options)
        return apply(constants(matrices_of_means, arguments, x.dtype, x.device), x)

    def steps(
        self, x: Tensor, polynomial: Polynomial, numbers: tuple, recipe: Recipe, *options: bool
    ) -> Tensor:
        return polynomial(lambda x: self.linear(x, recipe, *options), x, *numbers)


def neighbourhood(grid: Grid, relations: tuple[Relation, ...]) -> Neighbourhood | None:
    """The neighbourhood of the relations' union, kept; None if one has no dense form."""
    if torch.compiler.is_compiling():
        # a compiler may hold sizes as symbols; as indices they are numbers again
        sizes = (index(size) for size in (grid.frames, grid.height, grid.width))
        return Neighbourhood.of(Grid(*sizes), relations)
    return _kept(grid, relations)


_kept = lru_cache(maxsize=256)(Neighbourhood.of)
