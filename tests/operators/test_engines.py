"""Which engine runs, what it refuses, dropout, and sizes drawn at random."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, EDGE, OUT, WIDTH, assert_equal, edge_features, run, with_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch_geometric.nn import (
    APPNP,
    MLP,
    ChebConv,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GENConv,
    GINConv,
    GINEConv,
    GraphConv,
    MessagePassing,
    PNAConv,
    ResGatedGraphConv,
    RGCNConv,
    SAGEConv,
    SuperGATConv,
    TransformerConv,
)

from taghead.graph import (
    INTRA_FRAME,
    PAST,
    RELATIONS,
    TIME_ALIGNED,
    Grid,
    custom,
    future,
    past,
    repeat_edges,
    spatial_window,
    time_aligned,
)
from taghead.nn.head import TAGHead
from taghead.operators import attention_weights, neighbourhood, propagate, supports

GRID = Grid(3, 2, 3)


class MyGCN(GCNConv):
    """A subclass may mean anything."""


def hooked() -> GCNConv:
    conv = GCNConv(WIDTH, OUT)
    conv.register_message_forward_hook(lambda *_: None)
    return conv


def explained() -> GCNConv:
    conv = GCNConv(WIDTH, OUT)
    conv.explain = True
    return conv


def hooked_inside() -> GINConv:
    conv = GINConv(nn.Sequential(nn.Linear(WIDTH, OUT), nn.ReLU()))
    conv.nn[1].register_forward_hook(lambda module, given, out: 2 * out)
    return conv


def parametrized() -> GCNConv:
    conv = GCNConv(WIDTH, OUT)
    nn.utils.parametrize.register_parametrization(conv.lin, "weight", nn.Tanh())
    return conv


def patched() -> SAGEConv:
    conv = SAGEConv(WIDTH, OUT)
    conv.message = lambda x_j: 2 * x_j
    return conv


class Doubled(nn.Module):
    """A layer around another, whose weights it shows."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.weight, self.bias = layer, layer.weight, layer.bias

    def forward(self, x):
        return 2 * self.layer(x)


def wrapped(conv: MessagePassing, *path: str) -> MessagePassing:
    """The operator with its layer at a path wrapped."""
    *above, name = path
    parent = conv.get_submodule(".".join(above))
    setattr(parent, name, Doubled(getattr(parent, name)))
    return conv


