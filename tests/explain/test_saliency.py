"""Saliency of edges and tokens."""

from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, OPERATORS, make_head, make_map
from torch_geometric.explain import (
    DummyExplainer,
    Explainer,
)
from wired import EXPLAIN, SETTINGS, wired_edge, wired_head, wired_map

from taghead.explain import (
    edge_saliency,
    graph_inputs,
    token_saliency,
)
from taghead.explain.saliency import edge_masks
from taghead.graph import RELATIONS, from_tokens, to_hetero_data


@pytest.mark.parametrize(("mode", "conv"), SETTINGS)
def test_edge_saliency_is_the_change_of_the_logit(mode: Any, conv: Any) -> None:
    """Against finite differences, through PyG's own masks on the messages."""
    head = make_head(conv=conv, mode=mode, graph_layers=2)
    feature_map = make_map(2)
    found = edge_saliency(head, feature_map, target=torch.tensor([1, 3]))
    inputs = graph_inputs(head, feature_map)
    explainer = Explainer(inputs.model, DummyExplainer(), **EXPLAIN)
    step = 1e-5
    for relation, edge in ((RELATIONS[0], 5), (RELATIONS[1], 20)):
        logits = []
        for change in (step, -step):
            masks = {r: torch.ones_like(found[r.name]) for r in RELATIONS}
            masks[relation][edge] += change
            given: Any = {tuple(r): m for r, m in masks.items()}
            if mode != "per_relation":
                given = torch.cat(list(masks.values()))
            with torch.no_grad():
                out = explainer.get_masked_prediction(
                    inputs.x, inputs.edges, None, given, **inputs.options
                )
            logits.append(out[0, 1] + out[1, 3])
        slope = (logits[0] - logits[1]) / (2 * step)
        torch.testing.assert_close(found[relation.name][edge], slope, rtol=1e-4, atol=1e-8)


def test_saliency_leaves_the_head_as_it_was() -> None:
    head = make_head(conv=OPERATORS["GATv2Conv"]).train()
    edge_saliency(head, make_map())
    token_saliency(head, make_map())
    assert all(m.training for m in head.modules())
    assert all(p.grad is None for p in head.parameters())
    operators = [m for m in head.modules() if isinstance(m, pyg.MessagePassing)]
    assert all(m.explain is None and m._edge_mask is None for m in operators)


def test_edges_of_an_operator_that_sends_no_single_messages() -> None:
    head = make_head(conv=pyg.ClusterGCNConv, mode="union")
    head.layers[0].convs.conv.register_message_forward_hook(lambda conv, args, out: out[:-1])
    with pytest.raises(ValueError, match="ClusterGCNConv: edges can be masked only where"):
        edge_saliency(head, make_map())


@pytest.mark.parametrize("conv", [pyg.RGCNConv, pyg.FastRGCNConv, pyg.FiLMConv])
def test_a_mask_of_zeros_and_ones_leaves_edges_out(conv: Any) -> None:
    """Of operators that send the messages of one relation after another, and of a subclass."""
    pyg.RGCNConv(8, 8, 2)  # FastRGCNConv's base is used before it
    head = make_head(conv=partial(conv, num_relations=2, aggr="sum"), mode="edge_type")
    graphs = to_hetero_data(from_tokens(head.encode(make_map()), GRID))
    model, token = head.graph_model(), graphs["token"]
    edges: Any = {r: graphs[r].edge_index for r in head.relations}
    masks: Any = {r: (torch.rand(e.size(1)) < 0.5).double() for r, e in edges.items()}
    for _ in range(2):
        with edge_masks(model, masks, edges):
            masked = model({"token": token.x}, edges, {"token": token.batch})
        fewer: Any = {r: e[:, masks[r] > 0] for r, e in edges.items()}
        expected = model({"token": token.x}, fewer, {"token": token.batch})
        torch.testing.assert_close(masked, expected)
    full = model({"token": token.x}, edges, {"token": token.batch})
    assert not torch.allclose(full, masked)


def test_saliency_of_both_rgcns_is_the_same() -> None:
    """PyG's two implementations of one operator, with the same parameters."""
    slow, fast = (
        make_head(conv=partial(conv, num_relations=2), mode="edge_type")
        for conv in (pyg.RGCNConv, pyg.FastRGCNConv)
    )
    fast.load_state_dict(slow.state_dict())
    feature_map = make_map()
    expected = edge_saliency(slow, feature_map)
    for name, found in edge_saliency(fast, feature_map).items():
        assert found.any()
        torch.testing.assert_close(found, expected[name])


def test_token_saliency() -> None:
    head = make_head(conv=OPERATORS["GATv2Conv"])
    feature_map = make_map(2)
    found = token_saliency(head, feature_map, target=2)
    assert found.shape == (2, 3, 2, 2)
    step = 1e-6
    t, y, x = 1, 0, 1
    moved = [feature_map.clone() for _ in range(2)]
    moved[0][:, :, t, y, x] *= 1 + step
    moved[1][:, :, t, y, x] *= 1 - step
    with torch.no_grad():
        slope = (head(moved[0]) - head(moved[1]))[:, 2] / (2 * step)
    torch.testing.assert_close(found[:, t, y, x], slope, rtol=1e-4, atol=1e-7)
    best = head(feature_map).argmax(1)
    torch.testing.assert_close(
        token_saliency(head, feature_map), token_saliency(head, feature_map, best)
    )


def test_only_the_wired_edge_is_salient() -> None:
    head, relation = wired_head()
    saliency = edge_saliency(head, wired_map(), target=0)["ring"]
    edge = wired_edge(relation)
    assert saliency[edge].abs() > 1e-3
    saliency[edge] = 0
    assert saliency.abs().max() < 1e-12


@pytest.mark.parametrize("target", [9, -1, torch.tensor([0, 1, 2])])
def test_wrong_targets(target: Any) -> None:
    with pytest.raises(ValueError, match="target must be a class below 5"):
        token_saliency(make_head(), make_map(), target)
