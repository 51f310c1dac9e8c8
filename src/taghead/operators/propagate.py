"""`propagate` runs a PyG operator on the tokens of a grid, densely or through PyG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    DeepGCNLayer,
    HANConv,
    HEATConv,
    HeteroConv,
    HGTConv,
    MessagePassing,
    Sequential,
)
from torch_geometric.utils import dropout_edge

from taghead.graph.edge_features import EdgeFeatures, EdgeFeaturesLike, differences, find_features
from taghead.graph.edge_index import (
    any_dynamic,
    batched_edges,
    disjoint_union,
    edge_offsets,
    typed_clip_edges,
)
from taghead.graph.grid import Grid
from taghead.graph.learned import LearnedEdges
from taghead.graph.relations import NODE, Relation
from taghead.operators.kernel import LINEAR, SUMS, EdgeAttr, Tokens, class_of
from taghead.operators.kernels import KERNELS, supports
from taghead.operators.neighbourhood import Neighbourhood, neighbourhood
from taghead.operators.operator import arguments_of

Engine = Literal["auto", "dense", "pyg"]
ENGINES = get_args(Engine)


def propagate(
    conv: MessagePassing,
    x: Tensor,
    grid: Grid,
    relations: Sequence[Relation],
    x_0: Tensor | None = None,
    *,
    edge_attr: Tensor | None = None,
    edge_features: EdgeFeaturesLike = "none",
    edge_dropout: float = 0.0,
    engine: Engine = "auto",
) -> Tensor:
    """Runs one operator on the union of the relations' edges, for a batch of clips.

    Args:
        conv: Any PyG operator.
        x: The tokens.
        grid: The grid of the tokens.
        relations: The relations; an edge's `edge_type` is its relation's index in this sequence.
        x_0: The input of the first layer, for operators that take it (GCN2Conv, FAConv).
        edge_attr: Edge features, one row for all edges of a relation.
        edge_features: With `offset`, the features of each edge are its source minus its target, as
            :func:`~taghead.graph.edge_features.offsets` defines them; or an
            :class:`~taghead.graph.edge_features.EdgeFeatures`.
        edge_dropout: Probability that an edge is dropped in training, as in PyG's `dropout_edge`;
            training then runs through PyG.
        engine: `dense`, tensor algebra on the grid; `pyg`, the operator's own `forward` on an edge
            list, which gets the arguments that it names; or `auto`, dense where it is supported.

    Shapes:
        - **x**, **x_0** `[B, N, C]`
        - **edge_attr** `[R, D]`, R relations
        - **output** `[B, N, C_out]`

    Raises:
        ValueError: If the operator needs an argument that a grid of tokens does not have, or
            has no dense kernel although `engine` is `dense`; or if both `edge_attr` and
            `edge_features` are given.
    """
    features = find_features(edge_features)
    if edge_attr is not None and features is not None:
        raise ValueError(f"edge_attr must be None with edge_features {edge_features}")
    if edge_attr is not None and len(edge_attr) != len(relations):
        raise ValueError(
            f"edge_attr must have one row for each of {len(relations)} relations "
            f"(got {len(edge_attr)})"
        )
    x_0 = x if x_0 is None else x_0
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {ENGINES} (got {engine!r})")
    edge_dropout = edge_dropout if conv.training else 0.0
    if engine != "pyg":
        hood, reason = None, ""
        if edge_dropout:
            reason = f"edge_dropout must be 0 (got {edge_dropout})"
        else:
            hood, reason = dense_neighbourhood(conv, grid, tuple(relations))
        if hood is not None:
            kernel = KERNELS[class_of(conv)]
            x, x_0 = x.unflatten(1, hood.shape), x_0.unflatten(1, hood.shape)
            given = _edge_attr(features, edge_attr, len(relations), x) if kernel.edge_attr else None
            tokens = Tokens(x, x_0, given)
            return kernel.run(conv, tokens, hood).flatten(1, 2)
        if engine == "dense":
            raise ValueError(f"engine dense: {conv} cannot run densely: {reason}")
    available = edge_arguments(x_0, grid, tuple(relations), features)
    if edge_attr is not None:
        available["edge_attr"] = edge_attr[available["edge_type"]]
    available = drop_edges(available, edge_dropout)
    out = run_operator(conv, x.flatten(0, 1), **available)
    return out.unflatten(0, x.shape[:2])


def _edge_attr(
    features: EdgeFeatures | None, rows: Tensor | None, num_relations: int, like: Tensor
) -> EdgeAttr | None:
    if features is not None:
        return EdgeAttr.of(features, num_relations, like)
    return None if rows is None else EdgeAttr(rows, None, like)


def edge_arguments(
    x_0: Tensor,
    grid: Grid,
    relations: tuple[Relation, ...],
    features: EdgeFeatures | None = None,
) -> dict[str, Tensor]:
    """The arguments that an operator's `forward` may take on an edge list, by name.

    Shapes:
        - **x_0** `[B, N, C]`, the input of the first layer
    """
    is_dynamic, batch = any_dynamic(relations), x_0.size(0)
    edges = batched_edges(grid, () if is_dynamic else relations, batch, x_0.device)
    if is_dynamic:
        edge_index, edge_type = typed_clip_edges(x_0, grid, relations)
        edge_index = disjoint_union(edge_index, grid.num_nodes)
        edges = edges._replace(edge_index=edge_index, edge_type=edge_type.flatten())
    available = edges._asdict() | {"x_0": x_0.flatten(0, 1)}
    if features is not None and is_dynamic:
        offset = differences(edges.pos.to(x_0.dtype), edges.edge_index)
        available["edge_attr"] = features(offset, edges.edge_type)
    elif features is not None:  # the same for all clips
        offset = edge_offsets(grid, relations, x_0.dtype, x_0.device)
        available["edge_attr"] = features(offset, edges.edge_type[: len(offset)]).repeat(batch, 1)
    return with_learned_weights(available, relations)


def with_learned_weights(
    available: dict[str, Tensor], relations: Sequence[Relation]
) -> dict[str, Tensor]:
    """Adds the weights of learned edges to an operator's arguments.

    They are `edge_weight`, and the last column of `edge_attr`; edges of other relations have 1.

    Args:
        available: The arguments; `x_0` is `[M, C]`.
        relations: The relations.
    """
    rules = [(i, relation.edges) for i, relation in enumerate(relations)]
    learned = [(i, rule) for i, rule in rules if isinstance(rule, LearnedEdges)]
    if not learned:
        return available
    x, edge_index = available["x_0"], available["edge_index"]
    weight = x.new_ones(edge_index.size(1))
    for i, rule in learned:
        index = (available["edge_type"] == i).nonzero().squeeze(1)
        of_rule = rule.weights(x, edge_index[:, index]).to(weight.dtype)
        weight = weight.index_copy(0, index, of_rule)
    column, edge_attr = weight.unsqueeze(-1), available.get("edge_attr")
    edge_attr = column if edge_attr is None else torch.cat([edge_attr, column], dim=-1)
    return available | {"edge_weight": weight, "edge_attr": edge_attr}


def drop_edges(available: dict[str, Tensor], edge_dropout: float) -> dict[str, Tensor]:
    """Drops edges at random from an operator's arguments.

    Args:
        available: The arguments; `edge_index`, `edge_type`, `edge_attr` and `edge_weight` have an
            entry per edge.
        edge_dropout: Probability that an edge is dropped.
    """
    if not edge_dropout:
        return available
    edge_index, mask = dropout_edge(available["edge_index"], edge_dropout)
    of_edges = {"edge_type", "edge_attr", "edge_weight"} & available.keys()
    return available | {"edge_index": edge_index} | {k: available[k][mask] for k in of_edges}


def attention_weights(
    conv: MessagePassing,
    x: Tensor,
    grid: Grid,
    relations: Sequence[Relation],
    *,
    edge_attr: Tensor | None = None,
    edge_features: EdgeFeaturesLike = "none",
) -> Tensor:
    """An operator's attention weights of the edges, as PyG returns them in evaluation mode.

    They are in the order of a batch of the grid's edges, sorted by target, then source; then come
    those of the self-loops that the operator adds, one for every token.

    Shapes:
        - **x** `[B, N, C]`
        - **output** `[B*E, H]`, or `[B*E + B*N, H]` with self-loops

    Raises:
        ValueError: If the operator has no attention weights, or no dense kernel.
    """
    hood, reason = dense_neighbourhood(conv, grid, tuple(relations))
    kernel = KERNELS.get(class_of(conv))
    show = kernel and (kernel.shown_attention or kernel.attention)
    if hood is None or not show:
        raise ValueError(f"{conv} shows no attention weights{': ' * bool(reason)}{reason}")
    x = x.unflatten(1, hood.shape)
    given = _edge_attr(find_features(edge_features), edge_attr, len(relations), x)
    attention = show(conv, Tokens(x, x, given), hood.framed)
    return attention.hood.in_edge_order(attention.weights)


def dense_neighbourhood(
    conv: MessagePassing, grid: Grid, relations: tuple[Relation, ...]
) -> tuple[Neighbourhood | None, str]:
    """The neighbourhood for an operator's dense kernel, or the reason why it cannot run."""
    supported, reason = supports(conv)
    if not supported:
        return None, reason
    hood = neighbourhood(grid, relations)
    if hood is None:
        names = ", ".join(relation.name for relation in relations)
        return None, f"one of the relations {names} has no dense neighbourhood"
    return hood.transposed if conv.flow == "target_to_source" else hood, ""


