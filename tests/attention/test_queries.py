"""Queries against plain loops over the edges."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from heads import GRID, OPERATORS, make_head, make_map

from taghead import Grid
from taghead.attention import EdgeAttention
from taghead.graph import RELATIONS, past, spatial_window


def attention_of(num_clips: int = 2, grid: Grid = GRID, **options: Any) -> EdgeAttention:
    defaults: dict[str, Any] = {"conv": OPERATORS["GATv2Conv"]}
    head = make_head(grid, **{**defaults, **options})
    return head(make_map(num_clips, grid), return_attention=True)[1]


def has_others(attention: EdgeAttention, layer: int, relation: Any) -> torch.Tensor:
    return attention.layer(layer).shares_softmax(relation, GRID.num_nodes)


@pytest.mark.parametrize("mode", ["per_relation", "union"])
def test_the_strongest_edges(mode: Any) -> None:
    attention = attention_of(mode=mode, graph_layers=2).detach()
    table = attention.strongest(30, clip=1)
    assert len(table) == 30
    assert table.weight.is_monotonic_decreasing
    every = torch.cat(
        [
            attention.weighted_edges(i, r).alpha[1, has_others(attention, i, r)].mean(1)
            for i in range(2)
            for r in RELATIONS
        ]
    )
    expected = every.detach().sort(descending=True).values[:30]
    torch.testing.assert_close(torch.tensor(table.weight.to_numpy()), expected)
    row = table.iloc[7]
    source, target, alpha = attention.weighted_edges(row.layer, row.relation)
    (edge,) = ((source == row.source) & (target == row.target)).nonzero().flatten()
    assert float(alpha[1, edge].mean()) == pytest.approx(row.weight)
    place = GRID.positions()[row.source].tolist()
    assert [row.source_t, row.source_y, row.source_x] == place
    in_time = attention.strongest(3, layer=-1, relation="time_aligned")
    assert set(in_time.relation) == {"time_aligned"}
    assert set(in_time.layer) == {1}
    of_head = attention.strongest(5, layer=1, head=1)
    assert set(of_head.layer) == {1}
    best = max(
        float(attention.weighted_edges(1, r).alpha[0, has_others(attention, 1, r), 1].max())
        for r in RELATIONS
    )
    assert of_head.weight[0] == pytest.approx(best)


def test_edges_without_an_alternative_are_not_the_strongest() -> None:
    conv = OPERATORS["TransformerConv"]
    table = attention_of(conv=conv).strongest(100, relation="time_aligned")
    assert len(table) == 2 * GRID.num_positions
    assert set(table.target_t) == {1}
    assert len(attention_of(conv=conv, mode="union").strongest(100, relation="time_aligned")) == 16


@pytest.mark.parametrize("mode", ["per_relation", "union"])
@pytest.mark.parametrize("loops", [True, False])
def test_incoming_edges_of_a_token(mode: Any, loops: bool) -> None:
    conv = partial(OPERATORS["GATv2Conv"], add_self_loops=loops)
    attention = attention_of(mode=mode, conv=conv)
    table = attention.incoming((1, 0, 1), clip=1)
    assert table.equals(attention.incoming(5, clip=1))
    assert set(table.target) == {5}
    own = table[table.relation == "self_loop"]
    assert len(own) == (loops * (2 if mode == "per_relation" else 1))
    assert (own.source == 5).all()
    others = table[table.relation != "self_loop"]
    assert sorted(others.source) == [1, 4, 6, 7, 9]
    assert table.weight.sum() == pytest.approx(2 if mode == "per_relation" else 1)


def test_the_flow_along_relations() -> None:
    head = make_head(conv=OPERATORS["GATv2Conv"], graph_norm=None)
    convs = head.layers[0].convs.convs
    feature_map = make_map()
    for part in (convs[RELATIONS[1]].lin_l.weight, convs[RELATIONS[1]].lin_l.bias):
        torch.nn.init.zeros_(part)
    flow = head(feature_map, return_attention=True)[1].flow()
    assert flow.share.tolist() == pytest.approx([1, 0])
    union = attention_of(mode="union", conv=partial(OPERATORS["GATv2Conv"], add_self_loops=True))
    flow = union.flow()
    assert flow.relation.tolist() == ["intra_frame", "time_aligned", "self_loop"]
    assert flow.share.sum() == pytest.approx(1)
    weights = union.weights(0, "intra_frame").sum() / (2 * 2 * GRID.num_nodes)
    assert flow.share[0] == pytest.approx(float(weights))


def test_a_tokens_own_transform_is_no_flow() -> None:
    """TransformerConv has a root weight; frame 0 has no past, a single frame neither."""
    conv = OPERATORS["TransformerConv"]
    head = make_head(conv=conv, relations=["intra_frame", "past_1f", "no_edges"])
    _, attention = head(make_map(), return_attention=True)
    flow = attention.flow().set_index("relation").share
    assert flow.sum() == pytest.approx(1)
    assert flow["no_edges"] == 0
    past = attention.layers[0].operators[1].update_norm.unflatten(1, (GRID.frames, -1))
    assert (past[:, 0] == 0).all()
    assert (past[:, 1:] > 0).all()
    alone = make_head(conv=conv, relations=["no_edges"])
    _, attention = alone(make_map(), return_attention=True)
    assert attention.flow().share.tolist() == [0]


@pytest.mark.parametrize("mode", ["per_relation", "union"])
def test_entropy(mode: Any) -> None:
    attention = attention_of(mode=mode)
    weights, _ = attention.dense(0, "intra_frame")
    expected = torch.zeros(2, GRID.frames)
    for b in range(2):
        for t in range(GRID.frames):
            found = []
            for rows in weights[b, :, t].flatten(0, 1):
                share = [float(w / rows.sum()) for w in rows if w > 0]
                found.append(-sum(s * math.log(s) for s in share) / math.log(3))
            expected[b, t] = sum(found) / len(found)
    found = attention.entropy(0, "intra_frame")
    torch.testing.assert_close(found.float(), expected)
    in_time = attention.entropy(0, "time_aligned")
    assert in_time[:, [0, 2]].isnan().all()  # one neighbour leaves no choice
    assert ((in_time[:, 1] > 0) & (in_time[:, 1] <= 1)).all()


def test_entropy_of_even_and_of_single_weights() -> None:
    head = make_head(conv=OPERATORS["TransformerConv"])
    conv = head.layers[0].convs.convs[RELATIONS[0]]
    for parameter in conv.lin_query.parameters():
        torch.nn.init.zeros_(parameter)
    attention = head(make_map(), return_attention=True)[1]
    torch.testing.assert_close(
        attention.entropy(0, "intra_frame"), torch.ones(2, 3, dtype=torch.float64)
    )
    torch.nn.init.constant_(conv.lin_query.bias, 1e4)
    sharp = head(make_map(), return_attention=True)[1]
    assert sharp.entropy(0, "intra_frame").max() < 0.01


def test_change_along_time() -> None:
    attention = attention_of()
    weights, _ = attention.dense(0, "intra_frame")
    change = attention.change_along_time(0, "intra_frame")
    for b in range(2):
        for t in range(2):
            differences = (weights[b, :, t + 1] - weights[b, :, t]).abs().sum(-1) / 2
            assert float(change[b, t]) == pytest.approx(float(differences.mean()))
    longer = attention_of(grid=Grid(5, 2, 2)).change_along_time(0, "time_aligned")
    assert longer.isnan().tolist() == [[True, False, False, True]] * 2
    still = make_head(conv=OPERATORS["GATv2Conv"], encoder_layers=0)
    torch.nn.init.zeros_(still.positions.tables[0])
    frame = make_map()[:, :, :1].expand(-1, -1, 3, -1, -1)
    attention = still(frame, return_attention=True)[1]
    assert attention.change_along_time(0, "intra_frame").abs().max() < 1e-12


@pytest.mark.parametrize("through", ["all", "transformer", "graph"])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"mode": "union"},
        {"conv": partial(OPERATORS["GATv2Conv"], add_self_loops=True)},
        {"conv": OPERATORS["FAConv"]},
        {"relations": (past(2), spatial_window(1))},
        {"conv": partial(OPERATORS["GATv2Conv"], flow="target_to_source"), "relations": (past(),)},
    ],
    ids=str,
)
def test_rollout_is_a_product_of_matrices(options: Any, residual: bool, through: Any) -> None:
    attention = attention_of(
        **options, graph_layers=2, encoder_layers=2, graph_residual=residual, readout="attention"
    ).detach()
    size = GRID.num_nodes
    for b in range(2):
        product = torch.eye(size, dtype=torch.float64)
        if through != "graph":
            for layer in attention.transformer[b]:
                product = (layer.mean(0) + torch.eye(size)) / 2 @ product
        if through != "transformer":
            for i in range(2):
                matrix = torch.zeros(size, size, dtype=torch.float64)
                for relation in attention.relations:
                    source, target, alpha = attention.weighted_edges(i, relation)
                    for s, t, a in zip(source, target, alpha[b].abs().mean(1), strict=True):
                        matrix[t, s] += a
                own = {
                    id(o): o.edges.loops[b]
                    for o in attention.layers[i].operators
                    if o.edges.loops is not None
                }
                for loops in own.values():
                    matrix += loops.abs().mean(1).diag()
                alone = matrix.sum(1) == 0
                matrix[alone] = torch.eye(size, dtype=torch.float64)[alone]
                matrix /= matrix.sum(1, keepdim=True)
                product = ((matrix + torch.eye(size)) / 2 if residual else matrix) @ product
        expected = (attention.readout[b] @ product).view(3, 2, 2)
        torch.testing.assert_close(attention.rollout(through)[b], expected)
        assert float(expected.sum()) == pytest.approx(1)


def test_questions_that_have_no_answer() -> None:
    attention = attention_of()
    with pytest.raises(ValueError, match=r"token must be a node or \(t, y, x\).*got 12"):
        attention.incoming(12)
    with pytest.raises(ValueError, match=r"token must be .*got \(0, 2, 0\)"):
        attention.incoming((0, 2, 0))
    with pytest.raises(ValueError, match="clip must be from 0 to 1"):
        attention.strongest(clip=2)
    with pytest.raises(ValueError, match="head must be from 0 to 1"):
        attention.strongest(head=2)
    with pytest.raises(ValueError, match="k must be a positive integer"):
        attention.strongest(0)
    with pytest.raises(ValueError, match="through must be one of all, transformer, graph"):
        attention.rollout("readout")  # type: ignore[arg-type]
