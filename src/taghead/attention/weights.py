"""Attention weights of one operator, from its dense kernel or from PyG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import AGNNConv, HEATConv, HGTConv, MessagePassing, SuperGATConv
from torch_geometric.utils import softmax

from taghead import operators
from taghead.graph.edge_features import find_features
from taghead.graph.edge_index import any_dynamic, typed_clip_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.operators.kernels import KERNELS
from taghead.operators.operator import forward_arguments
from taghead.operators.propagate import call_operator, dense_neighbourhood, edge_arguments


class EdgeWeights(NamedTuple):
    """One operator's attention weights on a batch of clips that have the same edges.

    Shapes:
        - **edge_index** `[2, E]`, of one clip, sorted by target, then source
        - **edge_type** `[E]`, the index of each edge's relation
        - **alpha** `[B, E, heads]`
        - **loops** `[B, N, heads]`, the weights of the self-loops that the operator adds, if any
    """

    edge_index: Tensor
    edge_type: Tensor
    alpha: Tensor
    loops: Tensor | None


def shows_weights(conv: MessagePassing) -> bool:
    """Whether an operator has attention weights."""
    names, _ = forward_arguments(conv.__class__)
    return "return_attention_weights" in names or isinstance(conv, tuple(OF_MESSAGES))


def check_attentive(conv: MessagePassing) -> None:
    """Checks that an operator has attention weights.

    Raises:
        ValueError: If it has none, or its `forward` does not return them; the message names it,
            and PyG's operators that have some.
    """
    if shows_weights(conv):
        return
    base = next((cls for cls in ATTENTIVE if isinstance(conv, cls)), None)
    if base is not None:
        raise ValueError(
            f"return_attention: {type(conv).__name__}.forward takes no return_attention_weights, "
            f"as that of {base.__name__} does: its attention weights cannot be read"
        )
    names = ", ".join(cls.__name__ for cls in ATTENTIVE)
    raise ValueError(
        f"return_attention: {type(conv).__name__} has no attention weights; operators that "
        f"have are {names}"
    )


def edge_weights(
    conv: MessagePassing,
    x: Tensor,
    grid: Grid,
    relations: Sequence[Relation],
    x_0: Tensor | None = None,
    engine: operators.Engine = "auto",
    edge_features: operators.EdgeFeaturesLike = "none",
) -> EdgeWeights:
    """An operator's attention weights on the union of the relations' edges, without dropout.

    They are those of PyG's `return_attention_weights=True` in evaluation mode, also while training:
    GATConv and GATv2Conv would return them after dropout, TransformerConv before. Where PyG returns
    none (SuperGATConv, AGNNConv, HGTConv, HEATConv), they are the softmax that multiplies its
    messages. Those of FAConv are between -1 and 1.

    Args:
        conv: An attentive operator.
        x: The tokens.
        grid: The grid of the tokens.
        relations: The relations.
        x_0: The input of the first layer; `x` if not given.
        engine: As in `operators.propagate`.
        edge_features: As in `operators.propagate`.

    Shapes:
        - **x**, **x_0** `[B, N, C]`

    Raises:
        ValueError: If the operator has no attention weights; or if there are several clips and
            their edges are computed from their features.
    """
    check_attentive(conv)
    relations = tuple(relations)
    x_0 = x if x_0 is None else x_0
    edge_index, edge_type = _shared_edges(x_0, grid, relations)
    with in_evaluation(conv):
        kernel = KERNELS.get(type(conv))
        is_dense = (
            engine != "pyg"
            and kernel is not None
            and kernel.attention is not None
            and dense_neighbourhood(conv, grid, relations)[0] is not None
        )
        if is_dense:
            listed = operators.attention_weights(
                conv, x, grid, relations, edge_features=edge_features
            )
        else:
            available = edge_arguments(x_0, grid, relations, find_features(edge_features))
            listed = _through_pyg(conv, x, available)
    if getattr(conv, "add_self_loops", False):
        is_edge = edge_index[0] != edge_index[1]  # its own self-loops replace the relations'
        edge_index, edge_type = edge_index[:, is_edge], edge_type[is_edge]
    num_clips, num_edges = x.size(0), edge_index.size(1)
    edges, loops = listed.split([num_clips * num_edges, len(listed) - num_clips * num_edges])
    return EdgeWeights(
        edge_index,
        edge_type,
        edges.unflatten(0, (num_clips, num_edges)),
        loops.unflatten(0, x.shape[:2]) if len(loops) else None,
    )


def _shared_edges(
    x_0: Tensor, grid: Grid, relations: tuple[Relation, ...]
) -> tuple[Tensor, Tensor]:
    """The edges, which must be the same for all clips, `[2, E]`, and their types `[E]`."""
    if not any_dynamic(relations):
        edge_index, edge_type = grid.typed_edges(relations)
        return edge_index.to(x_0.device), edge_type.to(x_0.device)
    if len(x_0) != 1:
        names = ", ".join(relation.name for relation in relations if relation.is_dynamic)
        raise ValueError(
            f"return_attention: edges of {names} differ from clip to clip: give one clip at a time "
            f"(got {len(x_0)})"
        )
    edge_index, edge_type = typed_clip_edges(x_0, grid, relations)
    return edge_index[0], edge_type[0]


@contextmanager
def in_evaluation(module: nn.Module) -> Iterator[None]:
    """Sets a module to evaluation mode within a context; restores the mode of each submodule."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _through_pyg(conv: MessagePassing, x: Tensor, available: dict[str, Tensor]) -> Tensor:
    """The weights in PyG's order, `[B*E, heads]`, added self-loops at the end."""
    if "return_attention_weights" in forward_arguments(conv.__class__)[0]:
        out = call_operator(conv, x.flatten(0, 1), return_attention_weights=True, **available)
        weights = out[1][1]
    else:
        weights = _of_messages(conv, lambda: call_operator(conv, x.flatten(0, 1), **available))
    weights = weights.unsqueeze(-1) if weights.dim() == 1 else weights.flatten(1)
    if isinstance(conv, HGTConv):  # its weights are ordered by relation
        return torch.empty_like(weights).index_copy(
            0, available["edge_type"].argsort(stable=True), weights
        )
    return weights