AFFINE = (*LINEAR, *SUMS, nn.ModuleList)


def commutes_with_means(conv: MessagePassing, grid: Grid, relations: Sequence[Relation]) -> bool:
    r"""Whether frame means of an operator's output depend on frame means of its input alone.

    A matrix :math:`A \otimes J + B \otimes I` takes frame means to frame means, by the T x T
    matrix :math:`P A + B`; so does an operator made of such matrices, linear layers and biases.
    """
    kernel = KERNELS.get(class_of(conv))
    if kernel is None or kernel.affine is None or not kernel.affine(conv):
        return False
    if any(class_of(module) not in AFFINE for module in conv.modules() if module is not conv):
        return False
    hood, _ = dense_neighbourhood(conv, grid, tuple(relations))
    return hood is not None and not hood.has_windows


def propagate_means(
    conv: MessagePassing,
    means: Tensor,
    grid: Grid,
    relations: Sequence[Relation],
    means_0: Tensor | None = None,
) -> Tensor:
    """The frame means of the output of `propagate`, from the frame means of the tokens.

    Args:
        conv: An operator that commutes with frame means.
        means: The mean over each frame of the tokens.
        grid: The grid of the tokens.
        relations: The relations.
        means_0: The frame means of the first layer's input.

    Shapes:
        - **means**, **means_0** `[B, T, C]`
        - **output** `[B, T, C_out]`

    Raises:
        ValueError: If the operator does not commute with frame means.
    """
    if not commutes_with_means(conv, grid, relations):
        raise ValueError(f"{conv} does not commute with the mean over a frame on these relations")
    hood, _ = dense_neighbourhood(conv, grid, tuple(relations))
    assert hood is not None
    means = means.unsqueeze(2)  # [B, T, 1, C]
    means_0 = means if means_0 is None else means_0.unsqueeze(2)
    tokens = Tokens(means, means_0, None)
    return KERNELS[class_of(conv)].run(conv, tokens, hood.on_means).squeeze(2)


