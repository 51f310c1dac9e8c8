"""Dynamic edges: computed from each clip's features."""

import copy
import json
import pickle
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.explain import AttentionExplainer

from taghead import Grid, TAGHead
from taghead.explain import edge_curves, edge_saliency, explain_head
from taghead.graph import (
    INTRA_FRAME,
    TIME_ALIGNED,
    DynamicEdges,
    Relation,
    as_relation,
    as_relations,
    from_tokens,
    motion_aligned,
    repeat_edges,
    to_data,
    to_hetero_data,
    to_tokens,
)
from taghead.graph.edge_index import clip_edges, typed_clip_edges
from taghead.operators import offsets, propagate

GRID = Grid(4, 3, 4)
MOTION = motion_aligned()
WIDTH = 8


def shifting(step: tuple[int, int], grid: Grid = GRID, num_clips: int = 2) -> Tensor:
    """A picture that moves by so many rows and columns a frame, `[B, C, T, H, W]`.

    It is large enough for what comes in at a border to be new, as under camera motion.
    """
    t, h, w = grid.frames, grid.height, grid.width
    rows, columns = (abs(s) * (t - 1) for s in step)
    picture = torch.randn(num_clips, WIDTH, h + rows, w + columns, dtype=torch.float64)
    frames = []
    for i in range(t):
        y, x = ((-s * i) % (abs(s) * (t - 1) + 1) if s > 0 else -s * i for s in step)
        y = (t - 1 - i) * step[0] if step[0] > 0 else y
        x = (t - 1 - i) * step[1] if step[1] > 0 else x
        frames.append(picture[:, :, y : y + h, x : x + w])
    return torch.stack(frames, dim=2)


def matches_by_hand(x: Tensor, grid: Grid, radius: int) -> list[list[int]]:
    """The edges of one clip, token by token; ties are left to none."""
    places, unit = grid.positions().tolist(), x / x.norm(dim=1, keepdim=True)
    edges = []
    for target, (t, row, column) in enumerate(places):
        for frame in (t - 1, t + 1):
            near = [
                node
                for node, (u, y, z) in enumerate(places)
                if u == frame and abs(y - row) <= radius and abs(z - column) <= radius
            ]
            if near:
                best = max(near, key=lambda node: float(unit[node] @ unit[target]))
                edges.append([best, target])
    return edges


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (0, -1), (-1, 1), (1, 1)])
def test_edges_follow_a_picture_that_moves(step: tuple[int, int]) -> None:
    feature_map = shifting(step)
    edges = clip_edges(to_tokens(feature_map), GRID, MOTION)
    places = GRID.positions()
    count = 0
    for clip in edges:
        for source, target in clip.t().tolist():
            t, y, x = places[target].tolist()
            sign = int(places[source][0]) - t
            there = (t + sign, y + sign * step[0], x + sign * step[1])
            if 0 <= there[1] < GRID.height and 0 <= there[2] < GRID.width:
                assert tuple(places[source].tolist()) == there
                count += 1
    inside = (GRID.height - abs(step[0])) * (GRID.width - abs(step[1]))
    assert count == 2 * 2 * (GRID.frames - 1) * inside


def test_a_window_bounds_how_far_they_follow() -> None:
    feature_map = shifting((0, 2))
    x, places = to_tokens(feature_map), GRID.positions()
    near, far = (clip_edges(x, GRID, motion_aligned(radius)) for radius in (1, 2))
    for edges, radius in ((near, 1), (far, 2)):
        way = (places[edges[:, 0]] - places[edges[:, 1]]).abs()
        assert (way[..., 0] == 1).all()
        assert way[..., 1:].max() == radius
    assert not torch.equal(near, far)


