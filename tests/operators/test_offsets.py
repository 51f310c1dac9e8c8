"""Edges that know where they come from: PyG is the oracle, with features made edge by edge."""

import json
import math
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.explain import AttentionExplainer, GNNExplainer
from torch_geometric.nn import MessagePassing

from taghead import Grid, TAGHead
from taghead.explain import edge_curves, edge_saliency, explain_head
from taghead.graph import (
    FUTURE,
    INTRA_FRAME,
    PAST,
    RELATIONS,
    TIME_ALIGNED,
    from_tokens,
    spatial_window,
    to_hetero_data,
)
from taghead.operators import as_operator, offsets, propagate

GRID, WIDTH = Grid(3, 2, 3), 6
PNA = {"aggregators": ["mean", "max"], "scalers": ["identity"], "deg": torch.tensor([0, 3, 2])}
OPERATORS: dict[str, Any] = {
    "CGConv": pyg.CGConv,
    "GATConv": partial(pyg.GATConv, heads=2),
    "GATConv, loops off": partial(pyg.GATConv, add_self_loops=False),
    "GATv2Conv": partial(pyg.GATv2Conv, heads=3, concat=False),
    "GENConv": pyg.GENConv,
    "GINEConv": pyg.GINEConv,
    "GMMConv": partial(pyg.GMMConv, dim=4, kernel_size=2),
    "GeneralConv": partial(pyg.GeneralConv, attention=True),
    "NNConv": pyg.NNConv,
    "PDNConv": partial(pyg.PDNConv, edge_dim=4, hidden_channels=5),
    "PNAConv": partial(pyg.PNAConv, **PNA),
    "RGATConv": partial(pyg.RGATConv, num_relations=3, heads=2, concat=False),
    "ResGatedGraphConv": pyg.ResGatedGraphConv,
    "TransformerConv": partial(pyg.TransformerConv, heads=2),
    "from target to source": partial(pyg.GATv2Conv, flow="target_to_source"),
}
RELATION_SETS = [
    (INTRA_FRAME,),
    (TIME_ALIGNED,),
    (INTRA_FRAME, PAST, FUTURE),
    (spatial_window(1), TIME_ALIGNED),
]


def by_hand(grid: Grid, edge_index: Tensor) -> Tensor:
    places = grid.positions().tolist()

    def scale(d: float) -> float:
        return math.copysign(math.log2(1 + abs(d)) / 3, d)

    rows = []
    for source, target in edge_index.t().tolist():
        t, y, x = (a - b for a, b in zip(places[source], places[target], strict=True))
        rows.append([scale(t), scale(y), scale(x), scale(math.hypot(y, x))])
    return torch.tensor(rows, dtype=torch.float64).view(-1, 4)


def test_offsets_of_a_few_edges() -> None:
    pos = Grid(2, 2, 8).positions().double()
    edges = torch.tensor([[0, 7, 16, 1], [1, 0, 0, 8]])  # source, target
    assert offsets(pos, edges).round(decimals=4).tolist() == [
        [0.0, 0.0, -0.3333, 0.3333],  # one column to the left
        [0.0, 0.0, 1.0, 1.0],  # seven to the right
        [0.3333, 0.0, 0.0, 0.0],  # the frame after
        [0.0, -0.3333, 0.3333, 0.4239],  # a diagonal
    ]


