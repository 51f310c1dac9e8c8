import json
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, MODES, OTHERS, small_head
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from taghead import Grid, TAGHead
from taghead.graph import PAST, RELATIONS, custom, from_tokens, past, spatial_window, to_hetero_data
from taghead.nn.readout import READOUTS


@pytest.mark.parametrize(("mode", "conv"), MODES)
@pytest.mark.parametrize("readout", READOUTS)
def test_logits_and_gradients(mode: Any, conv: Any, readout: Any) -> None:
    head = small_head(mode=mode, conv=conv, readout=readout).train()
    logits = head(torch.randn(2, 8, 3, 2, 2))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


RING = custom("ring", lambda grid: torch.arange(grid.num_nodes).roll(1).expand(2, -1))


@pytest.mark.parametrize(
    "relations",
    [OTHERS, ("window_1p", "time_2f"), (PAST, RING), (past(12), PAST)],
)
@pytest.mark.parametrize(
    ("mode", "conv"),
    [
        ("per_relation", partial(pyg.GATv2Conv, heads=2)),
        ("union", pyg.SAGEConv),
        ("edge_type", partial(pyg.RGCNConv, num_relations=3)),
    ],
)
def test_heads_on_other_relations(relations: Any, mode: Any, conv: Any) -> None:
    head = small_head(relations=relations, mode=mode, conv=conv)
    feature_map = torch.randn(2, 8, 3, 3, 2)
    data = to_hetero_data(from_tokens(head.encode(feature_map), Grid(3, 3, 2)), head.relations)
    logits = head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict)
    torch.testing.assert_close(logits, head(feature_map))
    head.engine = "pyg"
    torch.testing.assert_close(logits, head(feature_map))


def test_the_direction_of_time_is_seen() -> None:
    """Messages from the past alone: what a frame shows reaches no earlier frame."""
    head = small_head(relations=("past_1f",), encoder_layers=0, conv=pyg.SAGEConv)
    x = torch.randn(1, GRID.num_nodes, 8)
    other = torch.cat([x[:, :8], torch.randn(1, 4, 8)], dim=1)  # another last frame
    torch.testing.assert_close(head.refine(x, GRID)[:, :8], head.refine(other, GRID)[:, :8])
    backwards = small_head(relations=("future_1f",), encoder_layers=0, conv=pyg.SAGEConv)
    assert not torch.allclose(
        backwards.refine(x, GRID)[:, :8], backwards.refine(other, GRID)[:, :8]
    )


def test_relations_of_one_name_do_not_share_edges() -> None:
    def turn(step: int) -> Any:
        def edges(grid: Grid) -> Tensor:
            nodes = torch.arange(grid.num_nodes)
            return torch.stack([nodes.roll(step), nodes])

        return custom("ring", edges)

    heads = [
        small_head(relations=(relation,), conv=pyg.SAGEConv) for relation in (turn(1), turn(2))
    ]
    heads[1].load_state_dict(heads[0].state_dict())
    x = torch.randn(1, GRID.num_nodes, 8)
    assert not torch.allclose(heads[0].refine(x, GRID), heads[1].refine(x, GRID))


def test_relations_in_the_config() -> None:
    head = small_head(relations=["intra_frame", past(3), spatial_window(2)])
    config = json.loads(json.dumps({**head.config(), "conv": None}))
    assert config["relations"] == ["intra_frame", "past_3f", "window_2p"]
    assert TAGHead(**config).relations == head.relations
    with pytest.raises(ValueError, match="relations: 'ring' has a rule of its own, which cannot"):
        small_head(relations=[RING]).config()


def test_swapping_positions_within_all_frames_changes_no_logit_without_positions() -> None:
    head = small_head(positions_std=0.0)
    feature_map = torch.randn(2, 8, 3, 2, 2)
    order = torch.tensor([2, 0, 3, 1])
    swapped = feature_map.flatten(3)[..., order].unflatten(3, (2, 2))
    torch.testing.assert_close(head(swapped), head(feature_map))
    with_positions = small_head(positions_std=1.0)
    assert not torch.allclose(with_positions(swapped), with_positions(feature_map))


def test_the_order_of_frames_matters_to_the_graph_alone() -> None:
    feature_map = torch.randn(2, 8, 3, 2, 2)
    swapped = feature_map[:, :, [1, 0, 2]]
    blind = {"encoder_layers": 0, "positions_std": 0.0}
    head = small_head(**blind)
    assert not torch.allclose(head(swapped), head(feature_map), atol=1e-4)
    baseline = small_head(**blind, mode="none")
    torch.testing.assert_close(baseline(swapped), baseline(feature_map))


class PaperForward(nn.Module):
    """The paper's own way: a list of graphs, batched at every forward, and PyG's APPNP."""

    def __init__(self, head: TAGHead) -> None:
        super().__init__()
        self.pos_embedding = head.positions.tables[0]
        self.transformer = head.encoder
        self.classifier = head.classifier
        self.appnp = pyg.APPNP(K=2, alpha=0.1)

    def forward(self, feature_map: Tensor) -> Tensor:
        batch_size, _, t, h, w = feature_map.shape
        x = feature_map.flatten(2).permute(0, 2, 1) + self.pos_embedding
        x = self.transformer(x)
        node = torch.arange(t * h * w).view(t, h * w)
        edges = []
        for frame in node.tolist():
            edges += [(i, j) for i in frame for j in frame if i != j]
        for before, after in zip(node[:-1].tolist(), node[1:].tolist(), strict=True):
            edges += [e for i, j in zip(before, after, strict=True) for e in ((i, j), (j, i))]
        edge_index = torch.tensor(edges).t()
        batch = Batch.from_data_list([Data(x=clip, edge_index=edge_index) for clip in x])
        out = self.appnp(batch.x, batch.edge_index)
        return self.classifier(out.view(batch_size, t * h * w, -1).mean(dim=1))


