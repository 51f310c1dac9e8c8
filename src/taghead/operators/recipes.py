"""Recipes for the constants of a neighbourhood: arrays from its key, as plain values.

A key is the grid's size and the keys of the neighbourhood's parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from taghead.operators.linear_map import LinearMap
from taghead.operators.parts import FRAME, SHIFT, hidden_slots
from taghead.operators.window_map import WindowMap

Recipe = Callable[..., Any]
"""A linear map made from the sum over the edges and from plain options."""
Polynomial = Callable[..., Any]
"""A polynomial of one propagation, `(propagation, start, *numbers)`, of tensors or of maps."""
Size = tuple[int, int, int]


def adjacency(size: Size, keys: tuple[tuple[int, ...], ...]) -> LinearMap | WindowMap:
    """The sum over the edges of the parts with these keys."""
    frames, height, width = size
    linear, windows = LinearMap.zero(frames, height * width), dict[int, float]()
    eye = np.eye(frames)
    for kind, *value in keys:
        if kind == FRAME:
            linear += LinearMap(eye, eye * (value[0] - 1.0), height * width)
        elif kind == SHIFT:
            linear += LinearMap(0 * eye, np.eye(frames, k=value[0]), height * width)
        else:  # a window holds the token itself, which is no edge
            windows[value[1]] = windows.get(value[1], 0.0) + 1.0
            linear -= linear.identity
    return WindowMap.of(size[1:], linear, windows) if windows else linear


def matrices(recipe: Recipe, key: tuple, options: tuple) -> tuple[np.ndarray | None, ...]:
    """The arrays of a recipe's map on the neighbourhood with this key."""
    return recipe(adjacency(*key), *options).arrays()


def matrices_of_steps(
    polynomial: Polynomial, numbers: tuple, recipe: Recipe, key: tuple, options: tuple
) -> tuple[np.ndarray | None, ...]:
    """The arrays of a polynomial of a recipe's map."""
    edges = adjacency(*key)
    one = recipe(edges, *options)
    return polynomial(lambda other: one @ other, edges.identity, *numbers).arrays()


def matrices_of_means(recipe: Recipe, key: tuple, options: tuple) -> tuple[np.ndarray | None, ...]:
    """The arrays of a recipe's map, as it acts on the means over each frame."""
    return recipe(adjacency(*key), *options).of_frame_means().arrays()


def edges(adjacency: LinearMap) -> LinearMap:
    """Recipe: the sum over the edges."""
    return adjacency


def mean_of_edges(adjacency: LinearMap) -> LinearMap:
    """Recipe: the mean over the edges."""
    return adjacency.mean()


def of_degrees(recipe: Callable[[np.ndarray], np.ndarray], key: tuple) -> tuple[np.ndarray]:
    """Recipe: a function of the tokens' degrees, `[T, P]`, or `[T, 1]` without windows."""
    degrees = adjacency(*key).degrees()
    return (recipe(degrees).astype(float).reshape(len(degrees), -1),)


def number(degrees: np.ndarray) -> np.ndarray:
    """The number of edges."""
    return degrees


def present(degrees: np.ndarray) -> np.ndarray:
    """1 where there is an edge, 0 where there is none."""
    return degrees > 0


def inverse(degrees: np.ndarray) -> np.ndarray:
    """What makes a mean of a sum: 1 over the number of edges, and 1 where there is none."""
    return 1 / np.maximum(degrees, 1)


def edge_slots(
    size: Size, parts: tuple[tuple[int, tuple[int, ...]], ...], is_transposed: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Recipe: the slots `[N*K]` that hold edges, in order, and those that hold added self-loops.

    The order is by target, source and relation as the relations have them.
    """
    num_nodes = int(np.prod(size))
    nodes, places = np.arange(num_nodes), np.indices(size).reshape(3, -1)
    sources = [np.empty((num_nodes, 0), dtype=int)]
    relations = [np.empty(0, dtype=int)]
    for relation, (kind, *value) in parts:
        if kind == FRAME:
            positions = size[1] * size[2]
            source = places[0][:, None] * positions + np.arange(positions)
            loops, window = value
            if not loops:
                (hidden,) = hidden_slots(*size[1:], window)
                source[hidden[nodes % positions]] = -1
        else:
            found = places + np.array(value)[:, None]
            inside = ((found >= 0) & (found < np.array(size)[:, None])).all(0)
            source = np.where(inside, np.ravel_multi_index(found, size, mode="clip"), -1)[:, None]
        sources.append(source)
        relations.append(np.full(source.shape[1], relation))
    source, relation_of_slot = np.concatenate(sources, 1), np.concatenate(relations)
    target = nodes[:, None]
    own = np.flatnonzero(source == target)
    slots = np.flatnonzero((source >= 0) & (source != target))
    target, column = np.divmod(slots, source.shape[1])
    ends = [source.ravel()[slots], target]
    order = np.lexsort([relation_of_slot[column], *(ends[::-1] if is_transposed else ends)])
    return slots[order], own if own.size else None
