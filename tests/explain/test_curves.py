"""The curves of deletion and insertion."""

from functools import partial

import pytest
import torch
from heads import GRID, OPERATORS, make_head, make_map
from wired import wired_edge, wired_head, wired_map

from taghead.explain import (
    areas,
    edge_curves,
)
from taghead.explain.curves import _ClipGraph
from taghead.graph import (
    INTRA_FRAME,
    PAST,
    RELATIONS,
    past,
)


def test_curves_of_a_head_that_uses_one_edge() -> None:
    head, relation = wired_head()
    feature_map = wired_map()
    count = GRID.num_nodes
    scores = torch.zeros(count)
    scores[wired_edge(relation)] = 1
    curves = edge_curves(head, feature_map, {"ring": scores}, steps=count, draws=8)
    deletion, insertion = (curves[curves.curve == c] for c in ("deletion", "insertion"))
    full, empty = deletion.ranked.iloc[0], deletion.ranked.iloc[-1]
    with torch.no_grad():
        assert full == pytest.approx(float(head(feature_map).softmax(1).max()))
    assert abs(full - empty) > 0.05
    assert deletion.ranked.tolist()[1:] == pytest.approx([empty] * count)
    assert insertion.ranked.tolist()[1:] == pytest.approx([full] * count)
    assert insertion.ranked.iloc[0] == pytest.approx(empty)
    table = areas(curves).set_index("curve")
    assert table.ranked["deletion"] < table.random["deletion"]
    assert table.ranked["insertion"] > table.random["insertion"]
    worst = edge_curves(head, feature_map, {"ring": -scores}, steps=count, draws=2)
    assert worst.ranked.tolist()[count - 1] == pytest.approx(full)  # the edge goes last
    again = edge_curves(head, feature_map, {"ring": scores}, steps=count, draws=8)
    assert again.equals(curves)


def test_random_orders_have_the_rankings_relations_at_every_index() -> None:
    relations = [INTRA_FRAME, PAST]
    head = make_head(conv=OPERATORS["GATv2Conv"], relations=relations)
    graph = _ClipGraph(head, make_map(1), None)
    count, others = (GRID.edge_index(relation).size(1) for relation in relations)
    scores = {"intra_frame": torch.rand(count), "past_1f": torch.rand(others) + 0.5}
    ranked = graph.concatenate(scores).argsort(descending=True, stable=True)
    drawn = graph.shuffled(ranked, torch.Generator().manual_seed(0))
    assert sorted(drawn.tolist()) == list(range(count + others))
    assert ((drawn < count) == (ranked < count)).all()
    assert not torch.equal(drawn, ranked)


@pytest.mark.parametrize("name", ["GATv2Conv", "TransformerConv"])
@pytest.mark.parametrize("loops", [False, True])
def test_scores_are_multiples_of_the_uniform_weight(name: str, loops: bool) -> None:
    options = {"add_self_loops": loops} if name == "GATv2Conv" else {}
    relations = [INTRA_FRAME, past(2)]
    head = make_head(conv=partial(OPERATORS[name], **options), relations=relations, graph_layers=2)
    _, attention = head(make_map(), return_attention=True)
    scores = attention.edge_scores()
    for relation in relations:
        edge_index = GRID.edge_index(relation)
        degree = edge_index[1].bincount(minlength=GRID.num_nodes) + (loops and name == "GATv2Conv")
        weight = (attention.weights(0, relation) + attention.weights(1, relation)).mean(1) / 2
        expected = weight * degree[edge_index[1]].repeat(2)
        torch.testing.assert_close(scores[relation.name], expected)


def test_curves_of_attention() -> None:
    head = make_head(conv=OPERATORS["GATv2Conv"], graph_layers=2)
    feature_map = make_map(1)
    _, attention = head(feature_map, return_attention=True)
    curves = edge_curves(head, feature_map, attention.edge_scores(), steps=3, draws=3)
    assert len(curves) == 8
    ends = curves.groupby("curve").nth([0, -1])
    assert ends.ranked.to_numpy() == pytest.approx(ends.random.to_numpy())
    assert (curves.low <= curves.high).all()


def test_curves_of_wrong_arguments() -> None:
    head = make_head()
    scores = {r.name: torch.zeros(GRID.edge_index(r).size(1)) for r in RELATIONS}
    with pytest.raises(ValueError, match=r"feature_map must hold one clip \(got 2\)"):
        edge_curves(head, make_map(2), scores)
    with pytest.raises(ValueError, match=r"time_aligned must have one for each of 16.*got none"):
        edge_curves(head, make_map(1), {"intra_frame": scores["intra_frame"]})
    with pytest.raises(ValueError, match="draws must be an integer of at least 2"):
        edge_curves(head, make_map(1), scores, draws=1)