@pytest.mark.parametrize("size", [(4, 3, 4), (1, 2, 2), (2, 1, 1), (3, 1, 5), (2, 4, 1)])
@pytest.mark.parametrize("radius", [1, 2, 9])
def test_edges_are_those_of_the_definition(size: Any, radius: int) -> None:
    grid = Grid(*size)
    x = torch.randn(3, grid.num_nodes, WIDTH, dtype=torch.float64)
    edges = clip_edges(x, grid, motion_aligned(radius))
    assert edges.dtype == torch.long
    for clip, found in zip(x, edges, strict=True):
        assert found.t().tolist() == matches_by_hand(clip, grid, radius)
    order = edges[:, 1] * grid.num_nodes + edges[:, 0]
    assert (order.diff(dim=1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("radius", [1, 9])
def test_a_still_clip_has_the_edges_of_time_aligned(dtype: torch.dtype, radius: int) -> None:
    still = torch.randn(3, 64, 1, 3, 4).expand(-1, -1, 4, -1, -1)
    alike = torch.randn(3, 64, 1, 1, 1).expand(-1, -1, 4, 3, 4)
    for feature_map in (still, alike, torch.zeros(3, 64, 4, 3, 4)):
        edges = clip_edges(to_tokens(feature_map.to(dtype)), GRID, motion_aligned(radius))
        for found in edges:
            assert torch.equal(found, GRID.edge_index(TIME_ALIGNED))


def test_of_equal_matches_the_nearest_is_taken() -> None:
    """Row 0 of the first frame is new, and the other two rows alike."""
    one, other = torch.eye(2)
    first = torch.stack([other, one, one])
    second = torch.stack([one, one, one])
    edges = clip_edges(torch.stack([first, second]).view(1, 6, 2), Grid(2, 3, 1), MOTION)
    before = edges[0, 0, edges[0, 1] >= 3]
    assert before.tolist() == [1, 1, 2]  # for rows 0, 1 and 2 of the second frame


def test_mixed_precision_does_not_blur_the_choice() -> None:
    x = torch.randn(2, GRID.num_nodes, 64)
    edges = clip_edges(x, GRID, motion_aligned(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(clip_edges(x, GRID, motion_aligned(2)), edges)


def test_typed_edges_are_the_grids_where_they_are_fixed() -> None:
    x = torch.randn(2, GRID.num_nodes, WIDTH)
    relations = (INTRA_FRAME, TIME_ALIGNED)
    edge_index, edge_type = typed_clip_edges(x, GRID, relations)
    for wanted, found in zip(GRID.typed_edges(relations), (edge_index, edge_type), strict=True):
        assert torch.equal(found, wanted.expand_as(found))


@pytest.mark.parametrize("shape", [(3, 5, 3, 3, 2), (1, 4, 2, 2, 2), (2, 3, 1, 2, 2)])
def test_graphs_are_batched_as_pyg_does(shape: Any) -> None:
    feature_map, relations = torch.randn(shape), (INTRA_FRAME, MOTION)
    grid = Grid(*shape[2:])
    plain, typed = [], []
    for x in to_tokens(feature_map):
        edges = [grid.edge_index(INTRA_FRAME), clip_edges(x[None], grid, MOTION)[0]]
        graph = HeteroData()
        graph["token"].x, graph["token"].pos = x, grid.positions().to(x)
        graph[tuple(INTRA_FRAME)].edge_index, graph[tuple(MOTION)].edge_index = edges
        typed.append(graph)
        joined = torch.cat(edges, dim=1)
        types = torch.tensor([0, 1]).repeat_interleave(torch.tensor([e.size(1) for e in edges]))
        order = ((joined[1] * grid.num_nodes + joined[0]) * 2 + types).argsort()
        data = Data(x=x, edge_index=joined[:, order], pos=graph["token"].pos)
        data.edge_type = types[order]
        plain.append(data)
    for build, graphs in ((to_data, plain), (to_hetero_data, typed)):
        batch, expected = build(feature_map, relations), Batch.from_data_list(graphs)
        assert_equal(batch.to_dict(), expected.to_dict())
        assert_equal(batch._slice_dict, expected._slice_dict)
        assert_equal(batch._inc_dict, expected._inc_dict)
        for one, other in zip(batch.to_data_list(), graphs, strict=True):
            assert_equal(one.to_dict(), other.to_dict())


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


# In a head

HEADS = [
    ("per_relation", partial(pyg.GATv2Conv, heads=2), "none"),
    ("per_relation", partial(pyg.TransformerConv, heads=2), "offset"),
    ("per_relation", pyg.SAGEConv, "none"),
    ("union", partial(pyg.GATv2Conv, heads=2), "offset"),
    ("union", partial(pyg.APPNP, K=2, alpha=0.1), "none"),
    ("edge_type", partial(pyg.RGCNConv, num_relations=2), "none"),
]


def make_head(**options: Any) -> TAGHead:
    defaults = {
        "relations": ("intra_frame", "motion_1p"),
        "encoder_heads": 2,
        "encoder_channels": 16,
        "encoder_layers": 1,
        "graph_layers": 2,
        "positions_std": 0.1,
    }
    return TAGHead(WIDTH, 5, GRID, **{**defaults, **options}).double().eval()


def make_map(num_clips: int = 2) -> Tensor:
    return torch.randn(num_clips, WIDTH, 4, 3, 4, dtype=torch.float64)


@pytest.mark.parametrize("relations", [(MOTION,), (INTRA_FRAME, MOTION), (MOTION, TIME_ALIGNED)])
@pytest.mark.parametrize("conv", [partial(pyg.GATv2Conv, heads=2, edge_dim=4), pyg.SAGEConv])
def test_operators_run_on_the_edges_of_each_clip(conv: Any, relations: Any) -> None:
    """PyG is the oracle, on a list of graphs; the edges are those of x_0."""
    operator = conv(WIDTH, WIDTH).double().eval()
    x, x_0 = torch.randn(2, 3, GRID.num_nodes, WIDTH, dtype=torch.float64)
    graphs = []
    for one, first in zip(x, x_0, strict=True):
        edges = torch.cat([clip_edges(first[None], GRID, r)[0] for r in relations], dim=1)
        features = offsets(GRID.positions().double(), edges)
        graphs.append(Data(x=one, edge_index=edges, edge_attr=features))
    data = Batch.from_data_list(graphs)
    with_features = isinstance(operator, pyg.GATv2Conv)
    expected = operator(data.x, data.edge_index, *[data.edge_attr][: int(with_features)])
    out = propagate(
        operator, x, GRID, relations, x_0, edge_features="offset" if with_features else "none"
    )
    torch.testing.assert_close(out.flatten(0, 1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("mode", "conv", "edge_features"), HEADS)
def test_a_batch_is_its_clips(mode: Any, conv: Any, edge_features: Any) -> None:
    head = make_head(mode=mode, conv=conv, edge_features=edge_features)
    feature_map = make_map(3)
    alone = torch.cat([head(clip[None]) for clip in feature_map])
    torch.testing.assert_close(head(feature_map), alone)


@pytest.mark.parametrize(("mode", "conv", "edge_features"), HEADS)
def test_the_graph_model_on_the_tokens_own_edges(mode: Any, conv: Any, edge_features: Any) -> None:
    head = make_head(mode=mode, conv=conv, edge_features=edge_features)
    feature_map = make_map()
    data = to_hetero_data(from_tokens(head.encode(feature_map), GRID), head.relations)
    logits = head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict, data.pos_dict)
    torch.testing.assert_close(logits, head(feature_map))


def test_gradients_flow_through_messages_and_not_through_the_choice() -> None:
    conv = pyg.SAGEConv(WIDTH, WIDTH).double()
    x = torch.randn(1, GRID.num_nodes, WIDTH, dtype=torch.float64, requires_grad=True)
    x_0 = x.detach().clone().requires_grad_()
    propagate(conv, x, GRID, [MOTION], x_0).sum().backward()
    assert x.grad.abs().sum() > 0
    assert x_0.grad is None
    edges = repeat_edges(clip_edges(x, GRID, MOTION)[0], 1, GRID.num_nodes)
    found, x.grad = x.grad, None
    conv(x[0], edges).sum().backward()
    torch.testing.assert_close(found, x.grad)


def test_training_reaches_every_parameter() -> None:
    head = make_head(edge_dropout=0.3, edge_features="offset").train()
    head(make_map()).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_camera_may_move() -> None:
    """On a picture that moves as a whole, every edge joins tokens of the same features."""
    feature_map = shifting((0, 1), Grid(3, 2, 4), 1)
    x = to_tokens(feature_map)
    edges = clip_edges(x, Grid(3, 2, 4), MOTION)[0]
    aligned = Grid(3, 2, 4).edge_index(TIME_ALIGNED)

    def share(edges: Tensor) -> float:
        source, target = x[0][edges]
        return float((source == target).all(1).double().mean())

    assert share(edges) == 0.75  # but for the columns that have left, or come in
    assert share(aligned) == 0.0


# What a grid alone cannot say, and what is asked of a head


def test_a_grid_alone_has_no_such_edges() -> None:
    message = r"MotionEdges\(radius=1\) has no edges on a grid alone.*clip_edges"
    with pytest.raises(ValueError, match=message):
        GRID.edge_index("motion_1p")
    with pytest.raises(ValueError, match=message):
        GRID.typed_edges([INTRA_FRAME, MOTION])
    with pytest.raises(ValueError, match="motion_1p has no dense neighbourhood"):
        make_head(engine="dense")(make_map())


@pytest.mark.parametrize(("mode", "conv", "edge_features"), [HEADS[0], HEADS[1], HEADS[3]])
def test_attention_of_one_clip(mode: Any, conv: Any, edge_features: Any) -> None:
    head = make_head(mode=mode, conv=conv, edge_features=edge_features, graph_layers=1)
    feature_map = make_map(1)
    logits, attention = head(feature_map, return_attention=True)
    torch.testing.assert_close(logits, head(feature_map))
    edges = clip_edges(head.encode(feature_map), GRID, MOTION)[0]
    assert torch.equal(attention.edge_index(0, "motion_1p"), edges)
    weights = attention.weights(0, "motion_1p")
    assert weights.shape == (edges.size(1), 2)
    assert len(attention.strongest(5, relation="motion_1p")) == 5
    torch.testing.assert_close(attention.rollout().sum(), torch.tensor(1.0).double())
    if mode == "per_relation" and edge_features == "offset":  # no self-loops: a softmax of two
        sums = torch.zeros(GRID.num_nodes, 2).double().index_add(0, edges[1], weights)
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_attention_of_several_clips_is_refused() -> None:
    message = r"edges of motion_1p differ from clip to clip: give one .*\(got 2\)"
    with pytest.raises(ValueError, match=message):
        make_head()(make_map(2), return_attention=True)


@pytest.mark.parametrize("mode", ["per_relation", "union"])
def test_explanations(mode: Any) -> None:
    head = make_head(mode=mode, edge_features="offset")
    feature_map = make_map(1)
    found = explain_head(head, feature_map, AttentionExplainer())
    assert set(found.scores) == {"intra_frame", "motion_1p"}
    saliency = edge_saliency(head, feature_map)
    curves = edge_curves(head, feature_map, saliency, steps=2, draws=2)
    whole = head(feature_map).softmax(1).max()
    torch.testing.assert_close(torch.tensor(curves.ranked[0]).double(), whole.detach())


def test_motion_in_the_config() -> None:
    relations = ["intra_frame", motion_aligned(), motion_aligned(12)]
    head = make_head(relations=relations)
    config = json.loads(json.dumps({**head.config(), "conv": None}))
    wanted = ["intra_frame", "motion_1p", "motion_12p"]
    assert config["relations"] == wanted
    again = TAGHead(**config).double().eval()
    again.load_state_dict(head.state_dict())
    feature_map = make_map()
    assert torch.equal(again(feature_map), head(feature_map))


@pytest.mark.parametrize("radius", [1, 2, 11])
def test_relations_are_written_and_read(radius: int) -> None:
    relation = motion_aligned(radius)
    for form in (f"motion_aligned(radius={radius})", tuple(relation), relation.name):
        assert as_relation(form) == relation
    for twin in (pickle.loads(pickle.dumps(relation)), copy.deepcopy(relation)):
        assert (twin, twin.to_config()) == (relation, relation.name)
    assert as_relations([TIME_ALIGNED, relation, "past"])[1].is_dynamic
    with pytest.raises(ValueError, match="radius must be a positive integer"):
        motion_aligned(0)


def test_a_rule_of_ones_own() -> None:
    """Any rule of features is a relation."""

    class Strongest(DynamicEdges):
        """From the token of the largest norm to all others of the clip."""

        def edges_of(self, x: Tensor, grid: Grid) -> Tensor:
            source = x.norm(dim=-1).argmax(1, keepdim=True).expand(-1, grid.num_nodes)
            return torch.stack([source, torch.arange(grid.num_nodes).expand_as(source)], dim=1)

    head = make_head(relations=(Relation("strongest", Strongest()), "intra_frame"))
    feature_map = make_map()
    torch.testing.assert_close(head(feature_map)[:1], head(feature_map[:1]))
