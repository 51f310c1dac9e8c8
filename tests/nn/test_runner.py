"""Runners: the same operator on a grid and on its edge list."""

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, WIDTH

from taghead.graph import RELATIONS, TIME_ALIGNED, from_tokens, to_hetero_data
from taghead.graph.edge_features import OffsetFeatures
from taghead.nn.frame_means import frame_means
from taghead.nn.runner import EdgeListRunner, GridRunner, check_edge_options
from taghead.operators import offsets


@pytest.mark.parametrize("engine", ["auto", "dense", "pyg"])
@pytest.mark.parametrize("features", [None, OffsetFeatures()])
def test_a_grid_and_its_edge_list_give_the_same(engine: Any, features: Any) -> None:
    edge_dim = None if features is None else 4
    conv = pyg.GATv2Conv(WIDTH, WIDTH, add_self_loops=False, edge_dim=edge_dim).double()
    x = torch.randn(2, GRID.num_nodes, WIDTH, dtype=torch.float64)
    data = to_hetero_data(from_tokens(x, GRID), RELATIONS)
    batch, pos = data["token"].batch, data["token"].pos
    on_grid = GridRunner(GRID, engine)
    on_list = EdgeListRunner(data.edge_index_dict, batch, pos)
    flat = x.flatten(0, 1)
    for relations in (RELATIONS, [TIME_ALIGNED]):
        out = on_grid(conv, x, relations, x, features).flatten(0, 1)
        torch.testing.assert_close(on_list(conv, flat, relations, flat, features), out)


def test_an_edge_list_brings_what_operators_ask_for() -> None:
    class Asks(pyg.MessagePassing):
        def forward(
            self, x: Any, edge_index: Any, edge_type: Any, edge_attr: Any, x_0: Any, batch: Any
        ) -> torch.Tensor:
            assert torch.equal(edge_attr, offsets(pos, edge_index))
            assert torch.equal(batch, data["token"].batch)
            counts = edge_type.bincount().tolist()
            assert counts == [data[relation].edge_index.size(1) for relation in RELATIONS]
            return x_0

    x = torch.randn(2 * GRID.num_nodes, WIDTH)
    data = to_hetero_data(torch.zeros(2, WIDTH, 3, 2, 2), RELATIONS)
    pos = data["token"].pos
    runner = EdgeListRunner(data.edge_index_dict, data["token"].batch, pos)
    assert runner(Asks(), x, RELATIONS, x + 1, OffsetFeatures()).equal(x + 1)


def test_an_edge_list_without_what_is_needed() -> None:
    data = to_hetero_data(torch.zeros(1, WIDTH, 3, 2, 2), RELATIONS[:1])
    batch, x = data["token"].batch, data["token"].x
    runner = EdgeListRunner(data.edge_index_dict, batch)
    conv = pyg.GATv2Conv(WIDTH, WIDTH, edge_dim=4)
    with pytest.raises(ValueError, match=r"relation 'time_aligned' \(got intra_frame\)"):
        runner(conv, x, RELATIONS, x)
    with pytest.raises(ValueError, match="edge_features OffsetFeatures needs pos_dict"):
        runner(conv, x, RELATIONS[:1], x, OffsetFeatures())


def test_frame_means_run_as_frame_means() -> None:
    conv, x = pyg.APPNP(K=2, alpha=0.1), torch.randn(2, GRID.num_nodes, WIDTH)
    runner = GridRunner(GRID)
    means = frame_means(x, GRID)
    out = runner(conv, means, RELATIONS, means)
    torch.testing.assert_close(out, frame_means(runner(conv, x, RELATIONS, x), GRID))


def test_an_observer_sees_every_operator() -> None:
    seen: list[Any] = []
    runner = GridRunner(GRID, observer=lambda *arguments: seen.append(arguments))
    conv, x = pyg.SAGEConv(WIDTH, WIDTH), torch.randn(2, GRID.num_nodes, WIDTH)
    out = runner(conv, x, RELATIONS, x + 1)
    ((a, b, c, d, e),) = seen
    assert (a, c) == (conv, RELATIONS)
    assert b is x
    assert torch.equal(d, x + 1)
    assert e is out


def test_edge_dropout_needs_edges() -> None:
    with pytest.raises(ValueError, match="edge_dropout must be 0 with engine dense"):
        check_edge_options("dense", 0.1)
