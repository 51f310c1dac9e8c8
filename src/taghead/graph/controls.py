"""Edges to compare a relation with: as many of them, but none that mean anything.

Their random numbers come from numpy's `RandomState`, the one generator whose numbers stay the same
in every version and on every machine: a checkpoint finds the edges that it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from taghead.graph.edges import EdgeRule, edge_order

if TYPE_CHECKING:
    from taghead.graph.grid import Grid

ROUNDS = 20  # of exchanges, in each of which every edge takes part
CHUNK = 2**22  # random numbers that are drawn at a time


def no_edges(grid: Grid) -> Tensor:
    """No edges: an operator sees each token alone. What is left of it is no graph's merit.

    Shapes:
        - **output** `[2, 0]`
    """
    return torch.empty(2, 0, dtype=torch.long)


@dataclass(frozen=True)
class ShuffledEdges:
    """Another rule's edges with their sources exchanged among them at random.

    Every token keeps its number of sources and its number of targets; there are no self-loops and
    no edge comes twice. Pairs of edges exchange sources wherever that stays so, again and again,
    which leads to all such graphs with the same probability. Where there is no other such graph,
    as within the one frame of a clip, the edges are the rule's own.

    Args:
        base: The rule.
        seed: Of the exchanges.

    Shapes:
        - **output** `[2, E]`, as many as the rule's, sorted by target, then source
    """

    base: EdgeRule
    seed: int

    def __call__(self, grid: Grid) -> Tensor:
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
    """Which pairs of edges `[2, M]` hold two that are not there and that no other pair holds."""
    found = targets * count + sources
    _, place, times = np.unique(found, return_inverse=True, return_counts=True)
    is_new = ~np.isin(found, target * count + source) & (times[place] == 1).reshape(found.shape)
    return is_new.all(0)


@dataclass(frozen=True)
class RandomEdges:
    """As many random sources for every token as another rule gives it, out of all other tokens.

    Args:
        base: The rule.
        seed: Of the draws.

    Shapes:
        - **output** `[2, E]`, as many as the rule's, sorted by target, then source
    """

    base: EdgeRule
    seed: int

    def __call__(self, grid: Grid) -> Tensor:
        random, count = generator(self.seed), grid.num_nodes
        degrees = np.bincount(self.base(grid)[1].numpy(), minlength=count)
        if not degrees.any():
            return torch.empty(2, 0, dtype=torch.long)
        step = max(1, CHUNK // count)
        found = [
            _draw(random, np.arange(first, min(first + step, count)), degrees, count)
            for first in range(0, count, step)
        ]
        edges = torch.from_numpy(np.concatenate(found, axis=1))
        return edges[:, edge_order(edges, count)]


def _draw(
    random: np.random.RandomState, targets: np.ndarray, degrees: np.ndarray, count: int
) -> np.ndarray:
    """Edges to some targets, `[2, E]`: from those of the other tokens that drew the least."""
    most = int(degrees.max())
    drawn = random.random_sample((len(targets), count - 1))
    least = drawn.argpartition(most - 1)[:, :most]
    in_order = np.take_along_axis(drawn, least, 1).argsort(axis=1, kind="stable")
    source = np.take_along_axis(least, in_order, 1)
    source += source >= targets[:, None]  # a token is no source of its own
    is_edge = np.arange(most) < degrees[targets, None]
    target = np.broadcast_to(targets[:, None], source.shape)
    return np.stack([source[is_edge], target[is_edge]])


def generator(seed: int) -> np.random.RandomState:
    """A generator of random numbers from any seed that is not negative."""
    sequence = np.random.SeedSequence(seed)
    return np.random.RandomState(np.random.MT19937(sequence))
