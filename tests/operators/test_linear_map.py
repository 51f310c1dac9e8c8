"""The algebra of two T x T matrices agrees with the matrices on all tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import RELATION_SETS
from hypothesis import given
from hypothesis import strategies as st

from taghead.graph import PAST, Grid, spatial_window
from taghead.operators.linear_map import LinearMap, apply
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.recipes import adjacency
from taghead.operators.window_map import WindowMap, apply_windows

NUMBERS = st.floats(-2, 2, width=32)


@st.composite
def pairs_of_maps(draw):
    frames, positions = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    square = st.lists(NUMBERS, min_size=frames**2, max_size=frames**2)
    matrices = [np.array(draw(square)).reshape(frames, frames) for _ in range(4)]
    return LinearMap(*matrices[:2], positions), LinearMap(*matrices[2:], positions)


def full(linear: LinearMap) -> np.ndarray:
    ones, eye = np.ones((linear.num_positions,) * 2), np.eye(linear.num_positions)
    return np.kron(linear.sums, ones) + np.kron(linear.nodes, eye)


@given(pairs_of_maps())
def test_operations(maps):
    one, other = maps
    factors = np.arange(1.0, len(one.nodes) + 1)
    of_tokens = np.repeat(factors, one.num_positions)
    np.testing.assert_allclose(full(one + other), full(one) + full(other), atol=1e-12)
    np.testing.assert_allclose(full(one - other), full(one) - full(other), atol=1e-12)
    np.testing.assert_allclose(full(0.5 * one), 0.5 * full(one), atol=1e-12)
    np.testing.assert_allclose(full(one @ other), full(one) @ full(other), atol=1e-10)
    np.testing.assert_allclose(full(one.scale_targets(factors)), of_tokens[:, None] * full(one))
    np.testing.assert_allclose(full(one.scale_sources(factors)), full(one) * of_tokens)
    degrees = np.repeat(one.degrees(), one.num_positions)
    np.testing.assert_allclose(degrees, full(one).sum(1), atol=1e-10)


@given(pairs_of_maps())
def test_apply(maps):
    for linear in maps:
        x = torch.randn(2, len(linear.nodes), linear.num_positions, 3, dtype=torch.double)
        arrays = [None if a is None else torch.from_numpy(a) for a in linear.arrays()]
        expected = torch.from_numpy(full(linear)) @ x.flatten(1, 2)
        torch.testing.assert_close(apply(arrays, x).flatten(1, 2), expected)


def full_of_windows(windows: WindowMap) -> np.ndarray:
    """The map's matrix on all tokens, from what it does to each of them."""
    linear = windows.terms[0].linear
    num_nodes = len(linear.nodes) * linear.num_positions
    x = torch.eye(num_nodes, dtype=torch.double)
    x = x.view(num_nodes, -1, linear.num_positions, 1)
    arrays = [None if a is None else torch.from_numpy(a) for a in windows.arrays()]
    return apply_windows(arrays, windows.size, x).view(num_nodes, -1).t().numpy()


@pytest.mark.parametrize("relations", RELATION_SETS.values(), ids=RELATION_SETS)
@pytest.mark.parametrize("size", [(3, 2, 3), (2, 4, 3), (3, 2, 2), (1, 2, 2), (3, 1, 1), (1, 1, 1)])
def test_adjacency_of_relations(size, relations):
    grid = Grid(*size)
    edge_index, _ = grid.typed_edges(relations)
    expected = np.zeros((grid.num_nodes,) * 2)
    np.add.at(expected, (edge_index[1], edge_index[0]), 1)
    hood, loops = Neighbourhood.of(grid, relations), np.eye(grid.num_nodes)
    for edges, matrix in ((hood, expected), (hood.transposed, expected.T)):
        found, looped = adjacency(*edges.key), adjacency(*edges.with_self_loops().key)
        as_matrix = full_of_windows if isinstance(found, WindowMap) else full
        np.testing.assert_array_equal(as_matrix(found), matrix)
        np.testing.assert_array_equal(as_matrix(looped), matrix + loops)
        degrees, source_degrees = (
            np.broadcast_to(found.reshape(grid.frames, -1), (grid.frames, grid.num_positions))
            for found in (found.degrees(), found.source_degrees())
        )
        np.testing.assert_array_equal(degrees.ravel(), matrix.sum(1))
        np.testing.assert_array_equal(source_degrees.ravel(), matrix.sum(0))
        assert edges.reaches_all == matrix.any(1).all()


@pytest.mark.parametrize("radii", [(1,), (2,), (1, 2), (1, 1)])
def test_operations_with_windows(radii):
    grid = Grid(2, 3, 4)
    hood = Neighbourhood.of(grid, (PAST, *map(spatial_window, radii)))
    one = adjacency(*hood.key)
    matrix, eye = full_of_windows(one), np.eye(grid.num_nodes)
    factors = np.arange(1.0, grid.num_nodes + 1)
    by_token = factors.reshape(grid.frames, -1)
    left, right = np.diag(factors), np.diag(1 / factors)
    other = one.scale_sources(1 / by_token).scale_targets(by_token)
    scaled = left @ matrix @ right
    for found, expected in [
        (other, scaled),
        (other + one, scaled + matrix),
        (0.5 * other - one.identity, 0.5 * scaled - eye),
        (one.mean(), matrix / np.maximum(matrix.sum(1, keepdims=True), 1)),
    ]:
        np.testing.assert_allclose(full_of_windows(found), expected, atol=1e-12)
        np.testing.assert_allclose(found.degrees().ravel(), expected.sum(1), atol=1e-12)
        np.testing.assert_allclose(found.source_degrees().ravel(), expected.sum(0), atol=1e-12)
