"""PyG's explainers on a head, and fidelity."""

import importlib.util
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, OPERATORS, TYPED, make_head, make_map
from torch_geometric.explain import (
    AttentionExplainer,
    CaptumExplainer,
    DummyExplainer,
    Explainer,
    GNNExplainer,
    PGExplainer,
)
from torch_geometric.explain.metric import fidelity as pygs_fidelity
from wired import EXPLAIN, SETTINGS, wired_head, wired_map

from taghead import Grid
from taghead.explain import (
    edge_saliency,
    explain_head,
    fidelity,
    graph_inputs,
)
from taghead.graph import (
    INTRA_FRAME,
    PAST,
    RELATIONS,
    from_tokens,
    to_hetero_data,
)


@pytest.mark.parametrize("training", [False, True])
def test_explaining_leaves_the_head_as_it_was(training: bool) -> None:
    """PyG's Explainer sets a model's parts to what the model was, shared or not."""
    head = make_head(conv=OPERATORS["GATv2Conv"]).train(training)
    explain_head(head, make_map(), AttentionExplainer())
    assert all(m.training == training for m in head.modules())
    explainer = Explainer(head.graph_model(), AttentionExplainer(), **EXPLAIN)
    inputs = graph_inputs(head, make_map())
    explainer(inputs.x, inputs.edges, **inputs.options)
    assert all(m.training == training for m in head.modules())


@pytest.mark.parametrize(("mode", "conv"), SETTINGS)
@pytest.mark.parametrize(
    "algorithm", [GNNExplainer(epochs=2), DummyExplainer(), AttentionExplainer(), PGExplainer(1)]
)
def test_pygs_explainers(mode: Any, conv: Any, algorithm: Any) -> None:
    head = make_head(conv=conv, mode=mode, dtype=torch.float32)
    feature_map = make_map(2, dtype=torch.float32)
    is_hgt = "HGT" in str(conv)
    if isinstance(algorithm, PGExplainer) and (mode == "per_relation" or is_hgt):
        with pytest.raises(ValueError, match=r"PGExplainer needs a head with one operator.*\(got"):
            explain_head(head, feature_map, algorithm)
        return
    if isinstance(algorithm, AttentionExplainer) and is_hgt:
        with pytest.raises(ValueError, match="Could not collect any attention"):
            explain_head(head, feature_map, algorithm)
        return
    found = explain_head(head, feature_map, algorithm)
    for relation in RELATIONS:
        assert found.scores[relation.name].shape == (2 * GRID.edge_index(relation).size(1),)
        assert found.scores[relation.name].isfinite().all()
    assert all(0 <= number <= 1 for number in found.fidelity)


def test_attention_explains_with_the_captured_weights() -> None:
    conv = partial(pyg.GATv2Conv, heads=1, add_self_loops=False)
    for mode in ("per_relation", "union"):
        head = make_head(conv=conv, mode=mode)
        feature_map = make_map()
        found = explain_head(head, feature_map, AttentionExplainer())
        attention = head(feature_map, return_attention=True)[1]
        for name, scores in found.scores.items():
            torch.testing.assert_close(scores, attention.weights(0, name).mean(1))


def test_a_relation_without_edges_is_named() -> None:
    head = make_head(conv=OPERATORS["GATv2Conv"], relations=[INTRA_FRAME, PAST])
    with pytest.raises(ValueError, match="every relation, past_1f has none on"):
        explain_head(head, make_map(grid=Grid(1, 2, 2)), GNNExplainer(epochs=1))


@pytest.mark.parametrize("target", [None, 1])
def test_fidelity_is_pygs(target: int | None) -> None:
    """PyG's own takes homogeneous graphs alone; there it says the same."""
    head = make_head(conv=OPERATORS["GATv2Conv"], mode="union", dtype=torch.float32)
    inputs = graph_inputs(head, make_map(6, dtype=torch.float32))
    options = {**EXPLAIN, "threshold_config": ("topk_hard", 60)}
    if target is not None:
        options["explanation_type"] = "phenomenon"
    explainer = Explainer(inputs.model, DummyExplainer(), **options)
    given = {"target": torch.full((6,), target)} if target is not None else {}
    explanation = explainer(inputs.x, inputs.edges, **inputs.options, **given)
    ours = fidelity(explainer, explanation, inputs)
    assert ours == pytest.approx(pygs_fidelity(explainer, explanation))


def test_fidelity_of_the_wired_edge() -> None:
    """The edge alone gives the same prediction, and without it there is another."""
    head, _ = wired_head()
    feature_map = wired_map()
    with torch.no_grad():
        bias = head.classifier[1].bias
        bias.zero_()
        bias[int(head(feature_map).argmin())] = 1e-3  # the class of a clip without messages
    saliency = edge_saliency(head, feature_map)["ring"].abs()

    class Known(DummyExplainer):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            explanation = super().forward(*args, **kwargs)
            explanation.edge_mask = (saliency == saliency.max()).to(saliency)
            return explanation

    assert explain_head(head, feature_map, Known()).fidelity == (1.0, 0.0)


