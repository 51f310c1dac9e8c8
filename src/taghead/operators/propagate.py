"""Running a PyG operator on the tokens of a grid."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import dropout_edge

from taghead.graph.convert import repeat_edges
from taghead.graph.edge_index import any_dynamic, batch_edges, typed_clip_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import NODE, Relation
from taghead.operators.constants import keep
from taghead.operators.kernel import Tokens, class_of
from taghead.operators.neighbourhood import Neighbourhood, neighbourhood
from taghead.operators.offsets import EdgeFeatures, offsets
from taghead.operators.registry import KERNELS, supports
from taghead.operators.typed_inputs import typed_inputs

Engine = Literal["auto", "dense", "pyg"]


class BatchedEdges(NamedTuple):
    """The edges of a batch of equal grids, with what else an operator may ask for."""

    edge_index: Tensor  # [2, B*E], sorted by target, then source
    edge_type: Tensor  # [B*E]
    pos: Tensor  # [B*N, 3], (t, y, x)
    batch: Tensor  # [B*N]


def propagate(
    conv: MessagePassing,
    x: Tensor,
    grid: Grid,
    relations: Sequence[Relation],
    x_0: Tensor | None = None,
    *,
    edge_attr: Tensor | None = None,
    edge_features: EdgeFeatures = "none",
    edge_dropout: float = 0.0,
    engine: Engine = "auto",
) -> Tensor:
    """Runs one operator on the union of the given relations, for a batch of clips.

    Args:
        conv: Any PyG operator.
        x: The tokens.
        grid: The grid that they lie on.
        relations: The edge sets; an edge's `edge_type` is its place here.
        x_0: What went into the first layer, for operators that ask for it (GCN2Conv, FAConv).
        edge_attr: Edge features, one row for all edges of a relation.
        edge_features: `offset` gives each edge the way from its target to its source, four numbers
            as :func:`~taghead.operators.offsets.offsets` has them. It runs through PyG.
        edge_dropout: Probability that an edge leaves the graph, as in PyG's `dropout_edge`, while
            the operator is training. Then it runs through PyG.
        engine: `dense`, tensor algebra on the grid; `pyg`, the operator's own `forward` on an edge
            list, which gets the arguments that it names; or `auto`, dense where it is supported.

    Shapes:
        - **x**, **x_0** `[B, N, C]`
        - **edge_attr** `[R, D]`, R relations
        - **output** `[B, N, C_out]`

    Raises:
        ValueError: If the operator needs an argument that a grid of tokens does not have, or has
            no dense way and `dense` was asked for; or if edges would have features twice.
    """
    if edge_attr is not None and edge_features != "none":
        raise ValueError(f"edge_attr must be None with edge_features {edge_features}")
    if edge_attr is not None and len(edge_attr) != len(relations):
        raise ValueError(
            f"edge_attr must have one row for each of {len(relations)} relations "
            f"(got {len(edge_attr)})"
        )
    x_0 = x if x_0 is None else x_0
    if engine not in get_args(Engine):
        raise ValueError(f"engine must be one of {get_args(Engine)} (got {engine!r})")
    edge_dropout = edge_dropout if conv.training else 0.0
    if engine != "pyg":
        hood, reason = None, _needs_edge_list(edge_features, edge_dropout)
        if not reason:
            hood, reason = dense_way(conv, grid, tuple(relations))
        if hood is not None:
            return _run_densely(conv, hood, x, x_0, edge_attr)
        if engine == "dense":
            raise ValueError(f"engine dense: {conv} has no dense way: {reason}")
    available = edge_arguments(x_0, grid, tuple(relations), edge_features)
    if edge_attr is not None:
        available["edge_attr"] = edge_attr[available["edge_type"]]
    available = without_some(available, edge_dropout)
    out = run(conv, x.flatten(0, 1), **available)
    return out.unflatten(0, x.shape[:2])


def edge_arguments(
    x_0: Tensor, grid: Grid, relations: tuple[Relation, ...], edge_features: EdgeFeatures = "none"
) -> dict[str, Tensor]:
    """What an operator may ask for on an edge list, by name.

    Shapes:
        - **x_0** `[B, N, C]`, what went into the first layer
    """
    arguments = (x_0.size(0), x_0.device)
    follows = any_dynamic(relations)
    edges = batched_edges(grid, () if follows else relations, *arguments)
    if follows:
        edge_index, edge_type = typed_clip_edges(x_0, grid, relations)
        edges = edges._replace(
            edge_index=batch_edges(edge_index, grid.num_nodes), edge_type=edge_type.flatten()
        )
    available = edges._asdict() | {"x_0": x_0.flatten(0, 1)}
    if edge_features == "offset" and follows:
        available["edge_attr"] = offsets(edges.pos.to(x_0.dtype), edges.edge_index)
    elif edge_features == "offset":
        available["edge_attr"] = batched_offsets(
            grid, relations, x_0.size(0), x_0.dtype, x_0.device
        )
    return available


def _needs_edge_list(edge_features: EdgeFeatures, edge_dropout: float) -> str:
    """Why edges must be a list whatever the operator; empty if they need not."""
    if edge_dropout:
        return f"edge_dropout must be 0 (got {edge_dropout})"
    return "" if edge_features == "none" else f"edge_features must be none (got {edge_features})"


def without_some(available: dict[str, Tensor], edge_dropout: float) -> dict[str, Tensor]:
    """An operator's arguments without those edges that leave the graph at random.

    Args:
        available: The arguments; of those named `edge_...`, each edge has its part.
        edge_dropout: Probability that an edge leaves.
    """
    if not edge_dropout:
        return available
    edge_index, kept = dropout_edge(available["edge_index"], edge_dropout)
    of_edges = {"edge_type", "edge_attr"} & available.keys()
    return available | {"edge_index": edge_index} | {k: available[k][kept] for k in of_edges}


def attention_weights(
    conv: MessagePassing,
    x: Tensor,
    grid: Grid,
    relations: Sequence[Relation],
    *,
    edge_attr: Tensor | None = None,
) -> Tensor:
    """The weights that an attentive operator gives to the edges, as PyG shows them in evaluation.

    They come in the order of a batch of the grid's edges, sorted by target, then source; those of
    the self-loops that an operator adds follow, one for every token.

    Shapes:
        - **x** `[B, N, C]`
        - **output** `[B*E, H]`, or `[B*E + B*N, H]` with self-loops

    Raises:
        ValueError: If the operator has no attention weights, or no dense way.
    """
    hood, reason = dense_way(conv, grid, tuple(relations))
    kernel = KERNELS.get(class_of(conv))
    show = kernel and (kernel.shown or kernel.attention)
    if hood is None or not show:
        raise ValueError(f"{conv} shows no attention weights{': ' * bool(reason)}{reason}")
    x = x.unflatten(1, (hood.frames, hood.positions))
    attention = show(conv, Tokens(x, x, edge_attr), hood.framed)
    return attention.hood.in_edge_order(attention.weights)


def dense_way(
    conv: MessagePassing, grid: Grid, relations: tuple[Relation, ...]
) -> tuple[Neighbourhood | None, str]:
    """The neighbourhood to run an operator on, or the reason why there is none."""
    supported, reason = supports(conv)
    if not supported:
        return None, reason
    hood = neighbourhood(grid, relations)
    if hood is None:
        names = ", ".join(relation.name for relation in relations)
        return None, f"one of the relations {names} has no dense neighbourhood"
    return hood.transposed if conv.flow == "target_to_source" else hood, ""


def _run_densely(
    conv: MessagePassing, hood: Neighbourhood, x: Tensor, x_0: Tensor, edge_attr: Tensor | None
) -> Tensor:
    kernel, size = KERNELS[class_of(conv)], (hood.frames, hood.positions)
    if not kernel.edge_attr:
        edge_attr = None
    tokens = Tokens(x.unflatten(1, size), x_0.unflatten(1, size), edge_attr)
    return kernel.run(conv, tokens, hood).flatten(1, 2)


def run(conv: MessagePassing, x: Tensor, **available: Tensor) -> Tensor:
    """Calls an operator with those of the available arguments that its `forward` names.

    Raises:
        ValueError: If it needs another one.
    """
    out = call(conv, x, **available)
    if isinstance(out, dict):  # of node types
        return out[NODE]
    return out[0] if isinstance(out, tuple) else out  # some add their attention or a graph filter


def call(conv: MessagePassing, x: Tensor, **available: Any) -> Any:
    """What an operator returns, whatever that is; as `run` else."""
    available |= typed_inputs(conv, x, available)
    names, required = forward_arguments(conv.__class__)
    missing = [name for name in required if name != "x" and name not in available]
    if missing:
        raise ValueError(
            f"{type(conv).__name__} needs {', '.join(missing)}, which a grid of tokens does not "
            f"have; it has x, {', '.join(available)}"
        )
    given: dict[str, Any] = {name: available[name] for name in names if name in available}
    if "pos" in given:
        given["pos"] = given["pos"].to(x)
    return conv(**given) if "x_dict" in given else conv(x=x, **given)


@cache
def forward_arguments(cls: type[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of an operator's forward arguments: all, and those without a default."""
    parameters = [
        parameter
        for parameter in list(inspect.signature(cls.forward).parameters.values())[1:]
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    required = tuple(p.name for p in parameters if p.default is p.empty)
    return tuple(p.name for p in parameters), required


@keep(maxsize=32)
def batched_edges(
    grid: Grid, relations: tuple[Relation, ...], batch_size: int, device: torch.device
) -> BatchedEdges:
    """The edges of a batch of grids, built once and kept.

    Shapes:
        - **edge_index** `[2, B*E]`, **edge_type** `[B*E]`, **pos** `[B*N, 3]`, **batch** `[B*N]`
    """
    edge_index, edge_type = grid.typed_edges(relations)
    return BatchedEdges(
        edge_index=repeat_edges(edge_index, batch_size, grid.num_nodes).to(device),
        edge_type=edge_type.repeat(batch_size).to(device),
        pos=grid.positions().repeat(batch_size, 1).to(device),
        batch=torch.arange(batch_size).repeat_interleave(grid.num_nodes).to(device),
    )


@keep(maxsize=32)
def batched_offsets(
    grid: Grid,
    relations: tuple[Relation, ...],
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The offsets of the same edges, built once and kept: `[B*E, 4]`."""
    edge_index, _ = grid.typed_edges(relations)
    return offsets(grid.positions().to(dtype), edge_index).repeat(batch_size, 1).to(device)
