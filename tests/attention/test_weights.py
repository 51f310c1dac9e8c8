"""The captured weights are PyG's own, through either engine."""

import importlib
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, OPERATORS, TYPED, make_head, make_map
from torch import Tensor

from taghead import Grid
from taghead.attention import EdgeAttention
from taghead.graph import RELATIONS, custom, past, repeat_edges, spatial_window, time_aligned
from taghead.operators import propagate

GRIDS = [GRID, Grid(1, 2, 2), Grid(3, 1, 1)]
MODES = [
    (name, conv, mode) for name, conv in OPERATORS.items() for mode in ("per_relation", "union")
]
MODES += [(name, conv, "edge_type") for name, conv in TYPED.items()]
RING = custom(
    "ring",  # with two loops among its edges
    lambda grid: torch.stack(
        [torch.arange(grid.num_nodes).roll(1), torch.arange(grid.num_nodes)]
    ).index_fill(1, torch.tensor([0, 1]), 1),
)


@pytest.mark.parametrize("engine", ["auto", "pyg"])
@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv", "FAConv"])
@pytest.mark.parametrize(
    "relations", [RELATIONS, (spatial_window(1), past(2)), (time_aligned(2), RING)], ids=str
)
def test_they_are_what_pyg_returns(relations: Any, name: str, loops: bool, engine: Any) -> None:
    options = {} if name == "TransformerConv" else {"add_self_loops": loops}
    head = make_head(conv=partial(OPERATORS[name], **options), relations=relations, engine=engine)
    tokens: dict[Any, tuple[Tensor, Tensor]] = {}
    for relation, conv in zip(relations, head.layers[0].convs.convs.values(), strict=True):
        x, x_0 = torch.randn(2, *(2, GRID.num_nodes, 8), dtype=torch.float64)
        tokens[relation] = x, x_0
        edges = repeat_edges(GRID.edge_index(relation), 2, GRID.num_nodes)
        given = {"x_0": x_0.flatten(0, 1)} if name == "FAConv" else {}
        _, (edge_index, alpha) = conv(
            x.flatten(0, 1), edge_index=edges, return_attention_weights=True, **given
        )
        attention = captured(conv, x, relation, engine)
        ours, weights = attention.as_pyg(0, relation)
        assert torch.equal(ours, edge_index)
        torch.testing.assert_close(weights, alpha.view(len(alpha), -1), rtol=0, atol=1e-10)
        is_own = edge_index[0] == edge_index[1]
        if loops and options:
            assert torch.equal(attention.self_loops(0, relation), weights[is_own])
            assert not (ours[0] == ours[1])[: -2 * GRID.num_nodes].any()
        else:
            assert attention.self_loops(0, relation) is None
            assert torch.equal(attention.edge_index(0, relation), edges)


def captured(conv: Any, x: Tensor, relation: Any, engine: Any) -> EdgeAttention:
    from taghead.attention.layer_attention import LayerAttention, OperatorAttention
    from taghead.attention.weights import edge_weights

    weights = edge_weights(conv, x, GRID, [relation], x, engine)
    operator = OperatorAttention(type(conv).__name__, (relation,), weights, x.norm(dim=-1))
    layers = (LayerAttention((operator,), True),)
    return EdgeAttention(GRID, (relation,), len(x), layers, x.mean(-1))


@pytest.mark.parametrize(("name", "conv", "mode"), MODES)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_both_engines_and_precisions_agree(name: str, conv: Any, mode: Any, grid: Grid) -> None:
    for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        head = make_head(grid, dtype, conv=conv, mode=mode, graph_layers=2)
        feature_map = make_map(2, grid, dtype)
        with torch.no_grad():
            logits, dense = head(feature_map, return_attention=True)
            assert torch.equal(logits, head(feature_map))
            head.engine = "pyg"
            other_logits, other = head(feature_map, return_attention=True)
            assert torch.equal(other_logits, head(feature_map))
        for layer in range(2):
            for relation in RELATIONS:
                for one, two in zip(
                    dense.as_pyg(layer, relation), other.as_pyg(layer, relation), strict=True
                ):
                    torch.testing.assert_close(one, two, rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "conv", "mode"), [m for m in MODES if m[0] != "FAConv"])
