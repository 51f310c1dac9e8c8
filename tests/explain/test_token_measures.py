"""Measures of over-smoothing: by hand, at their limits, and against PyG's Laplacian."""

import math

import pytest
import torch
from torch_geometric.utils import add_self_loops, get_laplacian, to_dense_adj

from taghead import Grid
from taghead.explain import (
    dirichlet_energy,
    effective_rank,
    mean_cosine_distance,
    stable_rank,
)
from taghead.graph import INTRA_FRAME, TIME_ALIGNED

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0 - 1 - 2
GRID = Grid(3, 2, 2)


def test_on_a_path_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
    assert dirichlet_energy(x, PATH) == pytest.approx((2 * 5 + 2 * 1) / 3)
    two, three = math.sqrt(2), math.sqrt(3)
    expected = (1 / two) ** 2 + (2 / three) ** 2 + (3 / two - 2 / three) ** 2
    assert dirichlet_energy(x, PATH, normalized=True) == pytest.approx(2 * expected / 3)
    # distances 0-1: 1, 1-2: 0; the middle token has the mean of both
    assert mean_cosine_distance(x, PATH) == pytest.approx((1 + 0.5 + 0) / 3)
    assert mean_cosine_distance(x) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_ranks_by_hand() -> None:
    x = torch.diag(torch.tensor([3.0, 1.0]))
    share = torch.tensor([0.75, 0.25])
    assert effective_rank(x) == pytest.approx(float((-share * share.log()).sum().exp()), rel=1e-6)
    assert stable_rank(x) == pytest.approx(10 / 9)
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert stable_rank(torch.eye(5)) == pytest.approx(5)


def test_directed_edges_count_once_with_the_degrees_of_their_ends() -> None:
    x, edges = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[0, 0], [1, 2]])
    assert dirichlet_energy(x, edges) == pytest.approx((4 + 16) / 3)
    root = math.sqrt(2), math.sqrt(3)
    expected = (3 / root[0] - 1 / root[1]) ** 2 + (5 / root[0] - 1 / root[1]) ** 2
    assert dirichlet_energy(x, edges, normalized=True) == pytest.approx(expected / 3)


def test_equal_tokens() -> None:
    x = torch.randn(7).expand(GRID.num_nodes, 7)
    for relation in (INTRA_FRAME, TIME_ALIGNED):
        edge_index = GRID.edge_index(relation)
        assert dirichlet_energy(x, edge_index) == 0
        assert mean_cosine_distance(x, edge_index) == pytest.approx(0, abs=1e-12)
    assert dirichlet_energy(x, GRID.edge_index(INTRA_FRAME), normalized=True) == 0
    assert mean_cosine_distance(x) == pytest.approx(0, abs=1e-12)
    assert effective_rank(x) == pytest.approx(1)
    assert stable_rank(x) == pytest.approx(1)


def test_random_tokens() -> None:
    x = torch.randn(2000, 6, generator=torch.Generator().manual_seed(0))
    assert mean_cosine_distance(x) == pytest.approx(1, abs=0.01)
    assert effective_rank(x) == pytest.approx(6, abs=0.05)
    assert stable_rank(x) == pytest.approx(6, abs=0.6)


@pytest.mark.parametrize("relation", [INTRA_FRAME, TIME_ALIGNED])
def test_energy_is_that_of_pygs_laplacian(relation: tuple[str, str, str]) -> None:
    """Of undirected graphs: each pair of tokens is two edges."""
    edge_index, count = GRID.edge_index(relation), GRID.num_nodes
    x = torch.randn(count, 5, dtype=torch.float64)

    def quadratic(edges: torch.Tensor, normalization: str | None) -> float:
        index, weight = get_laplacian(edges, None, normalization, torch.float64, count)
        laplacian = to_dense_adj(index, edge_attr=weight, max_num_nodes=count)[0]
        return float(2 * (x.T @ laplacian @ x).trace() / count)

    assert dirichlet_energy(x, edge_index) == pytest.approx(quadratic(edge_index, None))
    # get_laplacian takes self-loops out: the degree with loops is put into the sum by hand
    loops = add_self_loops(edge_index, num_nodes=count)[0]
    adjacency = to_dense_adj(loops, max_num_nodes=count)[0].double()
    root = adjacency.sum(1).rsqrt()
    laplacian = torch.eye(count).double() - root[:, None] * adjacency * root
    expected = float(2 * (x.T @ laplacian @ x).trace() / count)
    assert dirichlet_energy(x, edge_index, normalized=True) == pytest.approx(expected)


def test_many_edges_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    edge_index, x = GRID.edge_index(INTRA_FRAME), torch.randn(GRID.num_nodes, 4)
    expected = dirichlet_energy(x, edge_index), mean_cosine_distance(x, edge_index)
    monkeypatch.setattr("taghead.explain.token_measures.EDGES_AT_ONCE", 5)
    found = dirichlet_energy(x, edge_index), mean_cosine_distance(x, edge_index)
    assert found == pytest.approx(expected)


def test_without_edges_or_values() -> None:
    none = torch.empty(2, 0, dtype=torch.long)
    zeros = torch.zeros(3, 4)
    assert dirichlet_energy(torch.randn(3, 4), none, normalized=True) == 0
    assert mean_cosine_distance(torch.randn(3, 4), none) == 0
    assert mean_cosine_distance(torch.randn(1, 4)) == 0
    assert effective_rank(zeros) == stable_rank(zeros) == 0
    assert mean_cosine_distance(zeros) == 1
