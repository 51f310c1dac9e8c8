from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch_geometric.nn import MessagePassing

from taghead.graph import INTRA_FRAME, RELATIONS, TIME_ALIGNED, Grid, from_tokens, to_data
from taghead.graph.edge_index import batched_edges
from taghead.operators import as_operator, propagate

GRID = Grid(3, 2, 2)


@pytest.mark.parametrize(
    "conv",
    [
        pyg.GCNConv,
        pyg.SAGEConv,
        partial(pyg.GATv2Conv, heads=2),
        partial(pyg.APPNP, K=3, alpha=0.2),
        partial(pyg.RGCNConv, num_relations=2),
        partial(pyg.GCN2Conv, alpha=0.3),
        pyg.PointTransformerConv,
        pyg.MFConv,
        partial(pyg.EGConv, num_heads=2),
    ],
)
@pytest.mark.parametrize("relations", [RELATIONS, [INTRA_FRAME], [TIME_ALIGNED]])
def test_equals_the_operator_on_the_batch_of_graphs(conv: Any, relations: Any) -> None:
    operator = as_operator(conv)(4, 4).double()
    x = torch.randn(2, GRID.num_nodes, 4, dtype=torch.float64)
    data = to_data(from_tokens(x, GRID), relations)
    arguments: dict[str, Tensor] = {}
    if isinstance(operator, pyg.RGCNConv):
        arguments["edge_type"] = data.edge_type
    if isinstance(operator, pyg.GCN2Conv):
        arguments["x_0"] = data.x
    if isinstance(operator, pyg.PointTransformerConv):
        arguments["pos"] = data.pos
    expected = operator(x=data.x, edge_index=data.edge_index, **arguments)
    out = propagate(operator, x, GRID, relations)
    torch.testing.assert_close(out.flatten(0, 1), expected, rtol=0, atol=1e-12)


def test_clips_do_not_see_each_other() -> None:
    conv = as_operator(partial(pyg.GATv2Conv, heads=2))(4, 4)
    x = torch.randn(3, GRID.num_nodes, 4)
    together = propagate(conv, x, GRID, RELATIONS)
    for clip, out in zip(x, together, strict=True):
        torch.testing.assert_close(propagate(conv, clip[None], GRID, RELATIONS)[0], out)


def test_edges_are_built_once_and_sorted_by_target() -> None:
    arguments = (GRID, RELATIONS, 2, torch.device("cpu"))
    edges = batched_edges(*arguments)
    assert batched_edges(*arguments) is edges
    order = edges.edge_index[1] * 2 * GRID.num_nodes + edges.edge_index[0]
    assert (order.diff() > 0).all()


def test_a_missing_argument_is_named() -> None:
    class NeedsNormals(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor, normal: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match="NeedsNormals needs normal, which a grid"):
        propagate(NeedsNormals(), torch.randn(1, GRID.num_nodes, 4), GRID, RELATIONS)
