"""The dense engine under compilers and function transforms."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases import CASES, RELATION_SETS, WIDTH, Case, edge_features, run
from torch import nn
from torch_geometric.nn import (
    APPNP,
    GatedGraphConv,
    GATv2Conv,
    GCNConv,
    GENConv,
    RGATConv,
    SAGEConv,
    TransformerConv,
)

from taghead.graph import RELATIONS, Grid
from taghead.nn.head import TAGHead
from taghead.operators import Operator, neighbourhood, propagate

GRID = Grid(3, 2, 2)
ONE_OF_EACH = list({case.cls: case for case in CASES}.values())
SOME = [
    case
    for case in ONE_OF_EACH
    if case.cls in (APPNP, GCNConv, GATv2Conv, TransformerConv, GENConv, RGATConv)
]
DIFFERENTIABLE = [  # linear and attentive operators
    case
    for case in ONE_OF_EACH
    if case.cls.__name__ not in ("EdgeConv", "FiLMConv", "SAGEConv", "PNAConv", "GENConv")
]


class OnGrid(nn.Module):
    """An operator as a module of one argument."""

    def __init__(self, case: Case, relations: str = "union", grid: Grid = GRID) -> None:
        super().__init__()
        self.conv = case.build()
        self.grid = grid
        self.relations = RELATION_SETS[relations]
        self.edge_attr = edge_features(case, len(self.relations), torch.float32)

    def forward(self, x):
        rest = self.grid, self.relations, 0.5 * x
        return propagate(self.conv, x, *rest, edge_attr=self.edge_attr, engine="dense")


def tokens(batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch, GRID.num_nodes, WIDTH, dtype=dtype)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_compiles_without_a_break(case):
    model, x = OnGrid(case), tokens()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_exports(case):
    model, x = OnGrid(case), tokens()
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model(x), OnGrid.forward(model, x))


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_vmap(case):
    if case.cls is GatedGraphConv:
        pytest.skip("torch's GRUCell has no rule for vmap")
    model = OnGrid(case)
    x = torch.stack([tokens(), tokens(), tokens()])
    with torch.no_grad():
        expected = torch.stack([model(one) for one in x])
        torch.testing.assert_close(torch.vmap(model)(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", SOME, ids=str)
@pytest.mark.parametrize("pairs_per_slot", [0, 6])
def test_windows_and_directions(case, pairs_per_slot, monkeypatch):
    """Windows that are smaller than a frame, and edges from targets to sources."""
    monkeypatch.setattr(neighbourhood, "PAIRS_PER_SLOT", pairs_per_slot)
    grid, x = Grid(2, 1, 4), torch.randn(2, 8, WIDTH)
    model = OnGrid(case, "window and directed", grid)
    model.conv.flow = "target_to_source"
    expected = model(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        torch.testing.assert_close(program.module()(x), expected, rtol=1e-4, atol=1e-5)
        several = torch.vmap(model)(torch.stack([x, x.flip(1)]))
        torch.testing.assert_close(several[1], model(x.flip(1)), rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(x).float(), expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)
def test_autocast(case):
    model, x = OnGrid(case), tokens()
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
        out.float().sum().backward() if out.requires_grad else None
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)


def cdist_differentiates_twice() -> bool:
    """Whether this torch has the second derivative of the L1 distance, as 2.15 does."""
    x = torch.randn(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(torch.cdist(x, x.detach(), p=1.0).sum(), x, create_graph=True)
    try:
        grad.square().sum().backward()
    except NotImplementedError:
        return False
    return True


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_double_backward(case):
    if case.cls is GATv2Conv and not cdist_differentiates_twice():
        pytest.skip("this torch has no second derivative of cdist, which GATv2's scores use")
    conv = case.build().double()
    relations = RELATION_SETS["union"]
    if case in SOME:
        relations = RELATION_SETS["window and directed"]
    edge_attr = edge_features(case, len(relations), torch.float64)
    grid = Grid(2, 1, 3 if case in SOME else 2)

    def function(x):
        return run(conv, x, grid, relations, "dense", edge_attr)

    x = torch.randn(1, grid.num_nodes, WIDTH, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(function, (x,))


def test_constants_of_inference_mode_serve_training():
    grid = Grid(5, 1, 3)  # a grid that no other test has used
    for conv in (APPNP(2, 0.1), GATv2Conv(WIDTH, 4), SAGEConv(WIDTH, 4)):
        for engine in ("dense", "pyg"):
            x = torch.randn(1, grid.num_nodes, WIDTH)
            with torch.inference_mode():
                propagate(conv, x, grid, RELATIONS, engine=engine)
            x.requires_grad_()
            propagate(conv, x, grid, RELATIONS, engine=engine).sum().backward()
            assert x.grad is not None


def test_constants_of_a_trace_serve_eager_runs():
    grid = Grid(2, 1, 5)
    x = torch.randn(1, grid.num_nodes, WIDTH)

    class Model(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return propagate(self.conv, x, grid, RELATIONS, engine="dense")

    for conv in (APPNP(2, 0.1), GATv2Conv(WIDTH, 4).requires_grad_(False)):
        model = Model(conv)
        torch.export.export(model, (x,))
        assert type(model(x)) is torch.Tensor


def head(conv: Operator, **options) -> TAGHead:
    return TAGHead(
        8, 3, GRID, encoder_heads=2, encoder_channels=8, conv=conv, engine="dense", **options
    ).eval()


CONVS = [
    Operator(GATv2Conv, heads=2, concat=False, add_self_loops=False),
    Operator(APPNP, K=2, alpha=0.1),
    Operator(GCNConv),
    Operator(TransformerConv, heads=2),
    Operator(SAGEConv, aggr="max"),
]


@pytest.mark.parametrize("mode", ["union", "per_relation"])
@pytest.mark.parametrize("conv", CONVS, ids=repr)
def test_head_compiles_without_a_break(conv, mode):
    model = head(conv, mode=mode)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for batch in (2, 3, 4):  # the third finds the batch size symbolic
        x = torch.randn(batch, 8, 3, 2, 2)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conv", CONVS[:3], ids=repr)
def test_head_compiles_for_any_grid(conv):
    model = head(conv)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for size in ((3, 2, 2), (4, 2, 2), (2, 3, 2), (1, 1, 1)):
        x = torch.randn(2, 8, *size)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_head_with_windows_compiles_for_any_grid():
    model = head(CONVS[0], relations=["window_1p", "past_2f"])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for size in ((3, 3, 3), (4, 3, 4), (1, 1, 2)):
        x = torch.randn(2, 8, *size)
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_head_compiles_with_inductor():
    model = head(CONVS[0])
    x = torch.randn(2, 8, 3, 2, 2)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("conv", CONVS, ids=repr)
def test_head_exports_with_any_batch_size(conv):
    model = head(conv)
    batch = torch.export.Dim("batch", min=1, max=64)
    x = torch.randn(2, 8, 3, 2, 2)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 8, 3, 2, 2)
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)
