"""Both engines and plain PyG give the same outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from cases import (
    CASES,
    FIRST_SETS,
    RELATION_SETS,
    WIDTH,
    Case,
    assert_equal,
    edge_features,
    run,
    run_directly,
    with_gradients,
)

from taghead.graph import RELATIONS, Grid
from taghead.operators import Operator, neighbourhood, pairwise, supports
from taghead.operators.kernels import KERNELS

GRID = Grid(3, 2, 3)
EDGE_CASES = [Grid(1, 2, 2), Grid(3, 1, 1), Grid(1, 1, 1), Grid(2, 1, 3)]


def compare(
    case: Case, grid: Grid, name: str, dtype: torch.dtype, tolerance: float, engine: bool = False
) -> None:
    """The dense engine and PyG itself; with `engine`, also PyG with our edges."""
    relations = RELATION_SETS[name]
    torch.manual_seed(1)
    conv = case.build().to(dtype)
    assert supports(conv) == (True, "")
    x = torch.randn(2, grid.num_nodes, WIDTH, dtype=dtype)
    rest = grid, relations
    edge_attr = edge_features(case, len(relations), dtype)
    dense = with_gradients(run, conv, x, *rest, "dense", edge_attr)
    assert_equal(dense, with_gradients(run_directly, conv, x, *rest, None, edge_attr), tolerance)
    if engine:
        assert_equal(dense, with_gradients(run, conv, x, *rest, "pyg", edge_attr), tolerance)


@pytest.mark.parametrize("name", RELATION_SETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_pyg(case, name, compared):
    compare(case, GRID, name, torch.float64, 1e-10, engine=True)
    if name in FIRST_SETS:
        compare(case, GRID, name, torch.float32, 1e-5)
    compared.add((case.cls.__name__, case.options, name))


@pytest.mark.parametrize("name", ["directed", "window and time"])
def test_equal_to_pyg_in_single_precision(name):
    for case in {case.cls: case for case in CASES}.values():
        compare(case, GRID, name, torch.float32, 1e-5)


@pytest.mark.parametrize("name", ["window", "window and directed", "twice"])
def test_windows_slot_by_slot(name, monkeypatch):
    """Attentive operators in frames that are large beside the window."""
    monkeypatch.setattr(neighbourhood, "PAIRS_PER_SLOT", 0)
    for case in CASES:
        if KERNELS[case.cls].attention is not None:
            compare(case, GRID, name, torch.float64, 1e-10)


@pytest.mark.parametrize("grid", EDGE_CASES, ids=str)
@pytest.mark.parametrize("name", RELATION_SETS)
def test_equal_to_pyg_without_neighbours(name, grid):
    for case in CASES if name in FIRST_SETS else CASES[::3]:
        compare(case, grid, name, torch.float64, 1e-10)


def test_every_registered_operator_is_compared():
    assert {case.cls for case in CASES} == set(KERNELS)


@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("operator", ["EdgeConv", "FiLMConv", "ResGatedGraphConv"])
def test_pairs_in_chunks(operator, aggr, monkeypatch):
    monkeypatch.setattr(pairwise, "CHUNK", 1)
    for case in CASES:
        if case.cls.__name__ == operator and case.build().aggr == aggr:
            compare(case, GRID, "union", torch.float64, 1e-10)


@pytest.mark.parametrize(
    "name", ["GCNConv", "GATv2Conv", "SAGEConv", "TransformerConv", "FiLMConv"]
)
def test_per_relation(name, compared):
    """One operator per relation in a head, as HeteroConv would run them."""
    from torch_geometric import nn as pyg

    from taghead.nn.head import TAGHead

    options = {} if name not in ("GATv2Conv", "TransformerConv") else {"heads": 2, "concat": False}
    conv = Operator(getattr(pyg, name), **options)
    heads = [
        TAGHead(WIDTH, 3, GRID, encoder_layers=0, conv=conv, relations=RELATIONS, engine=engine)
        for engine in ("dense", "pyg")
    ]
    heads[1].load_state_dict(heads[0].state_dict())
    x = torch.randn(2, WIDTH, 3, 2, 3, dtype=torch.double)
    outputs = [with_gradients(lambda head, x: head(x), head.double().eval(), x) for head in heads]
    assert_equal(*outputs, 1e-10)
    for relation in RELATIONS:
        compared.add((name, str(options), f"per_relation {relation.name}"))
