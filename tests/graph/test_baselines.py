"""Baseline graphs: the same degrees and random edges, or none; and edge dropout."""

from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor

from taghead import Grid, TAGHead
from taghead.graph import (
    INTRA_FRAME,
    NO_EDGES,
    RELATIONS,
    TIME_ALIGNED,
    Relation,
    random_intra,
    random_time,
    shuffled_intra,
    shuffled_time,
)
from taghead.operators import propagate

SIZES = [(1, 1, 1), (1, 2, 3), (4, 1, 1), (2, 1, 1), (5, 2, 2), (8, 4, 4)]
BASELINES = [
    (shuffled_intra, INTRA_FRAME),
    (shuffled_time, TIME_ALIGNED),
    (random_intra, INTRA_FRAME),
    (random_time, TIME_ALIGNED),
]
CLIP = Grid(8, 4, 4)


def degrees(edges: Tensor, grid: Grid) -> Tensor:
    return torch.stack([nodes.bincount(minlength=grid.num_nodes) for nodes in edges])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("make", "base"), BASELINES)
@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_degrees_are_the_relations_own(size: Any, make: Any, base: Relation, seed: int) -> None:
    grid = Grid(*size)
    edges, like = grid.edge_index(make(seed)), grid.edge_index(base)
    assert edges.dtype == torch.long
    assert edges.shape == like.shape
    assert not (edges[0] == edges[1]).any()
    order = edges[1] * grid.num_nodes + edges[0]
    assert (order.diff() > 0).all()  # sorted, and none twice
    found, wanted = degrees(edges, grid), degrees(like, grid)
    assert torch.equal(found[1], wanted[1])
    if make in (shuffled_intra, shuffled_time):
        assert torch.equal(found[0], wanted[0])


@pytest.mark.parametrize(("make", "base"), BASELINES)
def test_edges_are_a_matter_of_chance(make: Any, base: Relation) -> None:
    """No more of the relation's own edges are left than chance would put there."""
    own = {tuple(edge) for edge in CLIP.edge_index(base).t().tolist()}
    kept = [len(own & {tuple(e) for e in CLIP.edge_index(make(s)).t().tolist()}) for s in range(8)]
    share = sum(kept) / 8 / len(own)
    chance = len(own) / (CLIP.num_nodes * (CLIP.num_nodes - 1))
    spread = (chance * (1 - chance) / (8 * len(own))) ** 0.5
    assert abs(share - chance) < 5 * spread
    sources = {int(source) for s in range(60) for source in row(make(s), 17)}
    assert sources == set(range(CLIP.num_nodes)) - {17} or make in (shuffled_time, random_time)
    assert 17 not in sources


def row(relation: Relation, target: int) -> Tensor:
    edges = CLIP.edge_index(relation)
    return edges[0, edges[1] == target]


TABLE = {
    "shuffled_0_intra": [2, 3, 1, 5, 0, 4],
    "shuffled_0_time": [3, 0, 3, 5, 1, 2, 2, 4],
    "shuffled_3_intra": [4, 2, 0, 1, 5, 3],
    "random_0_intra": [5, 2, 3, 0, 1, 0],
    "random_0_time": [5, 2, 1, 3, 0, 5, 1, 0],
    "random_7_time": [3, 4, 3, 4, 2, 5, 5, 2],
}


def test_edges_are_the_same_everywhere() -> None:
    """A checkpoint finds the edges that it was trained on: in any version, on any machine."""
    grid = Grid(3, 1, 2)
    assert {r: grid.edge_index(r)[0].tolist() for r in TABLE} == TABLE
    assert not torch.equal(grid.edge_index(shuffled_time(0)), grid.edge_index(shuffled_time(1)))


@pytest.mark.parametrize("make", [make for make, _ in BASELINES])
def test_baselines_in_the_config(make: Any) -> None:
    head = small_head(relations=[make(), make(12)])
    name = make.__name__
    assert head.config()["relations"] == [name.replace("_", f"_{seed}_") for seed in (0, 12)]
    again = TAGHead(**{**head.config(), "relations": [f"{name}(seed=0)", f"{name}( seed = 12 )"]})
    again.load_state_dict(head.state_dict())
    feature_map = torch.randn(2, 8, 3, 2, 2)
    assert torch.equal(again.eval()(feature_map), head(feature_map))


