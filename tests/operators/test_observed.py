"""The dense engine stands back where something observes or changes an operator or its modules."""

from __future__ import annotations

import functools

import pytest
import torch
from cases import OUT, WIDTH, assert_equal, run, with_gradients
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.nn import (
    MLP,
    EdgeConv,
    GATv2Conv,
    GCNConv,
    GENConv,
    GINConv,
    MeanAggregation,
    MessagePassing,
    PNAConv,
    RGCNConv,
    SAGEConv,
)

from taghead.graph import RELATIONS, Grid
from taghead.operators import propagate, supports
from taghead.operators.kernel import _ORIGINALS

GRID = Grid(3, 2, 2)


def gin() -> MessagePassing:
    return GINConv(MLP([WIDTH, 5, OUT], norm=None))


def edge() -> MessagePassing:
    return EdgeConv(nn.Sequential(nn.Linear(2 * WIDTH, 5), nn.ReLU(), nn.Linear(5, OUT)))


def pna() -> MessagePassing:
    return PNAConv(WIDTH, OUT, ["mean", "max"], ["identity"], torch.tensor([0, 1, 2, 3]))


BUILDERS = {
    "GCNConv": functools.partial(GCNConv, WIDTH, OUT),
    "GATv2Conv": functools.partial(GATv2Conv, WIDTH, OUT),
    "RGCNConv": functools.partial(RGCNConv, WIDTH, OUT, 2),
    "SAGEConv": functools.partial(SAGEConv, WIDTH, OUT),
    "GENConv": functools.partial(GENConv, WIDTH, OUT),
    "GINConv": gin,
    "EdgeConv": edge,
    "PNAConv": pna,
}
INSIDE = [  # every module inside each operator
    (name, path)
    for name, build in BUILDERS.items()
    for path, module in build().named_modules()
    if not isinstance(module, (nn.ModuleList, nn.Dropout))
]


def tokens() -> torch.Tensor:
    return torch.randn(2, GRID.num_nodes, WIDTH, dtype=torch.double)


def check_runs_through_pyg(conv: MessagePassing) -> None:
    """`auto` gives what PyG gives, forward and backward, and `dense` is refused."""
    conv, x = conv.double().eval(), tokens()
    assert not supports(conv)[0]
    with pytest.raises(ValueError, match="engine dense"):
        propagate(conv, x, GRID, RELATIONS, engine="dense")
    auto, listed = (with_gradients(run, conv, x, GRID, RELATIONS, e) for e in ("auto", "pyg"))
    assert_equal(auto, listed, 1e-10)


def double(module: nn.Module, *args: torch.Tensor) -> torch.Tensor:
    return 2 * args[-1]


HOOKS = {
    "forward": lambda m: m.register_forward_hook(double),
    "forward with kwargs": lambda m: m.register_forward_hook(
        lambda module, args, kwargs, out: 2 * out, with_kwargs=True
    ),
    "forward pre": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "backward": lambda m: m.register_full_backward_hook(lambda *_: None),
    "backward pre": lambda m: m.register_full_backward_pre_hook(lambda *_: None),
}


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize(("name", "path"), INSIDE)
def test_hooks(name, path, kind):
    conv = BUILDERS[name]()
    handle = HOOKS[kind](conv.get_submodule(path))
    assert "hooks" in supports(conv)[1]
    if kind == "forward":
        check_runs_through_pyg(conv)
    handle.remove()
    assert supports(conv)[0]


@pytest.mark.parametrize("when", ["", "pre_"])
@pytest.mark.parametrize("step", ["propagate", "message", "aggregate"])
@pytest.mark.parametrize("name", ["GCNConv", "SAGEConv", "RGCNConv"])
def test_message_hooks(name, step, when):
    conv = BUILDERS[name]()
    getattr(conv, f"register_{step}_forward_{when}hook")(lambda *_: None)
    check_runs_through_pyg(conv)


GLOBAL = [
    global_hooks.register_module_forward_hook,
    global_hooks.register_module_forward_pre_hook,
    global_hooks.register_module_full_backward_hook,
    global_hooks.register_module_full_backward_pre_hook,
]


@pytest.mark.parametrize("register", GLOBAL, ids=lambda function: function.__name__)
def test_global_hooks(register):
    conv = GCNConv(WIDTH, OUT)
    handle = register(lambda *_: None)
    try:
        check_runs_through_pyg(conv)
    finally:
        handle.remove()
    assert supports(conv)[0]


