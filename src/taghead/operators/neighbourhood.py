"""The neighbourhood of every token of a grid, as dense tensors: what replaces an edge list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import index

import numpy as np
import torch
from torch import Tensor

from taghead.grid import Grid, Relation
from taghead.operators.constants import constants
from taghead.operators.linear_map import LinearMap, apply, zeros_from
from taghead.operators.parts import Part, add_loops, adjacency, parts_of

Recipe = Callable[..., LinearMap]
"""A linear map made from the sum over the edges and from plain options."""


@dataclass(frozen=True)
class Neighbourhood:
    """The edges of a grid in parts, ordered as their sources are: by frame, then position.

    Tensors of nodes are `[B, T, P, C]`, of heads `[B, T, H, P, C]`, of scores and weights
    `[B, T, H, P, K]` with one slot for each possible neighbour: K is the sum of the parts' slots.

    Args:
        frames: Frames of the grid, T.
        positions: Positions of a frame, P.
        parts: The parts that have edges.
    """

    frames: int
    positions: int
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, grid: Grid, relations: Sequence[Relation]) -> Neighbourhood | None:
        """The union of the relations' edges; None if one of them has no dense form."""
        parts: list[Part] = []
        for place, relation in enumerate(relations):
            found = parts_of(grid, relation, place)
            if found is None:
                return None
            parts += found
        return cls(grid.frames, grid.num_positions, tuple(sorted(parts, key=lambda p: p.order)))

    @property
    def key(self) -> tuple:
        """The neighbourhood as plain values, for cached recipes."""
        return (self.frames, self.positions, tuple(part.key for part in self.parts))

    def with_self_loops(self, apart: bool = False) -> Neighbourhood:
        """The same with an edge from every token to itself.

        Args:
            apart: Whether the loops must be the last part, not a slot of their frame's part.
        """
        parts = add_loops(self.parts, self.frames, self.positions, apart)
        return Neighbourhood(self.frames, self.positions, tuple(parts))

    def of_relation(self, place: int) -> Neighbourhood:
        """The edges of one relation."""
        parts = tuple(part for part in self.parts if part.relation == place)
        return Neighbourhood(self.frames, self.positions, parts)

    @property
    def places(self) -> list[int]:
        """The places of the relations that have edges; LOOP for self-loops in their own part."""
        return sorted({part.relation for part in self.parts})

    def degrees(self) -> tuple[int, ...]:
        """The number of edges that arrive at a token of each frame."""
        return tuple(sum(p.degree(frame) for p in self.parts) for frame in range(self.frames))

    def per_frame(self, numbers: Sequence[float], like: Tensor) -> Tensor:
        """One number a frame as a tensor `[T, 1, 1]`, or `[T, 1, 1, 1]` beside heads."""
        (tensor,) = constants(column, (tuple(numbers),), like.dtype, like.device)
        assert tensor is not None
        return tensor.view(-1, *[1] * (like.dim() - 2))

    # Sums that treat all neighbours alike

    def linear(self, x: Tensor, recipe: Recipe, *options: float | bool | str | None) -> Tensor:
        """Applies a linear map that a recipe makes from the sum over the edges.

        Shapes:
            - **x**, **output** `[..., T, P, C]`
        """
        arguments = (recipe, self.key, options)
        return apply(constants(matrices, arguments, x.dtype, x.device), x)

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
        degrees = self.degrees()
        if all(degrees):
            return weights
        return weights * self.per_frame([float(degree > 0) for degree in degrees], weights)

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
        edges, loops = constants(edge_slots, self.key, torch.long, weights.device)
        assert edges is not None
        by_node = weights.transpose(2, 3).flatten(1, 2)  # [B, N, H, K]
        slots = by_node.transpose(2, 3).flatten(1, 2)  # [B, N*K, H]
        listed = slots[:, edges].flatten(0, 1)
        return listed if loops is None else torch.cat([listed, slots[:, loops].flatten(0, 1)])


def neighbourhood(grid: Grid, relations: tuple[Relation, ...]) -> Neighbourhood | None:
    """The neighbourhood of the relations' union, kept; None if one has no dense form."""
    if torch.compiler.is_compiling():
        # a compiler may hold sizes as symbols; as indices they are numbers again
        sizes = (index(size) for size in (grid.frames, grid.height, grid.width))
        return Neighbourhood.of(Grid(*sizes), relations)
    return _kept(grid, relations)


_kept = lru_cache(maxsize=256)(Neighbourhood.of)


def matrices(recipe: Recipe, key: tuple, options: tuple) -> tuple[np.ndarray | None, ...]:
    """The arrays of a recipe's map on the neighbourhood with this key."""
    return recipe(adjacency(*key), *options).arrays()


def edges(adjacency: LinearMap) -> LinearMap:
    """Recipe: the sum over the edges."""
    return adjacency


def mean_of_edges(adjacency: LinearMap) -> LinearMap:
    """Recipe: the mean over the edges."""
    return adjacency.mean()


def column(numbers: tuple[float, ...]) -> tuple[np.ndarray]:
    """Recipe: numbers as an array."""
    return (np.array(numbers, dtype=float),)


def edge_slots(
    frames: int, positions: int, keys: tuple[tuple[str, int], ...]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The slots `[N*K]` that hold edges, in order, and those that hold added self-loops."""
    is_edge, is_loop = [], []
    frame = np.arange(frames)[:, None, None]
    own = np.eye(positions, dtype=bool)[None].repeat(frames, 0)
    for kind, value in keys:
        if kind == "frame":
            is_edge.append(~own)
            is_loop.append(own & bool(value))
        else:
            inside = (frame + value >= 0) & (frame + value < frames)
            inside = np.broadcast_to(inside, (frames, positions, 1))
            is_edge.append(inside & (value != 0))
            is_loop.append(inside & (value == 0))
    loops = np.concatenate(is_loop, -1).ravel().nonzero()[0]
    return np.concatenate(is_edge, -1).ravel().nonzero()[0], loops if loops.size else None