def test_graph_inputs_are_the_head() -> None:
    for mode, conv in SETTINGS:
        head = make_head(conv=conv, mode=mode)
        feature_map = make_map()
        model, x, edges, options = graph_inputs(head, feature_map)
        torch.testing.assert_close(model(x, edges, **options), head(feature_map))
    heat = make_head(conv=TYPED["HEATConv"], mode="edge_type")
    model, x, edges, options = graph_inputs(heat, feature_map)
    torch.testing.assert_close(model(x, edges, **options), heat(feature_map))
    data = to_hetero_data(from_tokens(heat.encode(feature_map), GRID))
    logits = heat.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict, data.pos_dict)
    torch.testing.assert_close(logits, heat(feature_map))


def explainers() -> list[Any]:
    """PyG's explainers that take gradients; Captum's where it is installed."""
    found = [GNNExplainer(epochs=2)]
    if importlib.util.find_spec("captum"):
        found.append(CaptumExplainer("Saliency"))
    return found


@pytest.mark.parametrize("mode", ["per_relation", "union"])
def test_an_explainer_leaves_no_trace_in_the_next(mode: Any) -> None:
    head, feature_map = make_head(conv=OPERATORS["GATv2Conv"], mode=mode), make_map()
    first, *others = head.parameters()
    first.requires_grad_(False)
    for parameter in others:
        parameter.grad = torch.ones_like(parameter)
    before = edge_saliency(head, feature_map)
    assert all(grad.any() for grad in before.values())
    for algorithm in explainers():
        explain_head(head, feature_map, algorithm)
        for name, grad in edge_saliency(head, feature_map).items():
            torch.testing.assert_close(grad, before[name])
        assert first.grad is None
        assert not first.requires_grad
        assert all(p.requires_grad and (p.grad == 1).all() for p in others)


@pytest.mark.parametrize("mode", ["per_relation", "union"])
def test_saliency_after_an_explainer_of_pygs_own(mode: Any) -> None:
    """PyG leaves a parameter's slot for the mask, into which no other tensor can be put."""
    head, feature_map = make_head(conv=OPERATORS["GATv2Conv"], mode=mode), make_map()
    before = edge_saliency(head, feature_map)
    inputs = graph_inputs(head, feature_map)
    explainer = Explainer(inputs.model, GNNExplainer(epochs=2), **EXPLAIN)
    explainer(inputs.x, inputs.edges, **inputs.options)
    assert any("_edge_mask" in part._parameters for part in head.modules())
    for name, grad in edge_saliency(head, feature_map).items():
        torch.testing.assert_close(grad, before[name])


def traces(head: Any) -> list[Any]:
    """What an explainer could leave in a head's modules."""
    parts = list(head.modules())
    return [
        [(name, p.grad, p.requires_grad) for name, p in head.named_parameters()],
        [sorted(part._parameters) for part in parts],
        [part.training for part in parts],
        [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in parts],
        [sorted({"propagate", "explain_message"} & vars(part).keys()) for part in parts],
        [
            [vars(part).get(name) for name in ("_explain", "_edge_mask", "_loop_mask")]
            for part in parts
        ],
    ]


def sequential(in_channels: int, out_channels: int) -> Any:
    parts = [
        (pyg.GCNConv(in_channels, 4), "x, edge_index -> x"),
        torch.nn.ReLU(),
        (pyg.SAGEConv(4, out_channels), "x, edge_index -> x"),
    ]
    return pyg.Sequential("x, edge_index", parts)


def gps(in_channels: int, out_channels: int) -> Any:
    return pyg.GPSConv(in_channels, pyg.SAGEConv(in_channels, out_channels), heads=2)


@pytest.mark.parametrize(
    ("mode", "conv"),
    [
        ("edge_type", partial(pyg.RGCNConv, num_relations=2)),
        ("edge_type", partial(pyg.FastRGCNConv, num_relations=2)),
        ("edge_type", partial(pyg.FiLMConv, num_relations=2)),
        ("per_relation", gps),
        ("union", gps),
        ("per_relation", sequential),
        ("union", sequential),
    ],
)
def test_typed_operators_and_composites_twice(mode: Any, conv: Any) -> None:
    """Each explainer twice in a row, on a head in training, which stays as it was."""
    pyg.RGCNConv(8, 8, 2)  # FastRGCNConv's base is used before it
    head = make_head(conv=conv, mode=mode, dtype=torch.float32)
    feature_map = make_map(2, dtype=torch.float32)
    algorithms = [*explainers(), DummyExplainer()]
    if mode != "per_relation":
        algorithms.append(PGExplainer(1))
    expected = head(feature_map)
    before = traces(head.train())
    for algorithm in algorithms:
        for _ in range(2):
            found = explain_head(head, feature_map, algorithm)
            for scores in found.scores.values():
                assert scores.isfinite().all()
                assert scores.any()
            assert traces(head) == before
    torch.testing.assert_close(head.eval()(feature_map), expected)


def test_an_explainer_keeps_the_dense_engine() -> None:
    """PyG leaves its own `propagate` on an operator, which is no patch of the user's."""
    head, feature_map = make_head(conv=pyg.SAGEConv), make_map()
    explain_head(head, feature_map, GNNExplainer(epochs=1))
    head.engine = "dense"
    assert head(feature_map).isfinite().all()


@pytest.mark.parametrize(("conv", "name"), [(gps, "GPSConv"), (sequential, "Sequential")])
def test_attention_of_operators_without_is_refused_by_name(conv: Any, name: str) -> None:
    head = make_head(conv=conv)
    before = traces(head)
    with pytest.raises(ValueError, match=f"AttentionExplainer finds no edge mask on .* {name}"):
        explain_head(head, make_map(), AttentionExplainer())
    assert traces(head) == before
