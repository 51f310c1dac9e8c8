"""Saliency, PyG's explainers, fidelity and the curves of deletion and insertion."""

from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, OPERATORS, TYPED, make_head, make_map
from torch import Tensor
from torch_geometric.explain import (
    AttentionExplainer,
    DummyExplainer,
    Explainer,
    GNNExplainer,
    PGExplainer,
)
from torch_geometric.explain.metric import fidelity as pygs_fidelity

from taghead import Grid, TAGHead
from taghead.explain import (
    areas,
    edge_curves,
    edge_saliency,
    explain_head,
    fidelity,
    graph_inputs,
    token_saliency,
)
from taghead.explain.curves import _ClipGraph
from taghead.graph import (
    INTRA_FRAME,
    PAST,
    RELATIONS,
    Relation,
    custom,
    from_tokens,
    past,
    to_hetero_data,
)

SETTINGS = [
    ("per_relation", OPERATORS["GATv2Conv"]),
    ("union", OPERATORS["GATv2Conv"]),
    ("union", OPERATORS["TransformerConv"]),
    ("edge_type", TYPED["RGATConv"]),
    ("edge_type", TYPED["HGTConv"]),
]


def wired_head() -> tuple[TAGHead, Relation]:
    """A head without parameters in its graph: a token shows what the one before it sends."""

    def ring(grid: Grid) -> Tensor:
        nodes = torch.arange(grid.num_nodes)
        return torch.stack([nodes, nodes.roll(-1)])

    relation = custom("ring", ring)
    head = make_head(
        relations=(relation,),
        conv=pyg.SimpleConv,
        mode="union",
        encoder_layers=0,
        graph_norm=None,
        graph_activation=None,
        graph_residual=False,
    )
    torch.nn.init.zeros_(head.positions.tables[0])
    head.classifier[0] = torch.nn.Identity()  # a LayerNorm would undo any factor on one message
    return head, relation


def wired_map() -> Tensor:
    """Features at one token alone, so that one edge of the ring carries all there is."""
    x = torch.zeros(1, GRID.num_nodes, 8, dtype=torch.float64)
    x[0, 3] = 40 * torch.randn(8, dtype=torch.float64)
    return from_tokens(x, GRID)


def wired_edge(relation: Relation) -> int:
    source, _ = GRID.edge_index(relation)
    (edge,) = (source == 3).nonzero().flatten()
    return int(edge)


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


EXPLAIN: dict[str, Any] = {
    "explanation_type": "model",
    "edge_mask_type": "object",
    "model_config": {
        "mode": "multiclass_classification",
        "task_level": "graph",
        "return_type": "raw",
    },
}


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
    with pytest.raises(ValueError, match="every relation, past has none on"):
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


def test_random_orders_have_the_rankings_relations_place_by_place() -> None:
    relations = [INTRA_FRAME, PAST]
    head = make_head(conv=OPERATORS["GATv2Conv"], relations=relations)
    graph = _ClipGraph(head, make_map(1), None)
    count, others = (GRID.edge_index(relation).size(1) for relation in relations)
    scores = {"intra_frame": torch.rand(count), "past": torch.rand(others) + 0.5}
    ranked = graph.concatenate(scores).argsort(descending=True, stable=True)
    drawn = graph.shuffled(ranked, torch.Generator().manual_seed(0))
    assert sorted(drawn.tolist()) == list(range(count + others))
    assert ((drawn < count) == (ranked < count)).all()
    assert not torch.equal(drawn, ranked)


@pytest.mark.parametrize("name", ["GATv2Conv", "TransformerConv"])
@pytest.mark.parametrize("loops", [False, True])
def test_scores_are_multiples_of_an_even_share(name: str, loops: bool) -> None:
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