@pytest.mark.parametrize("relations", RELATION_SETS, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_equals_pyg_on_a_batch_built_by_hand(name: str, relations: Any) -> None:
    conv = as_operator(OPERATORS[name])(WIDTH, WIDTH, 4).double().eval()
    if isinstance(conv, pyg.RGATConv):
        torch.nn.init.constant_(conv.l2, 0.3)
    x = torch.randn(2, GRID.num_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    edge_index, edge_type = GRID.typed_edges(relations)
    attributes = {"edge_attr": by_hand(GRID, edge_index), "edge_type": edge_type}
    data = Batch.from_data_list([Data(x=clip, edge_index=edge_index, **attributes) for clip in x])
    given = {"edge_type": data.edge_type} if isinstance(conv, pyg.RGATConv) else {}
    expected = conv(data.x, data.edge_index, edge_attr=data.edge_attr, **given)
    out = propagate(conv, x, GRID, relations, edge_features="offset")
    torch.testing.assert_close(out.flatten(0, 1), expected, rtol=0, atol=1e-10)
    direction = torch.randn_like(expected)
    inputs = [x, *conv.parameters()]
    wanted = torch.autograd.grad((expected * direction).sum(), inputs, allow_unused=True)
    found = torch.autograd.grad((out.flatten(0, 1) * direction).sum(), inputs, allow_unused=True)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    plain = propagate(conv, x, GRID, relations, edge_attr=torch.zeros(len(relations), 4).double())
    assert not torch.allclose(plain, out)  # they reach the output


def make_head(**options: Any) -> TAGHead:
    small = {"encoder_heads": 2, "encoder_channels": 16, "encoder_layers": 1, "graph_layers": 2}
    defaults = {**small, "relations": RELATIONS}
    head = TAGHead(WIDTH, 5, GRID, edge_features="offset", **{**defaults, **options}).double()
    for name, parameter in head.named_parameters():
        if name.endswith("l2"):  # RGATConv leaves it uninitialised
            torch.nn.init.constant_(parameter, 0.3)
    return head.eval()


def make_map(num_clips: int = 2, grid: Grid = GRID) -> Tensor:
    shape = (num_clips, WIDTH, grid.frames, grid.height, grid.width)
    return torch.randn(shape, dtype=torch.float64)


HEADS = [
    ("per_relation", OPERATORS["GATv2Conv"]),
    ("per_relation", pyg.GINEConv),
    ("union", OPERATORS["TransformerConv"]),
    ("edge_type", OPERATORS["RGATConv"]),
]


@pytest.mark.parametrize("relations", [RELATIONS, ("intra_frame", "past_1f", "future_1f")])
@pytest.mark.parametrize(("mode", "conv"), HEADS)
def test_the_graph_model_computes_them_from_positions(mode: Any, conv: Any, relations: Any) -> None:
    head = make_head(mode=mode, conv=conv, relations=relations)
    for grid in (GRID, Grid(4, 3, 2), Grid(1, 1, 1)):
        feature_map = make_map(3, grid)
        data = to_hetero_data(from_tokens(head.encode(feature_map), grid), head.relations)
        model = head.graph_model()
        logits = model(data.x_dict, data.edge_index_dict, data.batch_dict, data.pos_dict)
        torch.testing.assert_close(logits, head(feature_map))
    with pytest.raises(ValueError, match="edge_features OffsetFeatures needs pos_dict"):
        model(data.x_dict, data.edge_index_dict, data.batch_dict)


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("name", ["GATConv", "GATv2Conv", "TransformerConv"])
def test_captured_attention_is_pygs(name: str, loops: bool) -> None:
    options = {} if name == "TransformerConv" else {"add_self_loops": loops}
    conv = partial(OPERATORS[name], **options)
    head = make_head(conv=conv, mode="union", graph_layers=1, graph_norm=None)
    feature_map = make_map()
    logits, attention = head(feature_map, return_attention=True)
    torch.testing.assert_close(logits, head(feature_map))
    edge_index, alpha = attention.as_pyg(0, "intra_frame")
    x, (edges, _) = head.encode(feature_map).flatten(0, 1), GRID.typed_edges(RELATIONS)
    features = by_hand(GRID, edges).repeat(2, 1)
    edges = torch.cat([edges, edges + GRID.num_nodes], dim=1)
    operator = head.layers[0].convs.conv
    _, (wanted_edges, wanted) = operator(x, edges, features, return_attention_weights=True)
    assert torch.equal(edge_index, wanted_edges)
    torch.testing.assert_close(alpha, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("mode", "conv"), [HEADS[0], HEADS[2]])
def test_explanations_run_with_them(mode: Any, conv: Any) -> None:
    head = make_head(mode=mode, conv=conv).float()
    feature_map = make_map(1).float()
    for algorithm in (AttentionExplainer(), GNNExplainer(epochs=2)):
        found = explain_head(head, feature_map, algorithm)
        assert set(found.scores) == {"intra_frame", "time_aligned"}
    saliency = edge_saliency(head, feature_map)
    curves = edge_curves(head, feature_map, saliency, steps=2, draws=2)
    assert curves.ranked.between(0, 1).all()


def test_time_aligned_edges_know_the_direction_of_time() -> None:
    blind: dict[str, Any] = {"encoder_layers": 0, "positions_std": 0.0, "relations": RELATIONS}
    conv = partial(pyg.GATv2Conv, heads=2, add_self_loops=False)
    feature_map = make_map()
    for edge_features, same in (("none", True), ("offset", False)):
        head = TAGHead(WIDTH, 5, GRID, conv=conv, edge_features=edge_features, **blind).double()
        backwards = head.eval()(feature_map.flip(2))
        assert torch.allclose(head(feature_map), backwards) == same


def test_edges_left_out_take_their_features_along() -> None:
    class SumOfFeatures(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
            kept.append((edge_index, edge_attr))
            return x

    kept: list[tuple[Tensor, Tensor]] = []
    x = torch.zeros(2, GRID.num_nodes, 4, dtype=torch.float64)
    propagate(SumOfFeatures(), x, GRID, RELATIONS, edge_features="offset", edge_dropout=0.5)
    ((edge_index, features),) = kept
    assert 0 < len(features) < 2 * GRID.typed_edges(RELATIONS)[0].size(1)
    own = edge_index % GRID.num_nodes
    torch.testing.assert_close(features, by_hand(GRID, own))


def test_features_in_the_config() -> None:
    head = make_head(conv=pyg.GATv2Conv)
    config = json.loads(json.dumps(head.config()))
    assert config["edge_features"] == "offset"
    assert "edge_dim" not in config["conv"]["init_args"]
    again = TAGHead(**config).double().eval()
    again.load_state_dict(head.state_dict())
    feature_map = make_map()
    assert torch.equal(again(feature_map), head(feature_map))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv": pyg.SAGEConv}, r"SAGEConv takes no edge_attr; .* CGConv, .*TransformerConv"),
        ({"conv": pyg.GCNConv}, "GCNConv takes no edge_attr"),
        ({"conv": partial(pyg.GATConv, edge_dim=3)}, r"edge_dim must be 4, .*\(got 3\)"),
        ({"conv": lambda i, o: pyg.GATConv(i, o)}, "was built without features of edges"),
        ({"conv": lambda i, o: pyg.GeneralConv(i, o)}, "was built without features of edges"),
        (
            {"edge_features": "angle"},
            r"edge_features must be one of none, offset, relative, relation \(got 'angle'\)",
        ),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    given = {"edge_features": "offset", "encoder_layers": 0, **options}
    with pytest.raises(ValueError, match=message):
        TAGHead(WIDTH, 5, GRID, **given)


def test_features_come_from_one_place() -> None:
    conv, x = pyg.GATConv(4, 4, edge_dim=4), torch.zeros(1, GRID.num_nodes, 4)
    with pytest.raises(ValueError, match="edge_attr must be None with edge_features offset"):
        propagate(conv, x, GRID, [PAST], edge_attr=torch.zeros(1, 4), edge_features="offset")
    with pytest.raises(ValueError, match=r"must be none, offset or an EdgeFeatures \(got 'angle'"):
        propagate(conv, x, GRID, [PAST], edge_features="angle")