DEGREES = torch.tensor([0, 1, 2, 3])
PNA = (WIDTH, OUT, ["mean"], ["identity"], DEGREES)
UNSUPPORTED = {
    "class": (lambda: MyGCN(WIDTH, OUT), "class"),
    "hooks": (hooked, "hooks"),
    "hooks inside": (hooked_inside, "hooks"),
    "parametrized": (parametrized, "parametrizations"),
    "patched": (patched, "patched methods"),
    "wrapped layer": (lambda: wrapped(PNAConv(*PNA), "pre_nns", "0", "0"), "Linear"),
    "wrapped projection": (
        lambda: wrapped(ResGatedGraphConv(WIDTH, OUT), "lin_key"),
        "lin_key, lin_query and lin_value are Linear",
    ),
    "wrapped in a network": (
        lambda: wrapped(EdgeConv(nn.Sequential(nn.Linear(2 * WIDTH, OUT))), "nn", "0"),
        "Linear",
    ),
    "explain": (explained, "explained"),
    "decomposed": (lambda: GCNConv(WIDTH, OUT, decomposed_layers=2), "decomposed_layers"),
    "aggr": (lambda: GCNConv(WIDTH, OUT, aggr="max"), "aggr"),
    "median": (lambda: SAGEConv(WIDTH, OUT, aggr="median"), "aggr"),
    "cached": (lambda: GCNConv(WIDTH, OUT, cached=True), "cached"),
    "dropout": (lambda: APPNP(2, 0.1, dropout=0.5).train(), "dropout"),
    "training": (lambda: SuperGATConv(WIDTH, OUT).train(), "evaluation"),
    "pre_layers": (
        lambda: PNAConv(*PNA, pre_layers=2),
        "pre_layers",
    ),
    "network": (lambda: EdgeConv(nn.Sequential(nn.ReLU(), nn.Linear(2 * WIDTH, OUT))), "Linear"),
    "batch norm": (lambda: EdgeConv(MLP([2 * WIDTH, 5, OUT])).train(), "batch norm"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_operators_fall_back_or_are_refused(name):
    build, reason = UNSUPPORTED[name]
    conv = build()
    supported, why = supports(conv)
    assert not supported
    assert reason in why
    x = torch.randn(2, GRID.num_nodes, WIDTH)
    with pytest.raises(ValueError, match=f"(?s){type(conv).__name__}.*{reason}"):
        propagate(conv, x, GRID, RELATIONS, engine="dense")
    if name != "explain":
        assert propagate(conv, x, GRID, RELATIONS).shape == (
            2,
            GRID.num_nodes,
            OUT if "drop" not in name else WIDTH,
        )


@pytest.mark.parametrize("build", [hooked_inside, parametrized, patched])
def test_what_stands_inside_an_operator_takes_effect(build):
    conv, x = build().double(), torch.randn(2, GRID.num_nodes, WIDTH, dtype=torch.double)
    assert_equal(
        with_gradients(run, conv, x, GRID, RELATIONS, "auto"),
        with_gradients(run, conv, x, GRID, RELATIONS, "pyg"),
        1e-10,
    )


def test_an_explained_or_hooked_operator_runs_densely_again_afterwards():
    conv = GCNConv(WIDTH, OUT)
    conv.explain = True
    assert not supports(conv)[0]
    conv.explain = None
    handle = conv.register_propagate_forward_hook(lambda *_: None)
    assert not supports(conv)[0]
    handle.remove()
    assert supports(conv) == (True, "")


def test_a_relation_without_a_dense_form_falls_back():
    ring = custom("ring", lambda grid: torch.arange(grid.num_nodes).repeat(2, 1))
    x = torch.randn(2, GRID.num_nodes, WIDTH)
    conv = GraphConv(WIDTH, OUT)
    with pytest.raises(ValueError, match="relations ring"):
        propagate(conv, x, GRID, [ring], engine="dense")
    out = propagate(conv, x, GRID, [ring])
    torch.testing.assert_close(out, conv.lin_rel(x) + conv.lin_root(x))


@pytest.mark.parametrize(
    ("conv", "edge_attr", "message"),
    [
        (GINEConv(nn.Linear(WIDTH, OUT)), None, "edge_attr must be given"),
        (TransformerConv(WIDTH, OUT), torch.ones(2, EDGE), "takes no edge features"),
        (GATv2Conv(WIDTH, OUT), torch.ones(2, EDGE), "takes no edge features"),
        (GCNConv(WIDTH, OUT), torch.ones(3, EDGE), "one row for each of 2 relations"),
        (RGCNConv(WIDTH, OUT, 1), None, "num_relations must be at least"),
    ],
)
def test_errors_say_what_is_wrong(conv, edge_attr, message):
    x = torch.randn(1, GRID.num_nodes, WIDTH)
    with pytest.raises(ValueError, match=message):
        propagate(conv, x, GRID, RELATIONS, edge_attr=edge_attr, engine="dense")


def test_unknown_engine():
    x = torch.randn(1, GRID.num_nodes, WIDTH)
    with pytest.raises(ValueError, match="engine must be one of"):
        propagate(GCNConv(WIDTH, OUT), x, GRID, RELATIONS, engine="fast")
    with pytest.raises(ValueError, match="engine must be one of"):
        TAGHead(WIDTH, 3, GRID, encoder_layers=0, engine="fast")


@pytest.mark.parametrize("case", {case.cls: case for case in CASES}.values(), ids=str)
def test_training_without_dropout_is_exact(case):
    conv = case.build().double().train()
    if not supports(conv)[0]:
        pytest.skip(f"{case} runs through PyG in training")
    x = torch.randn(2, GRID.num_nodes, WIDTH, dtype=torch.double)
    rest = GRID, RELATIONS
    edge_attr = edge_features(case, 2, torch.float64)
    dense = with_gradients(run, conv, x, *rest, "dense", edge_attr)
    assert_equal(dense, with_gradients(run, conv, x, *rest, "pyg", edge_attr), 1e-10)


def test_batch_norm_in_a_network_sees_all_tokens():
    conv = GENConv(WIDTH, OUT, norm="batch").double().train()
    x = torch.randn(2, GRID.num_nodes, WIDTH, dtype=torch.double)
    dense = with_gradients(run, conv, x, GRID, RELATIONS, "dense")
    assert_equal(dense, with_gradients(run, conv, x, GRID, RELATIONS, "pyg"), 1e-10)


@pytest.mark.parametrize("cls", [GATConv, GATv2Conv, TransformerConv])
def test_dropout_has_the_same_distribution(cls):
    conv = cls(WIDTH, OUT, heads=2, dropout=0.4).train()
    grid = Grid(2, 1, 2)
    x = torch.randn(1, grid.num_nodes, WIDTH).expand(20_000, -1, -1)
    with torch.no_grad():
        dense, pyg = (propagate(conv, x, grid, RELATIONS, engine=e) for e in ("dense", "pyg"))
    torch.testing.assert_close(dense.mean(0), pyg.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(dense.std(0), pyg.std(0), rtol=0, atol=0.05)


@pytest.mark.parametrize("conv", [None, SAGEConv, GCNConv, TransformerConv])
def test_state_dicts_move_between_engines(conv):
    options = (
        {} if conv is None else {"conv": TransformerConv if conv == "TransformerConv" else conv}
    )
    heads = [
        TAGHead(8, 3, GRID, encoder_heads=2, engine=engine, **options).eval()
        for engine in ("dense", "pyg", "auto")
    ]
    state = heads[0].state_dict()
    x = torch.randn(2, 8, 3, 2, 3)
    for head in heads:
        assert head.state_dict().keys() == state.keys()
        head.load_state_dict(state)
        torch.testing.assert_close(head(x), heads[0](x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("cls", [GATConv, GATv2Conv])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize(
    "relations",
    [
        RELATIONS,
        (INTRA_FRAME,),
        (PAST, INTRA_FRAME),
        (spatial_window(1), time_aligned(2)),
        (spatial_window(1), INTRA_FRAME, PAST, TIME_ALIGNED),
    ],
)
@pytest.mark.parametrize("pairs_per_slot", [0, 9])
def test_attention_weights_come_in_the_order_of_edges(
    cls, loops, flow, relations, pairs_per_slot, monkeypatch
):
    monkeypatch.setattr(neighbourhood, "PAIRS_PER_SLOT", pairs_per_slot)
    conv = cls(WIDTH, OUT, heads=2, add_self_loops=loops)
    conv.flow = flow
    x = torch.randn(2, GRID.num_nodes, WIDTH)
    edge_index = repeat_edges(GRID.typed_edges(relations)[0], 2, GRID.num_nodes)
    _, (_, expected) = conv(x.flatten(0, 1), edge_index, return_attention_weights=True)
    torch.testing.assert_close(attention_weights(conv, x, GRID, relations), expected)


def test_no_attention_weights():
    x = torch.randn(2, GRID.num_nodes, WIDTH)
    with pytest.raises(ValueError, match="shows no attention weights"):
        attention_weights(GCNConv(WIDTH, OUT), x, GRID, RELATIONS)


NUMBERS = st.integers(1, 4)
RELATION = st.one_of(
    st.just(INTRA_FRAME),
    st.builds(time_aligned, NUMBERS),
    st.builds(past, NUMBERS),
    st.builds(future, NUMBERS),
    st.builds(spatial_window, NUMBERS),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_size(data):
    size = st.integers(1, 4)
    frames_from = data.draw(st.sampled_from([0, 6]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbourhood, "PAIRS_PER_SLOT", frames_from)
        compare_any_size(data, size)


def compare_any_size(data, size):
    grid = Grid(data.draw(size), data.draw(size), data.draw(size))
    batch, width, heads = data.draw(size), data.draw(size), data.draw(size)
    relations = data.draw(st.lists(RELATION, max_size=3).map(tuple))
    out = data.draw(size)
    conv = data.draw(
        st.sampled_from(
            [
                APPNP(heads, 0.2),
                GCNConv(width, out),
                SAGEConv(width, out, aggr="max"),
                GraphConv(width, out),
                GINConv(nn.Linear(width, out)),
                GENConv(width, out),
                GATConv(width, out, heads=heads),
                GATv2Conv(width, out, heads=heads),
                TransformerConv(width, out, heads=heads),
                RGCNConv(width, out, 3),
                ChebConv(width, out, 3),
                EdgeConv(nn.Linear(2 * width, out)),
            ]
        )
    )
    conv = conv.double().eval()
    conv.flow = data.draw(st.sampled_from(["source_to_target", "target_to_source"]))
    x = torch.randn(batch, grid.num_nodes, width, dtype=torch.double)
    dense = with_gradients(run, conv, x, grid, relations, "dense")
    assert_equal(dense, with_gradients(run, conv, x, grid, relations, "pyg"), 1e-10)
