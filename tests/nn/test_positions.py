import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE
from torch_geometric.utils import get_laplacian, to_dense_adj, to_undirected

from taghead import Grid, TAGHead
from taghead.graph import as_relations
from taghead.nn.positions import GraphEncoding, PositionalEncoding

GRID = Grid(2, 3, 4)


def encoding(positions: PositionalEncoding, grid: Grid) -> torch.Tensor:
    return positions(torch.zeros(1, grid.num_nodes, positions.tables[0].size(-1)), grid)


def test_full_is_one_vector_a_node() -> None:
    positions = PositionalEncoding(5, GRID)
    assert [table.shape for table in positions.tables] == [(1, 24, 5)]
    assert torch.equal(encoding(positions, GRID), positions.tables[0])


def test_factorised_is_the_sum_over_frame_row_and_column() -> None:
    positions = PositionalEncoding(5, GRID, kind="factorised")
    frame, row, column = (table[0] for table in positions.tables)
    out = encoding(positions, GRID)[0]
    for node, (t, y, x) in enumerate(GRID.positions().tolist()):
        torch.testing.assert_close(out[node], frame[t] + row[y] + column[x])


@pytest.mark.parametrize("grid", [Grid(4, 6, 8), Grid(1, 1, 1), Grid(3, 3, 4)])
def test_another_grid_gets_the_trilinear_interpolation(grid: Grid) -> None:
    positions = PositionalEncoding(5, GRID)
    volume = positions.tables[0].transpose(1, 2).view(1, 5, 2, 3, 4)
    size = (grid.frames, grid.height, grid.width)
    expected = F.interpolate(volume, size=size, mode="trilinear").flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoding(positions, grid), expected)


def test_factorised_positions_of_another_grid_stay_a_sum() -> None:
    positions = PositionalEncoding(3, GRID, kind="factorised")
    grid = Grid(4, 6, 2)
    out = encoding(positions, grid)[0].view(4, 6, 2, 3)
    # a sum of one-dimensional terms has no mixed differences
    mixed = out[1:, 1:] - out[:-1, 1:] - out[1:, :-1] + out[:-1, :-1]
    torch.testing.assert_close(mixed, torch.zeros_like(mixed), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["full", "factorised"])
def test_gradients_reach_the_tables(kind: Any) -> None:
    positions = PositionalEncoding(3, GRID, kind=kind)
    encoding(positions, Grid(3, 3, 3)).square().sum().backward()
    assert all(table.grad.abs().sum() > 0 for table in positions.tables)


def test_std_is_that_of_the_initial_values() -> None:
    positions = PositionalEncoding(64, Grid(8, 7, 7), std=1.0)
    assert 0.97 < positions.tables[0].std() < 1.03


RELATIONS = ("intra_frame", "past_1f")


@pytest.mark.parametrize("kind", ["laplacian", "random_walk"])
def test_encodings_of_the_graph_are_pygs(kind: Any) -> None:
    positions = GraphEncoding(5, GRID, as_relations(RELATIONS), kind, size=4).eval()
    edge_index = GRID.typed_edges(as_relations(RELATIONS))[0]
    data = Data(edge_index=edge_index, num_nodes=GRID.num_nodes)
    if kind == "random_walk":
        expected = AddRandomWalkPE(4, "pe")(data).pe
        torch.testing.assert_close(positions.encoding, expected)
    else:  # a basis of the smallest eigenvalues' space, without the constant vector's
        index, weight = get_laplacian(to_undirected(edge_index), normalization="sym")
        laplacian = to_dense_adj(index, edge_attr=weight, max_num_nodes=GRID.num_nodes)[0]
        values = torch.linalg.eigvalsh(laplacian)[1:5]
        found = positions.encoding
        torch.testing.assert_close(laplacian @ found, found * values, rtol=0, atol=1e-4)
        gram = found.t() @ found / GRID.num_nodes
        torch.testing.assert_close(gram, torch.eye(4), rtol=0, atol=1e-4)
    x = torch.zeros(1, GRID.num_nodes, 5)
    torch.testing.assert_close(positions(x, GRID)[0], positions.encoding @ positions.lin.weight.t())
    assert positions(torch.zeros(2, 12, 5), Grid(3, 2, 2)).shape == (2, 12, 5)


def test_signs_of_eigenvectors_are_drawn_in_training() -> None:
    positions = GraphEncoding(5, GRID, as_relations(RELATIONS)).train()
    nn.init.constant_(positions.lin.weight, 1.0)
    x = torch.zeros(1, GRID.num_nodes, 5)
    assert len({positions(x, GRID)[0, 0, 0].item() for _ in range(20)}) > 1
    assert len({positions.eval()(x, GRID)[0, 0, 0].item() for _ in range(3)}) == 1


@pytest.mark.parametrize("kind", ["laplacian", "random_walk"])
def test_encodings_of_the_graph_in_a_head(kind: str) -> None:
    head = TAGHead(8, 3, GRID, positions=kind, relations=RELATIONS)
    feature_map = torch.randn(2, 8, 2, 3, 4)
    head(feature_map).sum().backward()
    assert head.positions.lin.weight.grad.abs().sum() > 0
    assert head.config()["positions"] == kind
    again = TAGHead(**json.loads(json.dumps(head.config()))).eval()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(feature_map), head.eval()(feature_map))


def test_encodings_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"laplacian: size must be at most 22.*\(got 23\)"):
        GraphEncoding(5, GRID, as_relations(RELATIONS), size=23)
    with pytest.raises(ValueError, match="edges of motion_1p follow features"):
        TAGHead(8, 3, GRID, positions="laplacian", relations=("motion_1p",))
