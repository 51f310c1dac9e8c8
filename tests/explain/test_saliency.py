"""Saliency of edges and tokens."""

from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import OPERATORS, make_head, make_map
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
from taghead.graph import (
    RELATIONS,
)


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
    head = make_head(conv=partial(pyg.RGCNConv, num_relations=2), mode="edge_type")
    with pytest.raises(ValueError, match="RGCNConv: edges can be masked only where"):
        edge_saliency(head, make_map())


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
