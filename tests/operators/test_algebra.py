"""The algebra of grid matrices agrees with the matrices on all tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import RELATION_SETS
from hypothesis import given
from hypothesis import strategies as st

from taghead.graph import PAST, Grid, spatial_window
from taghead.operators.algebra import GridMatrix, Term, apply
from taghead.operators.neighbourhood import Neighbourhood

NUMBERS = st.floats(-2, 2, width=32)


@st.composite
def pairs_of_matrices(draw):
    frames, positions = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    square = st.lists(NUMBERS, min_size=frames**2, max_size=frames**2)
    arrays = [np.array(draw(square)).reshape(frames, frames) for _ in range(4)]
    size = (frames, 1, positions)
    return GridMatrix(size, (Term(*arrays[:2]),)), GridMatrix(size, (Term(*arrays[2:]),))


def full(matrix: GridMatrix) -> np.ndarray:
    """The matrix on all tokens, from its A and B."""
    (term,) = matrix.terms
    ones, eye = np.ones((matrix.num_positions,) * 2), np.eye(matrix.num_positions)
    return np.kron(term.sums, ones) + np.kron(term.nodes, eye)


def full_by_applying(matrix: GridMatrix) -> np.ndarray:
    """The matrix on all tokens, from what it does to each of them."""
    frames, *size = matrix.size
    num_nodes = frames * matrix.num_positions
    x = torch.eye(num_nodes, dtype=torch.double).view(num_nodes, frames, -1, 1)
    arrays = [None if a is None else torch.from_numpy(a) for a in matrix.arrays()]
    return apply(arrays, x, size).view(num_nodes, -1).t().numpy()


def of_tokens(degrees: np.ndarray, grid: Grid) -> np.ndarray:
    return np.broadcast_to(degrees, (grid.frames, grid.num_positions)).ravel()


@given(pairs_of_matrices())
def test_operations(matrices):
    one, other = matrices
    factors = np.arange(1.0, one.size[0] + 1)[:, None]
    by_token = np.repeat(factors[:, 0], one.num_positions)
    np.testing.assert_allclose(full(one + other), full(one) + full(other), atol=1e-12)
    np.testing.assert_allclose(full(one - other), full(one) - full(other), atol=1e-12)
    np.testing.assert_allclose(full(0.5 * one), 0.5 * full(one), atol=1e-12)
    np.testing.assert_allclose(full(one @ other), full(one) @ full(other), atol=1e-10)
    np.testing.assert_allclose(full(one.scale_targets(factors)), by_token[:, None] * full(one))
    np.testing.assert_allclose(full(one.scale_sources(factors)), full(one) * by_token)
    degrees = np.repeat(one.degrees()[:, 0], one.num_positions)
    np.testing.assert_allclose(degrees, full(one).sum(1), atol=1e-10)


@given(pairs_of_matrices())
def test_apply(matrices):
    for matrix in matrices:
        frames, *size = matrix.size
        x = torch.randn(2, frames, matrix.num_positions, 3, dtype=torch.double)
        arrays = [None if a is None else torch.from_numpy(a) for a in matrix.arrays()]
        expected = torch.from_numpy(full(matrix)) @ x.flatten(1, 2)
        torch.testing.assert_close(apply(arrays, x, size).flatten(1, 2), expected)


@given(pairs_of_matrices())
def test_frame_means(matrices):
    for matrix in matrices:
        x = np.arange(1.0, matrix.size[0] * matrix.num_positions + 1)
        means = x.reshape(matrix.size[0], -1).mean(1)
        expected = (full(matrix) @ x).reshape(matrix.size[0], -1).mean(1)
        np.testing.assert_allclose(full(matrix.of_frame_means()) @ means, expected, atol=1e-10)


@pytest.mark.parametrize("relations", RELATION_SETS.values(), ids=RELATION_SETS)
@pytest.mark.parametrize("size", [(3, 2, 3), (2, 4, 3), (3, 2, 2), (1, 2, 2), (3, 1, 1), (1, 1, 1)])
def test_adjacency_of_relations(size, relations):
    grid = Grid(*size)
    edge_index, _ = grid.typed_edges(relations)
    expected = np.zeros((grid.num_nodes,) * 2)
    np.add.at(expected, (edge_index[1], edge_index[0]), 1)
    hood, loops = Neighbourhood.of(grid, relations), np.eye(grid.num_nodes)
    for edges, matrix in ((hood, expected), (hood.transposed, expected.T)):
        found, looped = edges.adjacency(), edges.with_self_loops().adjacency()
        as_matrix = full_by_applying if edges.has_windows else full
        np.testing.assert_array_equal(as_matrix(found), matrix)
        np.testing.assert_array_equal(as_matrix(looped), matrix + loops)
        np.testing.assert_array_equal(of_tokens(found.degrees(), grid), matrix.sum(1))
        np.testing.assert_array_equal(of_tokens(found.transposed.degrees(), grid), matrix.sum(0))
        assert edges.reaches_all == matrix.any(1).all()


@pytest.mark.parametrize("radii", [(1,), (2,), (1, 2), (1, 1)])
def test_operations_with_windows(radii):
    grid = Grid(2, 3, 4)
    one = Neighbourhood.of(grid, (PAST, *map(spatial_window, radii))).adjacency()
    matrix, eye = full_by_applying(one), np.eye(grid.num_nodes)
    factors = np.arange(1.0, grid.num_nodes + 1)
    by_token = factors.reshape(grid.frames, -1)
    left, right = np.diag(factors), np.diag(1 / factors)
    other = one.scale_sources(1 / by_token).scale_targets(by_token)
    scaled = left @ matrix @ right
    by_frame = np.array([[2.0], [3.0]])
    for found, expected in [
        (other, scaled),
        (other + one, scaled + matrix),
        (0.5 * other - one.identity, 0.5 * scaled - eye),
        (one.mean(), matrix / np.maximum(matrix.sum(1, keepdims=True), 1)),
        (other.scale_targets(by_frame), of_tokens(by_frame, grid)[:, None] * scaled),
    ]:
        np.testing.assert_allclose(full_by_applying(found), expected, atol=1e-12)
        np.testing.assert_allclose(of_tokens(found.degrees(), grid), expected.sum(1), atol=1e-12)
        by_source = of_tokens(found.transposed.degrees(), grid)
        np.testing.assert_allclose(by_source, expected.sum(0), atol=1e-12)


def test_a_product_with_windows_is_refused():
    one = Neighbourhood.of(Grid(2, 3, 4), (spatial_window(1),)).adjacency()
    with pytest.raises(ValueError, match="must have no windows"):
        one @ one.identity