def small_head(**options: Any) -> TAGHead:
    small = {"encoder_heads": 2, "encoder_channels": 16, "encoder_layers": 1}
    defaults = {**small, "relations": RELATIONS}
    return TAGHead(8, 5, (3, 2, 2), **{**defaults, **options}).eval()


@pytest.mark.parametrize("relations", [(shuffled_intra(), random_time(3)), ("random_0_intra",)])
@pytest.mark.parametrize(
    ("mode", "conv"),
    [
        ("per_relation", partial(pyg.GATv2Conv, heads=2)),
        ("union", pyg.SAGEConv),
        ("edge_type", partial(pyg.RGCNConv, num_relations=2)),
    ],
)
def test_baselines_run_in_every_mode(relations: Any, mode: Any, conv: Any) -> None:
    head = small_head(relations=relations, mode=mode, conv=conv)
    logits = head(torch.randn(2, 8, 3, 2, 2))
    logits.square().sum().backward()
    assert all(p.grad is not None for p in head.layers.parameters())


def test_a_baseline_cannot_run_densely() -> None:
    head = small_head(relations=("shuffled_0_intra",), engine="dense")
    with pytest.raises(ValueError, match="shuffled_0_intra has no dense neighbourhood"):
        head(torch.randn(1, 8, 3, 2, 2))


@pytest.mark.parametrize("seed", [-1, 1.5, True, "2"])
def test_seeds_are_integers(seed: Any) -> None:
    with pytest.raises(ValueError, match="shuffled_intra: seed must be an integer of at least 0"):
        shuffled_intra(seed)


# Edges left out in training

EDGE_DROPOUT = [
    ("per_relation", partial(pyg.GATv2Conv, heads=2)),
    ("union", partial(pyg.APPNP, K=2, alpha=0.1)),
    ("edge_type", partial(pyg.RGATConv, num_relations=2)),
]


class CountEdges(pyg.MessagePassing):
    """Gives each token the number of its edges."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=torch.ones_like(x))


@pytest.mark.parametrize(("mode", "conv"), EDGE_DROPOUT)
def test_evaluation_has_all_edges(mode: Any, conv: Any) -> None:
    head = small_head(mode=mode, conv=conv, edge_dropout=0.5)
    plain = small_head(mode=mode, conv=conv)
    for name, parameter in head.named_parameters():
        if name.endswith(("l1", "b1", "l2", "b2")):  # RGATConv leaves one uninitialised
            torch.nn.init.constant_(parameter, 0.3)
    plain.load_state_dict(head.state_dict())
    feature_map = torch.randn(2, 8, 3, 2, 2)
    assert torch.equal(head(feature_map), plain(feature_map))


@pytest.mark.parametrize(("mode", "conv"), EDGE_DROPOUT)
def test_training_leaves_out_what_the_seed_says(mode: Any, conv: Any) -> None:
    dropout = {"encoder_dropout": 0.0, "graph_dropout": 0.0}
    head = small_head(mode=mode, conv=conv, edge_dropout=0.5, **dropout).train()
    for name, parameter in head.named_parameters():
        if name.endswith(("l1", "b1", "l2", "b2")):
            torch.nn.init.constant_(parameter, 0.3)
    feature_map, logits = torch.randn(2, 8, 3, 2, 2), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        logits.append(head(feature_map))
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])
    assert not torch.allclose(logits[0], head.eval()(feature_map))


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_the_share_that_is_left_out(probability: float) -> None:
    conv, x = CountEdges(), torch.ones(16, CLIP.num_nodes, 1)
    for relation in (INTRA_FRAME, TIME_ALIGNED):
        count = 16 * CLIP.edge_index(relation).size(1)
        out = propagate(conv.train(), x, CLIP, [relation], edge_dropout=probability)
        spread = (probability * (1 - probability) / count) ** 0.5
        assert abs(1 - out.sum() / count - probability) < 5 * spread
        whole = propagate(conv.eval(), x, CLIP, [relation], edge_dropout=probability)
        assert whole.sum() == count


def test_attention_is_over_the_edges_that_stay() -> None:
    """As PyG's `dropout_edge` before the operator."""
    from torch_geometric.utils import dropout_edge

    from taghead.graph import from_tokens, to_data

    conv = pyg.GATv2Conv(4, 4, heads=2, concat=False).double().train()
    grid, x = Grid(3, 2, 2), torch.randn(2, 12, 4, dtype=torch.float64)
    data = to_data(from_tokens(x, grid))
    torch.manual_seed(3)
    expected = conv(data.x, dropout_edge(data.edge_index, 0.4)[0])
    torch.manual_seed(3)
    out = propagate(conv, x, grid, (INTRA_FRAME, TIME_ALIGNED), edge_dropout=0.4)
    torch.testing.assert_close(out.flatten(0, 1), expected, rtol=0, atol=1e-12)


