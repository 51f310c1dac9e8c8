"""Learned edges: the k most similar tokens, whose weights train."""

import copy
import json
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor

from taghead import Grid, TAGHead
from taghead.graph import TopKEdges, as_relation, clip_edges, from_tokens, to_hetero_data

GRID, WIDTH, K = Grid(2, 2, 3), 8, 3
SIMILAR = {"name": "similar", "class_path": "taghead.graph.TopKEdges", "init_args": {"k": K}}


def make_head(**options: Any) -> TAGHead:
    torch.manual_seed(0)
    given = {"relations": ["intra_frame", SIMILAR], "graph_layers": 2, **options}
    return TAGHead(WIDTH, 5, GRID, **given).double().eval()


def make_map(num_clips: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_clips, WIDTH, 2, 2, 3, generator=generator).double()


def test_edges_come_from_the_most_similar_tokens() -> None:
    torch.manual_seed(0)
    rule, x = TopKEdges(WIDTH, k=K).double(), torch.randn(2, 12, WIDTH).double()
    found = rule.edges_of(x, GRID)
    assert found.shape == (2, 2, 12 * K)
    for clip, edges in zip(x, found, strict=True):
        scores = rule.query(clip) @ rule.key(clip).t()
        for target in range(12):
            others = [i for i in range(12) if i != target]
            best = sorted(others, key=lambda i: -float(scores[target, i].detach()))[:K]
            assert edges[0][edges[1] == target].tolist() == sorted(best)
        weights = rule.weights(clip, edges)
        expected = (scores[edges[1], edges[0]] / 32**0.5).sigmoid()
        torch.testing.assert_close(weights, expected)
    assert rule.edges_of(x[:, :1], Grid(1, 1, 1)).shape == (2, 2, 0)


HEADS: list[tuple[Any, Any, Any]] = [
    ("per_relation", None, "none"),
    ("per_relation", pyg.GraphConv, "none"),
    ("per_relation", partial(pyg.GATv2Conv, heads=2), "relative"),
    ("union", partial(pyg.TransformerConv, heads=2), "offset"),
    ("union", pyg.GCNConv, "none"),
    ("edge_type", partial(pyg.RGATConv, heads=2), "relation"),
]


@pytest.mark.parametrize(("mode", "conv", "features"), HEADS)
def test_weights_train_in_every_mode(mode: Any, conv: Any, features: Any) -> None:
    head = make_head(mode=mode, conv=conv, edge_features=features, edge_dropout=0.2)
    for name, parameter in head.named_parameters():
        if name.endswith("l2"):  # RGATConv leaves it uninitialised
            torch.nn.init.constant_(parameter, 0.3)
    head.train()(make_map()).square().sum().backward()
    rule = head.learned_edges["similar"]
    assert rule.query.weight.grad.abs().sum() > 0
    assert rule.key.weight.grad.abs().sum() > 0
    logits = head.eval()(make_map())
    alone = torch.cat([head(clip[None]) for clip in make_map()])
    torch.testing.assert_close(alone, logits)
    data = to_hetero_data(from_tokens(head.encode(make_map()), GRID), head.relations)
    given = data.x_dict, data.edge_index_dict, data.batch_dict, data.pos_dict
    torch.testing.assert_close(head.graph_model()(*given), logits)
    again = TAGHead(**json.loads(json.dumps(head.config()))).double().eval()
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again(make_map()), logits)


def test_weights_are_pygs() -> None:
    head = make_head(relations=[SIMILAR], conv=pyg.GraphConv, graph_layers=1, graph_norm=None)
    x = head.encode(make_map(1))[0]
    rule, (conv,) = head.learned_edges["similar"], head.layers[0].convs.operators()
    edges = rule.edges_of(x[None], GRID)[0]
    expected = conv(x, edges, rule.weights(x, edges))
    layer = head.layers[0]
    torch.testing.assert_close(head.refine(x[None], GRID)[0], x + layer.activation(expected))


def test_each_head_has_its_own() -> None:
    one, other = make_head(), make_head()
    assert one.learned_edges["similar"] is not other.learned_edges["similar"]
    copied = copy.deepcopy(one)
    assert copied.relations[1].edges is copied.learned_edges["similar"]
    assert copied.layers[0].convs.relations[1].edges is copied.learned_edges["similar"]
    assert one.relations[1].to_config()["init_args"] == {"k": K}


@pytest.mark.parametrize("conv", [None, partial(pyg.GATv2Conv, heads=2, add_self_loops=False)])
def test_attention_of_one_clip(conv: Any) -> None:
    head = make_head(conv=conv, graph_layers=1)
    logits, attention = head(make_map(1), return_attention=True)
    torch.testing.assert_close(logits, head(make_map(1)))
    _, alpha = attention.as_pyg(0, "similar")
    torch.testing.assert_close(alpha.view(12, K, -1).sum(1), torch.ones_like(alpha[:12]))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"similar has learned edges, whose weights SAGEConv"):
        make_head(conv=pyg.SAGEConv)
    with pytest.raises(ValueError, match="TopKEdges cannot be built: k must be a positive"):
        make_head(relations=[{**SIMILAR, "init_args": {"k": 0}}])
    with pytest.raises(ValueError, match=r"take the relation from head\.relations"):
        clip_edges(torch.zeros(1, 12, WIDTH), GRID, as_relation(SIMILAR))
    with pytest.raises(ValueError, match="TopKEdges has no option 'depth'"):
        make_head(relations=[{**SIMILAR, "init_args": {"depth": 0}}])
