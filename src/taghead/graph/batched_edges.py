"""The edge list of a batch of equal grids, built once and cached."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from taghead.graph.convert import repeat_edges
from taghead.graph.edge_features import offsets
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation

R = TypeVar("R")


class BatchedEdges(NamedTuple):
    """The edges of a batch of equal grids, with what else an operator may ask for."""

    edge_index: Tensor  # [2, B*E], sorted by target, then source
    edge_type: Tensor  # [B*E]
    pos: Tensor  # [B*N, 3], (t, y, x)
    batch: Tensor  # [B*N]


def can_cache(device: torch.device) -> bool:
    """Whether a new tensor holds numbers: in a trace or under a fake mode it does not."""
    return not torch.compiler.is_compiling() and type(torch.empty(0, device=device)) is Tensor


def cached(function: Callable[..., R]) -> Callable[..., R]:
    """Caches tensors that a function makes of sizes and, as its last argument, a device.

    A cached tensor must not come from inference mode either: no backward pass could use it.
    """
    once = lru_cache(maxsize=32)(function)

    @wraps(function)
    def wrapper(*args: Any) -> R:
        if not can_cache(args[-1]):
            return function(*args)
        with torch.inference_mode(False):
            return once(*args)

    return wrapper


@cached
def batched_edges(
    grid: Grid, relations: tuple[Relation, ...], batch_size: int, device: torch.device
) -> BatchedEdges:
    """The edges of a batch of grids.

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


@cached
def batched_offsets(
    grid: Grid,
    relations: tuple[Relation, ...],
    batch_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The offsets of the same edges, `[B*E, 4]`."""
    edge_index, _ = grid.typed_edges(relations)
    return offsets(grid.positions().to(dtype), edge_index).repeat(batch_size, 1).to(device)