def test_the_graph_model_leaves_out_as_many() -> None:
    from taghead.graph import from_tokens, to_hetero_data

    head = small_head(conv=CountEdges, edge_dropout=0.5, encoder_layers=0, graph_norm=None)
    data = to_hetero_data(from_tokens(head.encode(torch.randn(64, 8, 3, 2, 2)), head.grid))
    found: list[Tensor] = []
    for conv in head.layers[0].convs.convs.values():
        conv.register_forward_hook(lambda conv, given, out: found.append(out[:, 0].sum()))
    model = head.graph_model().train()
    model(data.x_dict, data.edge_index_dict, data.batch_dict)
    model.eval()
    model(data.x_dict, data.edge_index_dict, data.batch_dict)
    for some, all_edges in zip(found[:2], found[2:], strict=True):
        assert 0.4 < some / all_edges < 0.6


@pytest.mark.parametrize("value", [-0.1, 1.0, 2, "0.5"])
def test_edge_dropout_is_a_probability(value: Any) -> None:
    with pytest.raises(ValueError, match=r"edge_dropout must be at least 0 and below 1 \(got "):
        small_head(edge_dropout=value)


def test_edge_dropout_needs_an_edge_list() -> None:
    with pytest.raises(ValueError, match=r"must be 0 with engine dense \(got 0.2\)"):
        small_head(edge_dropout=0.2, engine="dense")
    conv = pyg.SAGEConv(4, 4)
    with pytest.raises(ValueError, match=r"cannot run densely: edge_dropout must be 0 \(got 0.2\)"):
        propagate(
            conv,
            torch.ones(1, 4, 4),
            Grid(2, 1, 2),
            [INTRA_FRAME],
            edge_dropout=0.2,
            engine="dense",
        )


def test_means_of_frames_do_not_stand_for_graphs_without_edges() -> None:
    """A linear head in training: its shortcut on frame means knows all edges only."""
    head = small_head(
        mode="union",
        conv=partial(pyg.APPNP, K=2, alpha=0.1),
        edge_dropout=0.5,
        graph_norm=None,
        graph_activation=None,
        graph_dropout=0.0,
        encoder_layers=0,
        graph_residual=False,
    )
    feature_map = torch.randn(2, 8, 3, 2, 2)
    whole = head(feature_map)
    assert not torch.allclose(head.train()(feature_map), whole, atol=1e-4)


@pytest.mark.parametrize("mode", ["per_relation", "union"])
def test_without_edges_an_operator_sees_each_token_alone(mode: str) -> None:
    grid = Grid(3, 2, 2)
    assert grid.edge_index("no_edges").shape == (2, 0)
    conv = pyg.TransformerConv
    head = TAGHead(8, 5, grid, encoder_layers=0, conv=conv, mode=mode, relations=["no_edges"])
    head = head.double().eval()
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    out = head.refine(x, grid)
    (layer,) = head.layers
    alone = layer.convs.conv if mode == "union" else layer.convs.convs[NO_EDGES]
    expected = x + torch.nn.functional.gelu(alone.lin_skip(layer.pre_norm(x)))
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    again = TAGHead(**head.config())
    assert again.relations == head.relations
