"""The edge indices of a batch of clips, for fixed edges and for those computed from features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from taghead.graph.edges import DynamicEdges
from taghead.graph.grid import Grid
from taghead.graph.relations import RelationLike, as_relation


def any_dynamic(relations: Iterable[RelationLike]) -> bool:
    """Whether one of the relations has edges that are computed from each clip's features."""
    return any(as_relation(relation).is_dynamic for relation in relations)


def clip_edges(x: Tensor, grid: Grid, relation: RelationLike) -> Tensor:
    """The edges of one relation in each clip.

    Args:
        x: The tokens that enter the graph: the output of a head's `encode`.
        grid: The grid that they lie on.
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


def batch_edges(edges: Tensor, num_nodes: int) -> Tensor:
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
