"""Running a PyG operator on the tokens of a grid."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from taghead.graph import repeat_edges
from taghead.grid import Grid, Relation


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
) -> Tensor:
    """Runs one operator on the union of the given relations, for a batch of clips.

    Args:
        conv: Any PyG operator. Its `forward` gets the arguments that it names.
        x: The tokens.
        grid: The grid that they lie on.
        relations: The edge sets; an edge's `edge_type` is its place here.
        x_0: What went into the first layer, for operators that ask for it (GCN2Conv, FAConv).

    Shapes:
        - **x**, **x_0** `[B, N, C]`
        - **output** `[B, N, C_out]`

    Raises:
        ValueError: If the operator needs an argument that a grid of tokens does not have.
    """
    batch_size, num_nodes, _ = x.shape
    edges = batched_edges(grid, tuple(relations), batch_size, x.device)
    x_0 = x if x_0 is None else x_0
    out = run(conv, x.flatten(0, 1), x_0=x_0.flatten(0, 1), **edges._asdict())
    return out.unflatten(0, (batch_size, num_nodes))


def run(conv: MessagePassing, x: Tensor, **available: Tensor) -> Tensor:
    """Calls an operator with those of the available arguments that its `forward` names.

    Raises:
        ValueError: If it needs another one.
    """
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
    out = conv(x=x, **given)
    return out[0] if isinstance(out, tuple) else out  # some add their attention or a graph filter


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


@lru_cache(maxsize=32)
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