def run_operator(conv: nn.Module, x: Tensor, **available: Tensor) -> Tensor:
    """An operator's output tokens, from those of the available arguments that its `forward` takes.

    Raises:
        ValueError: If it needs an argument that is not available.
    """
    out = call_operator(conv, x, **available)
    if isinstance(out, dict):  # of node types
        return out[NODE]
    return out[0] if isinstance(out, tuple) else out  # without attention or a graph filter


def call_operator(conv: nn.Module, x: Tensor, **available: Any) -> Any:
    """Everything that an operator returns; otherwise as `run_operator`."""
    available |= hetero_arguments(conv, x, available)
    names, required = arguments_of(conv)
    first = names[0] if isinstance(conv, Sequential) else "x"
    missing = [name for name in required if name != first and name not in available]
    if missing:
        raise ValueError(
            f"{type(conv).__name__} needs {', '.join(missing)}, which a grid of tokens does not "
            f"have; it has x, {', '.join(available)}"
        )
    given: dict[str, Any] = {name: available[name] for name in names if name in available}
    if "pos" in given:
        given["pos"] = given["pos"].to(x)
    if "x_dict" in given:
        return conv(**given)
    if isinstance(conv, Sequential):  # its first argument may have another name
        return conv(*(x if name == first else given[name] for name in names))
    if isinstance(conv, DeepGCNLayer):
        return conv(x, **given)
    return conv(x=x, **given)


def edge_types_of(conv: nn.Module) -> list[tuple[str, str, str]] | None:
    """The edge types of an operator that takes them by name; `None` for all others."""
    if isinstance(conv, HGTConv):
        return conv.edge_types
    if isinstance(conv, HANConv):
        return conv.metadata[1]
    return list(conv.convs.keys()) if isinstance(conv, HeteroConv) else None


def hetero_arguments(conv: nn.Module, x: Tensor, available: dict[str, Any]) -> dict[str, Any]:
    """Arguments of heterogeneous operators, built from the available ones.

    HGTConv, HANConv and HeteroConv take dictionaries; the i-th relation is their i-th edge type, in
    which order an :class:`Operator` builds them. HEATConv takes node types, all 0 here, and as edge
    features the source minus the target in (t, y, x).

    Raises:
        ValueError: If the operator has too few edge types.
    """
    edge_index, edge_type = available.get("edge_index"), available.get("edge_type")
    keys = edge_types_of(conv)
    if keys is not None and edge_index is not None and edge_type is not None:
        num_types = int(edge_type.max()) + 1 if edge_type.numel() else 0
        if num_types > len(keys):
            name = type(conv).__name__
            option = "convs" if name == "HeteroConv" else "metadata"
            raise ValueError(
                f"{name}: {option} must have an edge type for each relation, {num_types} "
                f"(got {len(keys)})"
            )
        edges = {key: edge_index[:, edge_type == i] for i, key in enumerate(keys)}
        return {"x_dict": {NODE: x}, "edge_index_dict": edges}
    if isinstance(conv, HEATConv):
        extra: dict[str, Any] = {"node_type": x.new_zeros(x.size(0), dtype=torch.long)}
        if "edge_attr" not in available and "pos" in available:
            source, target = available["edge_index"]
            extra["edge_attr"] = (available["pos"][source] - available["pos"][target]).to(x)
        return extra
    return {}