def test_torch_counts_the_operations_of_the_dense_engine():
    with FlopCounterMode(display=False):
        assert supports(GCNConv(WIDTH, OUT)) == (True, "")


@pytest.mark.parametrize("method", ["forward", "message", "aggregate", "update", "propagate"])
@pytest.mark.parametrize("where", ["class", "instance"])
@pytest.mark.parametrize("cls", [GCNConv, SAGEConv])
def test_patched_methods(cls, where, method, monkeypatch):
    conv = cls(WIDTH, OUT)
    assert supports(conv)[0]
    original = getattr(conv, method)
    if where == "instance":
        monkeypatch.setattr(conv, method, lambda *args, **kwargs: original(*args, **kwargs) * 2)
    else:
        function = original.__func__
        monkeypatch.setattr(cls, method, lambda *args, **kwargs: function(*args, **kwargs) * 2)
    assert "patched methods" in supports(conv)[1]
    check_runs_through_pyg(conv)
    monkeypatch.undo()
    assert supports(conv.float())[0]


@pytest.mark.parametrize("where", ["class", "instance"])
@pytest.mark.parametrize("method", ["forward", "reduce"])
def test_a_patched_aggregation(method, where, monkeypatch):
    conv = SAGEConv(WIDTH, OUT)
    original = getattr(MeanAggregation, method)
    if where == "class":
        monkeypatch.setattr(MeanAggregation, method, lambda *a, **k: 2 * original(*a, **k))
    else:
        bound = getattr(conv.aggr_module, method)
        monkeypatch.setattr(conv.aggr_module, method, lambda *a, **k: 2 * bound(*a, **k))
    check_runs_through_pyg(conv)


@pytest.mark.parametrize("name", ["GINConv", "EdgeConv", "PNAConv"])
def test_a_patched_layer_inside_a_network(name, monkeypatch):
    layers = [m for m in BUILDERS[name]().modules() if hasattr(m, "weight")]
    cls = type(layers[0])
    original = cls.forward
    monkeypatch.setattr(cls, "forward", lambda *args: 2 * original(*args))
    check_runs_through_pyg(BUILDERS[name]())


def test_a_patch_before_a_class_is_first_seen_can_be_taken_back(monkeypatch):
    monkeypatch.delitem(_ORIGINALS, nn.Tanh, raising=False)
    conv, original = GINConv(nn.Sequential(nn.Linear(WIDTH, OUT), nn.Tanh())), nn.Tanh.forward
    monkeypatch.setattr(nn.Tanh, "forward", lambda *args: 2 * original(*args))
    check_runs_through_pyg(conv)
    monkeypatch.setattr(nn.Tanh, "forward", original)
    assert supports(conv)[0]


LINEAR = [
    (name, path)
    for name, path in INSIDE
    if path and getattr(BUILDERS[name]().get_submodule(path), "weight", torch.empty(0)).dim() == 2
]


@pytest.mark.parametrize(("name", "path"), LINEAR)
def test_parametrizations(name, path):
    conv = BUILDERS[name]()
    nn.utils.parametrize.register_parametrization(conv.get_submodule(path), "weight", nn.Tanh())
    check_runs_through_pyg(conv)


class LowRank(nn.Module):
    """A layer with a low-rank update, as LoRA has it; it takes rows alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias
        rows, columns = layer.weight.shape
        self.down, self.up = nn.Linear(columns, 1, bias=False), nn.Linear(1, rows, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dim() == 2
        return self.layer(x) + self.up(self.down(x))


class LowRankLinear(nn.Linear):
    """The same as a subclass of the layer."""

    def __init__(self, layer: nn.Module) -> None:
        rows, columns = layer.weight.shape
        super().__init__(columns, rows, bias=layer.bias is not None)
        self.down, self.up = nn.Linear(columns, 1, bias=False), nn.Linear(1, rows, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.up(self.down(x))


@pytest.mark.parametrize("wrapper", [LowRank, LowRankLinear])
@pytest.mark.parametrize(("name", "path"), LINEAR)
def test_low_rank_updates(name, path, wrapper):
    conv = BUILDERS[name]()
    above, _, last = path.rpartition(".")
    parent = conv.get_submodule(above)
    setattr(parent, last, wrapper(getattr(parent, last)))
    check_runs_through_pyg(conv)
