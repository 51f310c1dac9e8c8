"""Parts of a head: blocks, an operator a relation and a layer, norms, readouts, aggregations."""

import json
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, small_head
from torch import Tensor, nn

from taghead import Grid, TAGHead
from taghead.class_paths import allow_modules
from taghead.graph import from_tokens, to_hetero_data
from taghead.nn.message_passing import auxiliary_loss
from taghead.nn.readout import Readout

P = "torch_geometric.nn."


def of(name: str, **options: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": options}


def edge_type(relation: str) -> tuple[str, str, str]:
    return ("token", relation, "token")


GAT2 = of(f"{P}GATv2Conv", heads=2)
SAGE = of(f"{P}SAGEConv")
MODULES = [
    [of(f"{P}GATv2Conv", out_channels=4), "x, edge_index -> x"],
    "torch.nn.ReLU",
    [of(f"{P}SAGEConv", in_channels=4), "x, edge_index -> x"],
]
METADATA = [["token"], [edge_type(r) for r in ("future_3f", "intra_frame", "past_3f")]]
CONVS = {"past_3f": SAGE, "intra_frame": GAT2, "future_3f": SAGE}
PARTS: dict[str, dict[str, Any]] = {
    "GPSConv": {"conv": of("GPSConv", conv=GAT2, heads=2)},
    "DeepGCNLayer": {"conv": of("DeepGCNLayer", conv=of(f"{P}GENConv"), act="torch.nn.ReLU")},
    "GAT, a model": {"conv": of("GAT", num_layers=2, heads=2)},
    "Sequential": {"conv": of("Sequential", input_args="x, edge_index", modules=MODULES)},
    "HANConv": {"conv": "HANConv", "mode": "edge_type"},
    "HGTConv": {"conv": of("HGTConv", metadata=METADATA), "mode": "edge_type"},
    "HeteroConv": {"conv": of("HeteroConv", convs=CONVS), "mode": "edge_type"},
    "RGCNConv": {"conv": "RGCNConv", "mode": "edge_type"},
    "RGCNConv of one relation": {"conv": pyg.RGCNConv},
    "PNAConv": {"conv": of("PNAConv", aggregators=["mean", "max"], scalers=["amplification"])},
    "GINConv": {"conv": of("GINConv", nn=of(f"{P}MLP", channel_list=[8, 16, 8]))},
    "an aggregation": {"conv": of("SAGEConv", aggr=of(f"{P}SoftmaxAggregation", learn=True))},
    "by relation": {"conv": {"intra_frame": GAT2, "past": "SAGEConv", "future_3f": "GCNConv"}},
    "by layer": {"conv": ["GCNConv", {"intra_frame": GAT2, "default": SAGE}], "graph_layers": 2},
    "GCN2Conv": {"conv": of("GCN2Conv", alpha=0.1, theta=0.5), "graph_layers": 2},
    "an object": {"conv": pyg.GATv2Conv(8, 4, heads=2)},
    "GraphNorm": {"graph_norm_layer": "GraphNorm"},
    "PairNorm": {"graph_norm_layer": pyg.PairNorm, "graph_norm": "post"},
    "BatchNorm1d": {"graph_norm_layer": "torch.nn.BatchNorm1d"},
    "LayerNorm of PyG": {"graph_norm_layer": of("LayerNorm", mode="graph")},
    "a feed-forward network": {"graph_feed_forward": 16, "graph_norm_layer": "GraphNorm"},
    "JumpingKnowledge cat": {"jumping_knowledge": "cat", "graph_layers": 2},
    "JumpingKnowledge max": {"jumping_knowledge": "max", "graph_layers": 2},
    "JumpingKnowledge lstm": {"jumping_knowledge": "lstm", "graph_layers": 2},
    "Set2Set": {"readout": of(f"{P}Set2Set", processing_steps=2)},
    "a wide readout": {"readout": partial(pyg.SortAggregation, k=3)},
    "an aggregation of relations": {"relation_aggr": of(f"{P}MultiAggregation", aggrs=["max"])},
}


@pytest.mark.parametrize("part", PARTS)
def test_it_trains_is_saved_and_runs_on_an_edge_list(part: str) -> None:
    torch.manual_seed(0)
    head = small_head(encoder_layers=0, **PARTS[part]).double()
    feature_map = torch.randn(2, 8, 3, 2, 2, dtype=torch.float64)
    head.train()(feature_map).square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    logits = head.eval()(feature_map)
    config = json.loads(json.dumps(head.config()))
    again = TAGHead(**config).double().eval()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(feature_map), logits)
    assert again.config() == head.config()
    data = to_hetero_data(from_tokens(head.encode(feature_map), GRID), head.relations)
    graph = head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict)
    torch.testing.assert_close(graph, logits, rtol=1e-9, atol=1e-9)
    head.engine = "pyg"
    torch.testing.assert_close(head(feature_map), logits, rtol=1e-9, atol=1e-9)


