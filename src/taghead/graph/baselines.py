"""Baseline graphs that a relation is compared with: the same degrees and random edges, or none.

Their random numbers come from numpy's `RandomState`, whose streams are the same in every version
and on every machine, so a loaded checkpoint has the edges that it was trained with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from taghead.graph.edges import (
    EdgeRule,
    RelationKind,
    edge_order,
    intra_frame_edges,
    time_aligned_edges,
)
from taghead.graph.grid_shape import GridShape

ROUNDS = 20  # rounds of edge swaps; every edge takes part in each
CHUNK = 2**22  # random numbers that are drawn at a time


def no_edges(grid: GridShape) -> Tensor:
    """No edges. Baseline: the operator without edges, a layer on each token by itself.

    Shapes:
        - **output** `[2, 0]`
    """
    return torch.empty(2, 0, dtype=torch.long)


@dataclass(frozen=True)
class ShuffledEdges:
    """Another rule's edges, rewired at random with all in- and out-degrees preserved.

    There are no self-loops and no duplicate edges. Random pairs of edges swap their sources, unless
    a swap would create either; repeated swaps sample such graphs uniformly. Where no other such
    graph exists, as on a single frame, the edges are the rule's own.

    Args:
        base: The rule.
        seed: Seed of the swaps.

    Shapes:
        - **output** `[2, E]`, as many edges as the rule's, sorted by target, then source
    """

    base: EdgeRule
    seed: int

    def __call__(self, grid: GridShape) -> Tensor:
        random, count = generator(self.seed), grid.num_nodes
        source, target = self.base(grid).numpy().copy()
        half = len(source) // 2
        for _ in range(ROUNDS):
            order = random.permutation(len(source))
            one, other = order[:half], order[half : 2 * half]
            ends = np.stack([source[other], source[one]]), np.stack([target[one], target[other]])
            fits = (ends[0] != ends[1]).all(0) & _are_new(source, target, *ends, count)
            one, other = one[fits], other[fits]
            source[one], source[other] = source[other], source[one]
        edges = torch.from_numpy(np.stack([source, target]))
        return edges[:, edge_order(edges, count)]


def _are_new(
    source: np.ndarray, target: np.ndarray, sources: np.ndarray, targets: np.ndarray, count: int
) -> np.ndarray:
    """Which pairs of proposed edges `[2, M]` duplicate no present and no other proposed edge."""
    proposed = targets * count + sources
    _, index, times = np.unique(proposed, return_inverse=True, return_counts=True)
    is_single = (times[index] == 1).reshape(proposed.shape)
    is_new = ~np.isin(proposed, target * count + source) & is_single
    return is_new.all(0)


@dataclass(frozen=True)
class RandomEdges:
    """Random sources for every token, drawn from all others, with another rule's in-degrees.

    Args:
        base: The rule.
        seed: Seed of the draws.

    Shapes:
        - **output** `[2, E]`, as many edges as the rule's, sorted by target, then source
    """

    base: EdgeRule
    seed: int

    def __call__(self, grid: GridShape) -> Tensor:
        random, count = generator(self.seed), grid.num_nodes
        degrees = np.bincount(self.base(grid)[1].numpy(), minlength=count)
        if not degrees.any():
            return torch.empty(2, 0, dtype=torch.long)
        step = max(1, CHUNK // count)
        chunks = [
            _draw(random, np.arange(first, min(first + step, count)), degrees, count)
            for first in range(0, count, step)
        ]
        edges = torch.from_numpy(np.concatenate(chunks, axis=1))
        return edges[:, edge_order(edges, count)]


def _draw(
    random: np.random.RandomState, targets: np.ndarray, degrees: np.ndarray, count: int
) -> np.ndarray:
    """Edges to some targets, `[2, E]`: from the other tokens with the smallest random numbers."""
    max_degree = int(degrees.max())
    drawn = random.random_sample((len(targets), count - 1))
    smallest = drawn.argpartition(max_degree - 1)[:, :max_degree]
    order = np.take_along_axis(drawn, smallest, 1).argsort(axis=1, kind="stable")
    source = np.take_along_axis(smallest, order, 1)
    source += source >= targets[:, None]  # skips the token itself: no self-loops
    is_edge = np.arange(max_degree) < degrees[targets, None]
    target = np.broadcast_to(targets[:, None], source.shape)
    return np.stack([source[is_edge], target[is_edge]])


def generator(seed: int) -> np.random.RandomState:
    """A random generator for a seed of at least 0."""
    sequence = np.random.SeedSequence(seed)
    return np.random.RandomState(np.random.MT19937(sequence))


def _seeded(
    constructor: str, name: str, rule: Callable[[EdgeRule, int], EdgeRule], base: EdgeRule
) -> RelationKind:
    """The row of a random rule, whose integer is its seed."""
    return RelationKind(constructor, name, lambda seed: rule(base, seed), "seed", 0, minimum=0)


KINDS = (
    RelationKind("no_edges", "no_edges", lambda _: no_edges),
    _seeded("shuffled_intra", "shuffled_{}_intra", ShuffledEdges, intra_frame_edges),
    _seeded("shuffled_time", "shuffled_{}_time", ShuffledEdges, time_aligned_edges),
    _seeded("random_intra", "random_{}_intra", RandomEdges, intra_frame_edges),
    _seeded("random_time", "random_{}_time", RandomEdges, time_aligned_edges),
)
"""The relations of this module's rules."""
