"""Edge indices of a batch of clips, for fixed relations (cached) and for dynamic ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from taghead.graph.cache import CACHE, can_cache
from taghead.graph.edge_features import differences
from taghead.graph.edges import DynamicEdges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation, RelationLike, as_relation

R = TypeVar("R")


def any_dynamic(relations: Iterable[RelationLike]) -> bool:
    """Whether one of the relations has edges that are computed from each clip's features."""
    return any(as_relation(relation).is_dynamic for relation in relations)


def clip_edges(x: Tensor, grid: Grid, relation: RelationLike) -> Tensor:
    """The edges of one relation in each clip.

    Args:
        x: The tokens that enter the graph: the output of a head's `encode`.
        grid: The grid of the tokens.
        relation: Any relation.

    Shapes:
        - **x** `[B, N, C]`
        - **output** `[B, 2, E]`, node indices within each clip, sorted by target, then source
    """
    rule = as_relation(relation).edges
    if isinstance(rule, DynamicEdges):
        return rule.edges_of(x, grid)
    return rule(grid).to(x.device).expand(x.size(0), -1, -1)


def typed_clip_edges(
    x: Tensor, grid: Grid, relations: Sequence[RelationLike]
) -> tuple[Tensor, Tensor]:
    """The union of several relations' edges in each clip, ordered as `Grid.typed_edges`.

    Shapes:
        - **x** `[B, N, C]`
        - **edge_index** `[B, 2, E]`, node indices within each clip, sorted by target, then source,
          then type
        - **edge_type** `[B, E]`, the index of each edge's relation
    """
    keys = []
    for edge_type, relation in enumerate(relations):
        source, target = clip_edges(x, grid, relation).unbind(1)
        keys.append((target * grid.num_nodes + source) * len(relations) + edge_type)
    key = torch.cat(keys, dim=1).sort(dim=1).values
    edge, edge_types = key // len(relations), key % len(relations)
    return torch.stack([edge % grid.num_nodes, edge // grid.num_nodes], dim=1), edge_types


def disjoint_union(edges: Tensor, num_nodes: int) -> Tensor:
    """The edge index of the disjoint union of all clips' graphs.

    Args:
        edges: Each clip's edges.
        num_nodes: Number of nodes of one clip.

    Shapes:
        - **edges** `[B, 2, E]`, node indices within each clip
        - **output** `[2, B*E]`
    """
    first = torch.arange(len(edges), device=edges.device).view(-1, 1, 1) * num_nodes
    return (edges + first).transpose(0, 1).flatten(1)


def repeat_edges(edge_index: Tensor, num_graphs: int, num_nodes: int) -> Tensor:
    """The edges of `num_graphs` disjoint copies of a graph, one copy after the other.

    Shapes:
        - **edge_index** `[2, E]`
        - **output** `[2, num_graphs*E]`
    """
    return disjoint_union(edge_index.expand(num_graphs, -1, -1), num_nodes)


class BatchedEdges(NamedTuple):
    """The edges of a batch of equal grids, with the other graph tensors that operators take."""

    edge_index: Tensor  # [2, B*E], sorted by target, then source
    edge_type: Tensor  # [B*E]
    pos: Tensor  # [B*N, 3], (t, y, x)
    batch: Tensor  # [B*N]


def cached(function: Callable[..., R]) -> Callable[..., R]:
    """Caches tensors that a function builds from sizes and, as its last argument, a device."""

    @wraps(function)
    def wrapper(*args: Any) -> R:
        return CACHE.get(function, *args) if can_cache(args[-1]) else function(*args)

    return wrapper


@cached
def batched_edges(
    grid: Grid, relations: tuple[Relation, ...], batch_size: int, device: torch.device
) -> BatchedEdges:
    """The edges of a batch of equal grids, for fixed relations.

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
def edge_offsets(
    grid: Grid, relations: tuple[Relation, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The offset of each edge of one clip, source minus target in (t, y, x), `[E, 3]`."""
    edge_index, _ = grid.typed_edges(relations)
    return differences(grid.positions().to(dtype), edge_index).to(device)
