"""The graph part of a head as a PyG model."""

from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, MODES, OTHERS, small_head
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer

from taghead.graph import RELATIONS, from_tokens, to_hetero_data
from taghead.nn.readout import READOUTS

EXPLAIN_LOGITS: dict[str, Any] = {
    "explanation_type": "model",
    "edge_mask_type": "object",
    "model_config": {
        "mode": "multiclass_classification",
        "task_level": "graph",
        "return_type": "raw",
    },
}


@pytest.mark.parametrize(("mode", "conv"), MODES)
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_graph_model_is_what_follows_the_transformer(
    mode: Any, conv: Any, readout: Any, norm: Any
) -> None:
    head = small_head(
        mode=mode, conv=conv, readout=readout, encoder_norm=norm, graph_norm=norm, graph_layers=2
    )
    feature_map = torch.randn(3, 8, 3, 2, 2)
    data = to_hetero_data(from_tokens(head.encode(feature_map), GRID), head.relations)
    model = head.graph_model()
    logits = model(data.x_dict, data.edge_index_dict, data.batch_dict, data.pos_dict)
    torch.testing.assert_close(logits, head(feature_map))
    one = data[1]
    alone = model(one.x_dict, one.edge_index_dict, pos_dict=one.pos_dict)
    torch.testing.assert_close(alone, logits[1:2])
    own = {id(p) for p in head.parameters()}
    assert all(id(p) in own for p in model.parameters())


def test_pygs_explainers_take_the_graph_model_as_it_is() -> None:
    head = small_head(graph_layers=2)
    tokens = head.encode(torch.randn(2, 8, 3, 2, 2)).detach()
    data = to_hetero_data(from_tokens(tokens, GRID), head.relations)
    explainer = Explainer(head.graph_model(), AttentionExplainer(), **EXPLAIN_LOGITS)
    explanation = explainer(data.x_dict, data.edge_index_dict, batch_dict=data.batch_dict)
    for relation, edge_index in data.edge_index_dict.items():
        mask = explanation[relation].edge_mask
        assert mask.shape == (edge_index.size(1),)
        assert ((mask > 0) & (mask <= 1)).all()
    learned = Explainer(head.graph_model(), GNNExplainer(epochs=2), **EXPLAIN_LOGITS)(
        data.x_dict, data.edge_index_dict, batch_dict=data.batch_dict
    )
    assert set(learned.edge_mask_dict) == set(data.edge_types)


@pytest.mark.parametrize("relations", [RELATIONS, OTHERS], ids=["paper", "others"])
@pytest.mark.parametrize("num_clips", [1, 2])
def test_attention_explains_with_the_operators_own_weights(relations: Any, num_clips: int) -> None:
    conv = partial(pyg.GATv2Conv, heads=1, add_self_loops=False)
    head = small_head(conv=conv, relations=relations, graph_norm=None)
    tokens = head.encode(torch.randn(num_clips, 8, 3, 2, 2))
    data = to_hetero_data(from_tokens(tokens, GRID).detach(), head.relations)
    explainer = Explainer(head.graph_model(), AttentionExplainer(), **EXPLAIN_LOGITS)
    explanation = explainer(data.x_dict, data.edge_index_dict, batch_dict=data.batch_dict)
    for relation, edge_index in data.edge_index_dict.items():
        operator = head.layers[0].convs.convs[relation]
        _, (_, alpha) = operator(data["token"].x, edge_index, return_attention_weights=True)
        torch.testing.assert_close(explanation[relation].edge_mask, alpha.flatten())


def test_frame_mean_max_needs_to_know_the_frames() -> None:
    head = small_head(readout="frame_mean_max")
    feature_map = torch.randn(2, 8, 3, 2, 2)
    data = to_hetero_data(from_tokens(head.encode(feature_map), GRID), head.relations)
    logits = head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict)
    torch.testing.assert_close(logits, head(feature_map))  # on its own grid
    data = to_hetero_data(torch.randn(2, 8, 2, 2, 2), head.relations)
    with pytest.raises(ValueError, match=r"needs pos_dict.* do not have the 12 tokens"):
        head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict)


def test_the_graph_model_names_a_relation_that_is_missing() -> None:
    data = to_hetero_data(torch.randn(2, 8, 3, 2, 2))
    found = r"must have the head's relation 'past_3f' \(got intra_frame, time_aligned"
    with pytest.raises(ValueError, match=found):
        small_head().graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict)
