"""The algebra of two T x T matrices agrees with the matrices on all tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taghead.grid import INTRA_FRAME, RELATIONS, TIME_ALIGNED, Grid
from taghead.operators.linear_map import LinearMap, apply
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.parts import adjacency

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


@pytest.mark.parametrize("relations", [(INTRA_FRAME,), (TIME_ALIGNED,), RELATIONS])
@pytest.mark.parametrize("size", [(3, 2, 2), (1, 2, 2), (3, 1, 1), (1, 1, 1)])
def test_adjacency_of_relations(size, relations):
    grid = Grid(*size)
    edge_index, _ = grid.typed_edges(relations)
    expected = np.zeros((grid.num_nodes,) * 2)
    np.add.at(expected, (edge_index[1], edge_index[0]), 1)
    hood = Neighbourhood.of(grid, relations)
    np.testing.assert_array_equal(full(adjacency(*hood.key)), expected)
    looped = full(adjacency(*hood.with_self_loops().key))
    np.testing.assert_array_equal(looped, expected + np.eye(grid.num_nodes))
    degrees = np.repeat(hood.degrees(), grid.num_positions)
    np.testing.assert_array_equal(degrees, expected.sum(1))
