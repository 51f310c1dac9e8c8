"""PyG's explainer algorithms, applied to a head, and the fidelity of their explanations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.explain import Explainer, Explanation, HeteroExplanation, PGExplainer
from torch_geometric.explain.algorithm import ExplainerAlgorithm
from torch_geometric.nn import HGTConv

from taghead.attention.weights import in_evaluation
from taghead.explain.edge_masks import maskable
from taghead.explain.saliency import Target, target_classes
from taghead.graph.convert import from_tokens, grid_of, to_hetero_data
from taghead.nn.graph_model import EdgeListModel, GraphModel

if TYPE_CHECKING:
    from taghead.nn.head import TAGHead


class GraphInputs(NamedTuple):
    """A head's graph model and its arguments for a batch of clips.

    Args:
        model: `GraphModel` for a head with an operator for each relation, `EdgeListModel` for a
            head with one operator for all, so that PyG's edge masks reach the operators.
        x: The tokens; in a dictionary by node type for `GraphModel`.
        edges: The edges; in a dictionary by edge type for `GraphModel`.
        options: The model's other arguments.
    """

    model: GraphModel | EdgeListModel
    x: Any
    edges: Any
    options: dict[str, Any]


class HeadExplanation(NamedTuple):
    """Edge scores of an explainer algorithm, their fidelity and PyG's own explanation.

    Args:
        scores: A score for every edge, by the relation's name, `[B*E]`.
        fidelity: Fidelity+, how often the prediction changes without the explanation (high is
            good), and fidelity-, how often it changes with the explanation alone (low is good).
        explanation: PyG's own object.
    """

    scores: dict[str, Tensor]
    fidelity: tuple[float, float]
    explanation: Explanation | HeteroExplanation


@torch.no_grad()
def graph_inputs(head: TAGHead, feature_map: Tensor) -> GraphInputs:
    """A model of a head and its arguments, as PyG's `Explainer` takes them.

    Args:
        head: The head.
        feature_map: A backbone's output, `[B, C, T, H, W]`.
    """
    with in_evaluation(head):
        tokens = head.encode(feature_map)
    graphs = to_hetero_data(from_tokens(tokens, grid_of(feature_map)), head.relations)
    x, batch, pos = (graphs["token"][name] for name in ("x", "batch", "pos"))
    edges = {tuple(r): graphs[r].edge_index for r in head.relations}
    if not _has_shared_operator(head):
        named: dict[str, Any] = {"batch_dict": {"token": batch}, "pos_dict": {"token": pos}}
        return GraphInputs(head.graph_model(), {"token": x}, edges, named)
    types = [e.new_full((e.size(1),), i) for i, e in enumerate(edges.values())]
    options = {"edge_type": torch.cat(types), "batch": batch, "pos": pos}
    model = EdgeListModel(head.graph_model(), head.relations)
    return GraphInputs(model, x, torch.cat(list(edges.values()), dim=1), options)


def explain_head(
    head: TAGHead,
    feature_map: Tensor,
    algorithm: ExplainerAlgorithm,
    target: Target = None,
    **options: Any,
) -> HeadExplanation:
    """Scores of a head's edges from one of PyG's explainer algorithms.

    The head is left as it was: its parameters' gradients too, which an explainer fills. A
    `PGExplainer` is trained on these clips first. It works only on heads with one operator for
    all relations (modes `union` and `edge_type`), and not with HGTConv.

    Args:
        head: The head.
        feature_map: A backbone's output.
        algorithm: `GNNExplainer()`, `AttentionExplainer()`, `PGExplainer(epochs=...)` or another.
        target: The class, one for all clips or one for each; the predicted one if not given.
        options: Further arguments of PyG's `Explainer`, such as `threshold_config`.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`

    Raises:
        ValueError: If the algorithm does not work on the head, or a relation has no edges on the
            grid; or PyG's own, if it finds nothing.
    """
    inputs = graph_inputs(head, feature_map)
    model, x, edges, given = inputs
    by_relation = edges if isinstance(edges, dict) else {("", "the graph", ""): edges}
    for (_, name, _), edge_index in by_relation.items():
        if not edge_index.size(1):
            raise ValueError(
                f"relations: PyG's explainers need edges of every relation, {name} has none on "
                f"{grid_of(feature_map)}"
            )
    is_learned = isinstance(algorithm, PGExplainer)
    has_hgt = any(isinstance(part, HGTConv) for part in head.layers.modules())
    if is_learned and (has_hgt or not _has_shared_operator(head)):
        raise ValueError(
            f"algorithm: PyG's PGExplainer needs a head with one operator for all relations, mode "
            f"union or edge_type, and not HGTConv (got {head.operator} with "
            f"{'one' if _has_shared_operator(head) else 'one for each'})"
        )
    has_target = target is not None or is_learned
    defaults: dict[str, Any] = {
        "explanation_type": "phenomenon" if has_target else "model",
        "edge_mask_type": "object",
        "model_config": {
            "mode": "multiclass_classification",
            "task_level": "graph",
            "return_type": "raw",
        },
    }
    with in_evaluation(head), _as_it_was(head):
        model.eval()  # the explainer restores this mode
        explainer = Explainer(model, algorithm, **{**defaults, **options})
        if has_target:
            with torch.no_grad():
                given["target"] = target_classes(model(x, edges, **given), target)
        if is_learned:
            for epoch in range(algorithm.epochs):
                algorithm.train(epoch, model, x, edges, **given)
        explanation = explainer(x, edges, **given)
        if "edge_mask" not in explanation.available_explanations:
            raise ValueError(
                f"algorithm: {type(algorithm).__name__} finds no edge mask on a head of "
                f"{_operator_names(head)}; AttentionExplainer needs operators with attention "
                f"weights, GNNExplainer takes others"
            )
        given.pop("target", None)
        return HeadExplanation(
            _scores(head, explanation, given),
            fidelity(explainer, explanation, inputs),
            explanation,
        )


@contextmanager
def _as_it_was(head: TAGHead) -> Iterator[None]:
    """Gives a head its parameters' gradients and flags back, and takes masks off."""
    before = [(p, p.grad, p.requires_grad) for p in head.parameters()]
    for parameter, _, _ in before:
        parameter.grad = None  # an explainer adds to it
    try:
        with maskable(head):
            yield
    finally:
        for parameter, grad, requires_grad in before:
            parameter.grad = grad
            parameter.requires_grad_(requires_grad)