@pytest.mark.parametrize(
    ("dataset", "classes", "frames", "width"),
    [("haa500", 500, 4, 512), ("gym99", 99, 8, 1024), ("gym288", 288, 8, 2048)],
)
def test_the_papers_head(dataset: Any, classes: int, frames: int, width: int) -> None:
    head = TAGHead.paper(dataset).eval()
    assert head.positions.tables[0].shape == (1, frames * 49, 512)
    assert 0.98 < head.positions.tables[0].std() < 1.02
    assert head.encoder.layers[0].linear1.out_features == width
    assert head.encoder.layers[0].dropout.p == 0.5
    assert not list(head.layers.parameters())  # APPNP has none
    feature_map = torch.randn(2, 512, frames, 7, 7)
    with torch.no_grad():
        logits = head(feature_map)
        expected = PaperForward(head).eval()(feature_map)
    assert logits.shape == (2, classes)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_the_paper_has_three_presets() -> None:
    with pytest.raises(ValueError, match=r"haa500, gym99, gym288 \(got 'kinetics'\)"):
        TAGHead.paper("kinetics")  # type: ignore[arg-type]


def test_other_widths_and_grids() -> None:
    head = small_head(channels=12, encoder_heads=3, positions="factorised")
    assert head.projection.out_features == 12
    assert head(torch.randn(1, 8, 5, 4, 3)).shape == (1, 5)
    assert head(torch.randn(1, 8, 1, 1, 1)).shape == (1, 5)


@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "cat"])
def test_relations_meet_as_asked(aggr: Any) -> None:
    head = small_head(relation_aggr=aggr, conv=pyg.SAGEConv, relations=RELATIONS)
    outputs = []
    layer = head.layers[0].convs
    x = torch.randn(1, 12, 8)

    def run(conv: Any, x: Tensor, relations: Any, x_0: Tensor) -> Tensor:
        edge_index = GRID.edge_index(relations[0])
        outputs.append(conv(x[0], edge_index)[None])
        return outputs[-1]

    out = layer(x, x, run)
    one, other = outputs
    expected = {
        "sum": one + other,
        "mean": (one + other) / 2,
        "max": torch.maximum(one, other),
        "cat": torch.cat([one, other], dim=-1),
    }
    torch.testing.assert_close(out, expected[aggr])


def test_config_makes_the_same_head_again() -> None:
    head = small_head(conv=partial(pyg.GATv2Conv, heads=2), readout="attention", graph_layers=2)
    again = TAGHead(**head.config()).eval()
    again.load_state_dict(head.state_dict())
    feature_map = torch.randn(1, 8, 3, 2, 2)
    assert torch.equal(again(feature_map), head(feature_map))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, r"mode must be one of union, .*none \(got 'both'\)"),
        (
            {"readout": "max"},
            r"readout must be one of mean, frame_mean_max, attention, last_frame, .*got 'max'",
        ),
        ({"graph_layers": 0}, r"graph_layers must be a positive integer \(got 0\)"),
        ({"encoder_heads": 3}, r"encoder_heads must divide the width 8 \(got 3\)"),
        ({"relations": ("diagonal",)}, r"relation must be one of .*\(got 'diagonal'\)"),
        (
            {"relations": ("past", "past_1f")},
            "relations: 'past_1f' is listed twice",
        ),
        ({"relations": ("past(reach=0)",)}, r"past: reach must be a positive integer \(got 0\)"),
        (
            {
                "relations": ("past_1f", "future_1f", "intra_frame"),
                "mode": "edge_type",
                "conv": partial(pyg.RGCNConv, num_relations=2),
            },
            r"num_relations must be at least the number of relations given, 3 \(got 2\)",
        ),
        ({"relations": "intra_frame"}, r"must be a list of relations \(got 'intra_frame', a name"),
        ({"relations": []}, r"relations must not be empty in mode per_relation \(got \[\]\)"),
        ({"relations": [], "mode": "union"}, "relations must not be empty in mode union"),
        (
            {"positions": "sine"},
            r"positions must be one of full, factorised, laplacian, random_walk, a class path "
            r"\(got 'sine'\)",
        ),
        ({"mode": "edge_type"}, "mode edge_type: TransformerConv takes no edge_type; use union"),
        ({"conv": lambda i, o: pyg.SAGEConv(i, 2 * o)}, r"must give 8 channels \(got 16\)"),
        ({"conv": lambda i, o: pyg.SAGEConv(3, o)}, "SAGEConv does not run on a grid of tokens"),
        (
            {"relation_aggr": "cat", "channels": 7, "encoder_layers": 0},
            r"divide the width 7 \(got 3\)",
        ),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_head(**options)


def test_a_feature_map_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must have 8 channels \(got 9\)"):
        small_head()(torch.randn(1, 9, 3, 2, 2))


@pytest.mark.parametrize(
    ("in_channels", "channels", "width"), [(8, None, 8), (2304, None, 512), (1024, 1024, 1024)]
)
def test_width_of_the_tokens(in_channels: int, channels: int | None, width: int) -> None:
    head = TAGHead(in_channels, 5, GRID, channels=channels, encoder_layers=0, mode="none")
    assert head.encode(torch.randn(1, in_channels, 3, 2, 2)).size(2) == width