def test_they_are_the_softmax_that_pyg_computes(
    monkeypatch: pytest.MonkeyPatch, name: str, conv: Any, mode: Any
) -> None:
    """An independent witness: what `softmax` in the operator's own module returned."""
    head = make_head(conv=conv, mode=mode, engine="pyg")
    feature_map = make_map()
    _, attention = head(feature_map, return_attention=True)
    convs = [m for m in head.layers.modules() if isinstance(m, pyg.MessagePassing)]
    module = importlib.import_module(type(convs[0]).__module__)
    seen: list[Tensor] = []

    def witness(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(module_softmax(*args, **kwargs))
        return seen[-1]

    module_softmax = module.softmax
    monkeypatch.setattr(module, "softmax", witness)
    head(feature_map)
    assert len(seen) == len(convs)
    for relation, found in zip(RELATIONS, seen, strict=False):
        weights = attention.as_pyg(0, relation)[1]
        if name == "HGTConv":  # PyG lists relation after relation
            weights = torch.cat([attention.weights(0, r) for r in RELATIONS])
        torch.testing.assert_close(weights, found.view(len(found), -1), rtol=0, atol=1e-10)


@pytest.mark.parametrize("engine", ["dense", "pyg"])
@pytest.mark.parametrize("mode", ["per_relation", "union"])
@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("name", ["GATv2Conv", "TransformerConv"])
def test_they_sum_to_one(name: str, loops: bool, mode: Any, engine: Any) -> None:
    options = {} if name == "TransformerConv" else {"add_self_loops": loops}
    head = make_head(conv=partial(OPERATORS[name], **options), mode=mode, engine=engine)
    _, attention = head(make_map(), return_attention=True)
    sums = {}
    for relation in RELATIONS:
        total = torch.zeros(2 * GRID.num_nodes, 2, dtype=torch.float64)
        total.index_add_(0, attention.edge_index(0, relation)[1], attention.weights(0, relation))
        own = attention.self_loops(0, relation)
        sums[relation] = total if own is None or mode == "union" else total + own
    if mode == "union":
        own = attention.self_loops(0, RELATIONS[0])
        together = sum(sums.values()) if own is None else sum(sums.values()) + own
        sums = {"union": together}
    for total in sums.values():
        torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize(("name", "conv", "mode"), MODES)
def test_they_are_from_before_dropout(name: str, conv: Any, mode: Any) -> None:
    if "dropout" in pyg.__dict__[name].__init__.__code__.co_varnames:
        conv = partial(conv, dropout=0.5)
    still = {"encoder_dropout": 0.0, "graph_dropout": 0.0}
    head = make_head(conv=conv, mode=mode, **still)
    feature_map = make_map()
    _, expected = head(feature_map, return_attention=True)
    head.train()
    _, attention = head(feature_map, return_attention=True)
    assert all(m.training for m in head.modules())
    for relation in RELATIONS:
        torch.testing.assert_close(
            attention.weights(0, relation), expected.weights(0, relation), rtol=0, atol=1e-10
        )


def test_capture_draws_no_random_numbers() -> None:
    head = make_head(conv=partial(OPERATORS["GATv2Conv"], dropout=0.4), encoder_dropout=0.3).train()
    feature_map = make_map()
    torch.manual_seed(3)
    expected = head(feature_map)
    torch.manual_seed(3)
    assert torch.equal(head(feature_map, return_attention=True)[0], expected)


@pytest.mark.parametrize("relations", [(spatial_window(1), past(2)), (time_aligned(2),)], ids=str)
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_the_dense_form_is_the_edges_form(relations: Any, flow: str) -> None:
    grid = Grid(4, 2, 3)
    conv = partial(OPERATORS["GATv2Conv"], add_self_loops=False, flow=flow)
    head = make_head(grid, conv=conv, relations=relations)
    _, attention = head(make_map(2, grid), return_attention=True)
    for relation in relations:
        weights, mask = attention.dense(0, relation)
        assert mask.sum() == grid.edge_index(relation).size(1)
        assert torch.equal(weights.ne(0), mask.expand_as(weights))
        totals = weights.sum(-1)
        torch.testing.assert_close(totals, mask.any(-1).expand_as(totals).to(totals))
        listed = attention.weighted_edges(0, relation)
        for e in range(0, len(listed.source), 7):
            source, target = int(listed.source[e]), int(listed.target[e])
            t, p = divmod(target, grid.num_positions)
            s, q = divmod(source, grid.num_positions)
            if "window" in relation.name:
                slot = q
            else:
                before = 2 if relation == time_aligned(2) or flow == "source_to_target" else 0
                slot = s - t + before - (s > t)
            assert torch.equal(weights[:, :, t, p, slot], listed.alpha[:, e])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_dense_shapes_of_the_papers_relations(grid: Grid) -> None:
    head = make_head(grid, conv=OPERATORS["GATv2Conv"])
    _, attention = head(make_map(2, grid), return_attention=True)
    frames, positions = grid.frames, grid.num_positions
    assert attention.dense(0, "intra_frame").weights.shape == (2, 2, frames, positions, positions)
    assert attention.dense(0, "time_aligned").weights.shape == (2, 2, frames, positions, 2)


def test_moving_the_positions_moves_the_weights() -> None:
    head = make_head(conv=OPERATORS["GATv2Conv"], encoder_layers=1)
    torch.nn.init.zeros_(head.positions.tables[0])
    feature_map = make_map()
    order = torch.tensor([2, 0, 3, 1])
    moved = feature_map.flatten(3)[..., order].view_as(feature_map)
    _, one = head(feature_map, return_attention=True)
    _, two = head(moved, return_attention=True)
    frame = one.dense(0, "intra_frame").weights[..., order, :][..., order]
    torch.testing.assert_close(two.dense(0, "intra_frame").weights, frame)
    time = one.dense(0, "time_aligned").weights[..., order, :]
    torch.testing.assert_close(two.dense(0, "time_aligned").weights, time)


def test_one_clip_is_that_clip() -> None:
    head = make_head(conv=OPERATORS["TransformerConv"], readout="attention")
    feature_map = make_map(3)
    _, attention = head(feature_map, return_attention=True)
    _, alone = head(feature_map[1:2], return_attention=True)
    for relation in RELATIONS:
        torch.testing.assert_close(
            attention[1].weights(0, relation), alone.weights(0, relation), rtol=0, atol=1e-10
        )
    torch.testing.assert_close(attention[1].readout, alone.readout)
    torch.testing.assert_close(attention[1].transformer, alone.transformer)
    with pytest.raises(IndexError, match="clip must be below 3"):
        attention[3]


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_transformers_weights_are_torchs(norm: Any) -> None:
    head = make_head(encoder_layers=2, encoder_norm=norm, mode="none", readout="attention")
    feature_map = make_map()
    with torch.no_grad():  # torch takes its fused way
        logits, attention = head(feature_map, return_attention=True)
        assert torch.equal(logits, head(feature_map))
        x = head.embed(feature_map)
        for i, layer in enumerate(head.encoder.layers):
            y = layer.norm1(x) if norm == "pre" else x
            _, expected = layer.self_attn(y, y, y, average_attn_weights=False)
            torch.testing.assert_close(attention.transformer[:, i], expected)
            x = layer(x)
    assert attention.transformer.shape == (2, 2, 2, GRID.num_nodes, GRID.num_nodes)
    assert attention.layers == ()
    torch.testing.assert_close(attention.readout.sum(1), torch.ones(2, dtype=torch.float64))


def test_gradients_reach_through_the_weights() -> None:
    head = make_head(conv=OPERATORS["GATv2Conv"])
    feature_map = make_map().requires_grad_()
    _, attention = head(feature_map, return_attention=True)
    attention.weights(0, "intra_frame").square().sum().backward()
    assert feature_map.grad.abs().sum() > 0
    assert not attention.detach().weights(0, "intra_frame").requires_grad


def test_an_operator_without_attention() -> None:
    head = make_head(conv=pyg.SAGEConv)
    with pytest.raises(ValueError, match=r"SAGEConv has no attention.*GATv2Conv.*HEATConv"):
        head(make_map(), return_attention=True)


def test_wrong_questions() -> None:
    _, attention = make_head(relations=(RING, "past_1f"))(make_map(), return_attention=True)
    with pytest.raises(ValueError, match=r"layer must be below 1.*got 1"):
        attention.weights(1, "past_1f")
    with pytest.raises(ValueError, match=r"relation must be one of ring, past_1f \(got 'future'"):
        attention.weights(0, "future")
    with pytest.raises(ValueError, match="relation 'ring' has no dense form"):
        attention.dense(0, "ring")


@pytest.mark.parametrize(("name", "conv"), TYPED.items())
def test_typed_operators_of_pyg_run_on_the_grid(name: str, conv: Any) -> None:
    """HGTConv and HEATConv ask for dictionaries, node types and edge features."""
    head = make_head(conv=conv, mode="edge_type")
    operator = head.layers[0].convs.conv
    x = torch.randn(2, GRID.num_nodes, 8, dtype=torch.float64)
    out = propagate(operator, x, GRID, RELATIONS)
    assert out.shape == x.shape
    if name == "HGTConv":
        edges = {tuple(r): GRID.edge_index(r) for r in RELATIONS}
        torch.testing.assert_close(out[1], operator({"token": x[1]}, edges)["token"])
    if name == "HEATConv":
        edge_index, edge_type = GRID.typed_edges(RELATIONS)
        source, target = GRID.positions().to(x)[edge_index]
        types = torch.zeros(GRID.num_nodes, dtype=torch.long)
        expected = operator(x[1], edge_index, types, edge_type, source - target)
        torch.testing.assert_close(out[1], expected)


class ScaledGATv2(pyg.GATv2Conv):
    """GATv2Conv with a forward of its own, that does not return the weights."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return 0.5 * super().forward(x, edge_index)


@pytest.mark.parametrize("mode", ["per_relation", "union"])
def test_weights_that_a_forward_does_not_return_are_refused(mode: Any) -> None:
    head = make_head(conv=partial(ScaledGATv2, heads=2, concat=False), mode=mode)
    assert head(make_map()).isfinite().all()
    with pytest.raises(ValueError, match=r"ScaledGATv2\.forward takes no return_attention_weights"):
        head(make_map(), return_attention=True)