@torch.no_grad()
def fidelity(
    explainer: Explainer, explanation: Explanation | HeteroExplanation, inputs: GraphInputs
) -> tuple[float, float]:
    r"""Fidelity+ and fidelity-: how much predictions depend on an explanation.

    Follows `GraphFramEx: Towards Systematic Evaluation of Explainability Methods for Graph Neural
    Networks <https://arxiv.org/abs/2206.09677>`_. PyG's own `fidelity` computes the same, but takes
    no heterogeneous graphs.

    Args:
        explainer: The explainer.
        explanation: Its explanation.
        inputs: The model and its arguments.
    """
    _, x, edges, options = inputs
    masks = _masks(explanation)

    def classes(mask: Any) -> Tensor:
        out = explainer.get_masked_prediction(x, edges, None, mask, **options)
        return explainer.get_target(out)

    if isinstance(masks, dict):
        rest: Any = {key: 1 - mask for key, mask in masks.items()}
    else:
        rest = 1 - masks
    alone, without, truth = classes(masks), classes(rest), explanation.target
    if explainer.explanation_type.value == "model":
        return float((without != truth).float().mean()), float((alone != truth).float().mean())
    full = explainer.get_target(explainer.get_prediction(x, edges, **options)) == truth
    changes = [full.float() - (found == truth).float() for found in (without, alone)]
    return float(changes[0].abs().mean()), float(changes[1].abs().mean())


def _has_shared_operator(head: TAGHead) -> bool:
    return bool(len(head.layers)) and head.layers[0].convs.convs is None  # type: ignore[union-attr]


def _operator_names(head: TAGHead) -> str:
    """The classes of a head's operators."""
    found = [conv for layer in head.layers for conv in layer.convs.operators()]  # type: ignore[union-attr, operator]
    return ", ".join(dict.fromkeys(type(conv).__name__ for conv in found)) or "no operator"


def _masks(explanation: Explanation | HeteroExplanation) -> Any:
    if isinstance(explanation, HeteroExplanation):
        return dict(explanation.edge_mask_dict)
    return explanation.edge_mask


def _scores(head: TAGHead, explanation: Any, options: dict[str, Any]) -> dict[str, Tensor]:
    masks = _masks(explanation)
    if isinstance(masks, dict):
        return {relation.name: masks[tuple(relation)] for relation in head.relations}
    types = options["edge_type"]
    return {relation.name: masks[types == i] for i, relation in enumerate(head.relations)}