def test_each_layer_and_relation_has_its_own_copy() -> None:
    network = pyg.MLP([8, 8, 8], norm=None)
    act = nn.PReLU()
    for conv, name, given in (
        (partial(pyg.GINConv, nn=network), "nn", network),
        (partial(pyg.ResGatedGraphConv, act=act), "act", act),
        (of("GINConv", nn=of(f"{P}MLP", channel_list=[8, 8])), "nn", None),
    ):
        head = small_head(conv=conv, graph_layers=2)
        convs = [conv for layer in head.layers for conv in layer.convs.operators()]
        modules = [getattr(each, name) for each in convs]
        assert len({id(module) for module in [*modules, given]}) == 7
        weights = [next(module.parameters()) for module in modules]
        if name == "nn":
            assert not any(torch.equal(weights[0], other) for other in weights[1:])


def test_the_head_fills_in_what_the_graph_tells() -> None:
    grid = Grid(*(3, 2, 2))
    head = small_head(conv=of("PNAConv", aggregators=["sum"], scalers=["identity"]), mode="union")
    degree = torch.bincount(grid.typed_edges(head.relations)[0][1], minlength=12)
    expected = (degree.double() * 1).mean()
    deg = head.layers[0].convs.conv.aggr_module.avg_deg_lin
    torch.testing.assert_close(deg.double(), expected.view(-1).expand_as(deg).double())
    layers = small_head(conv=of("GCN2Conv", alpha=0.1, theta=0.5), graph_layers=2).layers
    betas = [layer.convs.operators()[0].beta for layer in layers]
    assert betas == [pytest.approx(torch.tensor(0.5 / i + 1).log().item()) for i in (1, 2)]
    conv = small_head(conv="HGTConv", mode="edge_type").layers[0].convs.conv
    assert conv.edge_types == [edge_type(r) for r in ("intra_frame", "past_3f", "future_3f")]
    assert small_head(conv="FiLMConv", mode="edge_type").layers[0].convs.conv.num_relations == 3


def test_edge_types_count_by_name_not_by_place() -> None:
    orders = [METADATA, [["token"], METADATA[1][::-1]]]
    heads = [small_head(conv=of("HGTConv", metadata=each), mode="edge_type") for each in orders]
    heads[1].load_state_dict(heads[0].state_dict())
    feature_map = torch.randn(1, 8, 3, 2, 2)
    assert torch.equal(heads[0](feature_map), heads[1](feature_map))


class Doubled(nn.Module):
    """A norm without `batch`, and an aggregation of relations: rows, doubled or summed."""

    def __init__(self, rows: bool = True) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if self.rows else x.sum(dim=-2)


