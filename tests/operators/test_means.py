"""Frame means of an operator's output from frame means of its input."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as pyg
from cases import CASES, RELATION_SETS, WIDTH, assert_equal, run, with_gradients
from torch import Tensor, nn

from taghead import TAGHead
from taghead.graph import RELATIONS, Grid, custom
from taghead.operators import Operator, commutes_with_means, propagate, propagate_means
from taghead.operators.kernels import KERNELS

GRID = Grid(3, 2, 3)
WITHOUT_WINDOWS = [name for name in RELATION_SETS if "window" not in name and name != "twice"]


def frame_means(x: Tensor, grid: Grid) -> Tensor:
    return x.unflatten(1, (grid.frames, grid.num_positions)).mean(2)


@pytest.mark.parametrize("name", WITHOUT_WINDOWS)
def test_equal_to_the_means_of_all_tokens(name):
    relations, compared = RELATION_SETS[name], set()
    for case in CASES:
        torch.manual_seed(1)
        conv = case.build().double()
        if not commutes_with_means(conv, GRID, relations):
            continue
        x = torch.randn(2, GRID.num_nodes, WIDTH, dtype=torch.double)
        of_all = with_gradients(
            lambda conv, x: frame_means(run(conv, x, GRID, relations, "pyg", None), GRID), conv, x
        )
        of_means = with_gradients(
            lambda conv, x: propagate_means(
                conv, frame_means(x, GRID), GRID, relations, 0.5 * frame_means(x, GRID).detach()
            ),
            conv,
            x,
        )
        assert_equal(of_means, of_all, 1e-10)
        compared.add(case.cls)
    assert compared == {cls for cls, kernel in KERNELS.items() if kernel.affine}


@pytest.mark.parametrize(
    "conv",
    [
        pyg.SAGEConv(4, 4, normalize=True),
        pyg.SAGEConv(4, 4, project=True),
        pyg.SAGEConv(4, 4, aggr="max"),
        pyg.GraphConv(4, 4, aggr="std"),
        pyg.GINConv(nn.Linear(4, 4)),
        pyg.GATv2Conv(4, 4),
        pyg.APPNP(K=2, alpha=0.1, dropout=0.5),
    ],
    ids=str,
)
def test_what_does_not_commute(conv):
    assert not commutes_with_means(conv, GRID, RELATIONS)
    with pytest.raises(ValueError, match="does not commute with the mean over a frame"):
        propagate_means(conv, torch.randn(1, 3, 4), GRID, RELATIONS)


def test_windows_and_other_edges_do_not_commute():
    ring = custom("ring", lambda grid: torch.stack([torch.arange(grid.num_nodes)] * 2))
    for relations in (RELATION_SETS["window"], RELATION_SETS["twice"], [ring]):
        assert not commutes_with_means(pyg.GCNConv(4, 4), GRID, relations)


def test_a_replaced_layer_does_not_commute():
    conv = pyg.GCNConv(4, 4)
    assert commutes_with_means(conv, GRID, RELATIONS)
    handle = conv.lin.register_forward_hook(lambda *_: None)
    assert not commutes_with_means(conv, GRID, RELATIONS)
    handle.remove()
    conv.lin = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert not commutes_with_means(conv, GRID, RELATIONS)


def bare_head(**options) -> TAGHead:
    defaults = {
        "conv": Operator(pyg.GCNConv),
        "graph_layers": 2,
        "graph_norm": None,
        "graph_activation": None,
        "graph_dropout": 0.0,
    }
    torch.manual_seed(0)
    return TAGHead(4, 3, GRID, encoder_layers=0, **(defaults | options)).double()


@pytest.mark.parametrize("mode", ["union", "per_relation"])
@pytest.mark.parametrize(
    "conv", [Operator(pyg.GCNConv), Operator(pyg.GCN2Conv, alpha=0.3), Operator(pyg.SGConv, K=2)]
)
@pytest.mark.parametrize("readout", ["mean", "frame_mean_max"])
def test_the_head_gives_the_same_numbers(mode, conv, readout):
    heads = [
        bare_head(conv=conv, mode=mode, engine=engine, readout=readout)
        for engine in ("auto", "pyg")
    ]
    x = torch.randn(2, 4, 3, 2, 3, dtype=torch.double)
    outputs = [with_gradients(lambda head, x: head(x), head, x) for head in heads]
    assert_equal(*outputs, 1e-10)
    tokens = torch.randn(2, GRID.num_nodes, 4, dtype=torch.double)
    assert heads[0].refine(tokens, GRID, all_tokens=False).shape == (2, 3, 4)
    assert heads[0].refine(tokens, GRID).shape == tokens.shape


@pytest.mark.parametrize(
    "options",
    [
        {"graph_norm": "pre"},
        {"graph_norm": "post"},
        {"graph_activation": "relu"},
        {"graph_dropout": 0.5},
        {"readout": "attention"},
        {"engine": "pyg"},
        {"mode": "per_relation", "relation_aggr": "max"},
    ],
    ids=str,
)
def test_the_head_keeps_all_tokens_where_they_matter(options):
    tokens = torch.randn(2, GRID.num_nodes, 4, dtype=torch.double)
    assert bare_head(**options).refine(tokens, GRID, all_tokens=False).shape == tokens.shape


def test_a_hook_sees_all_tokens():
    head, seen = bare_head(), []
    head.layers[0].register_forward_hook(lambda *arguments: seen.append(arguments[-1].shape))
    head(torch.randn(2, 4, 3, 2, 3, dtype=torch.double))
    assert seen == [(2, GRID.num_nodes, 4)]


def test_dropout_is_off_in_evaluation():
    tokens = torch.randn(2, GRID.num_nodes, 4, dtype=torch.double)
    head = bare_head(graph_dropout=0.5).eval()
    pooled = head.refine(tokens, GRID, all_tokens=False).mean(1)
    assert pooled.sub(head.refine(tokens, GRID).mean(1)).abs().max() < 1e-12


def test_only_the_last_layers_run_on_means():
    head = bare_head(graph_layers=3)
    head.layers[1].activation = nn.ReLU()
    tokens = torch.randn(2, GRID.num_nodes, 4, dtype=torch.double)
    expected = tokens
    for layer in head.layers:
        expected = layer(
            expected, tokens, lambda conv, x, relations, _: propagate(conv, x, GRID, relations)
        )
    found = head.refine(tokens, GRID, all_tokens=False)
    assert found.shape == (2, 3, 4)
    assert found.mean(1).sub(expected.mean(1)).abs().max() < 1e-12