WeightsOfMessages = Callable[[Any, dict[str, Any]], Tensor]
"""Computes an operator's weights from the arguments of its `message`."""


def _softmax(scores: Tensor, given: dict[str, Any]) -> Tensor:
    return softmax(scores, given["index"], given["ptr"], given["size_i"])


def _agnn(conv: AGNNConv, given: dict[str, Any]) -> Tensor:
    return _softmax(conv.beta * (given["x_norm_i"] * given["x_norm_j"]).sum(-1), given)


def _super_gat(conv: SuperGATConv, given: dict[str, Any]) -> Tensor:
    return conv.get_attention(given["edge_index_i"], given["x_i"], given["x_j"], given["size_i"])


def _hgt(conv: HGTConv, given: dict[str, Any]) -> Tensor:
    scores = (given["q_i"] * given["k_j"]).sum(-1) * given["edge_attr"]
    return _softmax(scores / math.sqrt(given["q_i"].size(-1)), given)


def _heat(conv: HEATConv, given: dict[str, Any]) -> Tensor:
    slope = conv.negative_slope
    edge_attr = nn.functional.leaky_relu(conv.edge_attr_emb(given["edge_attr"]), slope)
    features = [given["x_i"], given["x_j"], given["edge_type_emb"], edge_attr]
    scores = conv.att(torch.cat(features, dim=-1))
    return _softmax(nn.functional.leaky_relu(scores, slope), given)


OF_MESSAGES: dict[type[MessagePassing], WeightsOfMessages] = {
    AGNNConv: _agnn,
    SuperGATConv: _super_gat,
    HGTConv: _hgt,
    HEATConv: _heat,
}
"""The weights of operators that do not return them, by their own formulas."""

ATTENTIVE = tuple(
    dict.fromkeys([*(cls for cls, kernel in KERNELS.items() if kernel.attention), *OF_MESSAGES])
)
"""PyG's operators that have attention weights."""


def _of_messages(conv: MessagePassing, forward: Callable[[], Any]) -> Tensor:
    weights_of = next(f for cls, f in OF_MESSAGES.items() if isinstance(conv, cls))
    found: list[Tensor] = []
    handle = conv.register_message_forward_hook(
        lambda conv, arguments, out: found.append(weights_of(conv, arguments[0]))
    )
    try:
        forward()
    finally:
        handle.remove()
    return found[0]