class Last(Readout):
    """A readout without weights and aggregation: the last frame's mean."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1].mean(dim=1)


class Plain(nn.Module):
    """Positions of one's own: each token's frame."""

    def __init__(self, channels: int, grid: Grid, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        return x + self.scale * grid.positions()[:, :1].to(x)


def test_parts_of_ones_own() -> None:
    allow_modules([__name__])
    head = small_head(
        positions=of(f"{__name__}.Plain", scale=0.5),
        graph_norm_layer=Doubled,
        relation_aggr=partial(Doubled, rows=False),
        readout=Last,
    )
    summed = small_head(relation_aggr="sum", graph_norm=None, positions=Plain, readout="mean")
    summed.load_state_dict(head.state_dict())
    x = torch.randn(2, 12, 8)
    torch.testing.assert_close(
        head.layers[0].convs(x, x, head._runner(GRID)),
        summed.layers[0].convs(x, x, head._runner(GRID)),
    )
    feature_map = torch.randn(2, 8, 3, 2, 2)
    again = TAGHead(**json.loads(json.dumps(head.config()))).eval()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(feature_map), head(feature_map))
    logits, attention = head(feature_map, return_attention=True)
    assert torch.equal(logits, head(feature_map))
    with pytest.raises(ValueError, match="readout: Last has no weights of tokens"):
        attention.rollout()
    with pytest.raises(ValueError, match="readout: Last has no aggregation of graphs"):
        head.graph_model()


def test_a_norm_of_graphs_sees_each_clip_alone() -> None:
    head = small_head(graph_norm_layer="GraphNorm")
    feature_map = torch.randn(3, 8, 3, 2, 2)
    alone = torch.cat([head(clip[None]) for clip in feature_map])
    torch.testing.assert_close(head(feature_map), alone)


def test_the_feed_forward_network_is_that_of_a_transformer_layer() -> None:
    head = small_head(graph_feed_forward=16, mode="union", conv="SAGEConv", graph_dropout=0.0)
    layer, x = head.layers[0], torch.randn(2, 12, 8)
    runner = head._runner(GRID)
    middle = x + layer.activation(layer.convs(layer.pre_norm(x), x, runner))
    part = layer.feed_forward
    inner = nn.functional.gelu(part.lin1(part.pre_norm(middle)))
    torch.testing.assert_close(layer(x, x, runner), middle + part.lin2(inner))


def test_an_operators_own_loss() -> None:
    head = small_head(conv=of("SuperGATConv", heads=2), graph_layers=2).train()
    head(torch.randn(1, 8, 3, 2, 2))
    losses = [c.get_attention_loss() for layer in head.layers for c in layer.convs.operators()]
    assert len(losses) == 6
    torch.testing.assert_close(head.auxiliary_loss(), torch.stack(losses).sum())
    assert auxiliary_loss(small_head().layers) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv": {"intra_frame": SAGE}}, "conv: relation past_3f has no operator: give one for"),
        (
            {"conv": {"past_2f": SAGE}},
            "conv: 'past_2f' is no relation of the head, which has",
        ),
        ({"conv": {"heads": 2}}, "conv: 'heads' is no relation of the head.* the operator's class"),
        ({"conv": {"default": SAGE}, "mode": "union"}, "operators by relation need mode per_rel"),
        ({"conv": [SAGE]}, None),
        ({"conv": [SAGE, SAGE]}, "an operator for each of graph_layers=1 layers .*a list of 2"),
        ({"conv": of("GPSConv", heads=2)}, "GPSConv cannot be built: .*conv"),
        ({"conv": "HeteroConv", "mode": "edge_type"}, "HeteroConv: convs must have an operator"),
        (
            {"conv": of("HeteroConv", convs={"past_3f": SAGE})},
            "convs must have the relations in",
        ),
        ({"conv": "GATv3Conv"}, "conv must be the name of a class of PyG, .*did you mean GATv2"),
        ({"conv": "DynamicEdgeConv"}, "DynamicEdgeConv takes no edge_index, so edges of relations"),
        ({"conv": "NNConv"}, "NNConv cannot be built: .*; it needs edge_features, such as offset"),
        ({"conv": nn.Linear}, "conv must be a MessagePassing class, or that of a module whose"),
        ({"conv": of("GAT", num_layers=2, out_channels=4)}, r"GAT must give 8 channels \(got 4\)"),
        ({"readout": nn.Linear}, "readout must be a Readout or one of PyG's aggregations"),
        ({"readout": pyg.Set2Set}, "readout: Set2Set cannot be built: .*processing_steps"),
        ({"graph_norm_layer": "MessageNorm"}, "graph_norm_layer must be one of layer_norm, the na"),
        ({"relation_aggr": "median"}, "relation_aggr must be one of sum, mean, max, cat, a class"),
        ({"relation_aggr": partial(pyg.SortAggregation, k=2)}, r"must give 8 channels \(got 16\)"),
        ({"jumping_knowledge": "sum"}, r"jumping_knowledge must be one of cat, max, lstm, None"),
        ({"graph_feed_forward": -1}, "graph_feed_forward must be a positive integer"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert small_head(**options) is not None
        return
    with pytest.raises(ValueError, match=message):
        small_head(**options)
