"""The edges of a batch of clips, where a relation's edges may follow the clips' features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from taghead.graph.edges import FeatureEdges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation, as_relation

RelationLike = Relation | tuple[str, str, str] | str


def follow_features(relations: Iterable[RelationLike]) -> bool:
    """Whether edges of one of the relations differ from clip to clip."""
    return any(as_relation(relation).follows_features for relation in relations)


def edges_of_clips(x: Tensor, grid: Grid, relation: RelationLike) -> Tensor:
    """The edges of one relation in each clip.

    Args:
        x: The tokens as they enter the graph: what a head's `encode` gives.
        grid: The grid that they lie on.
        relation: The relation, of any sort.

    Shapes:
        - **x** `[B, N, C]`
        - **output** `[B, 2, E]`, nodes of one clip, sorted by target, then source
    """
    rule = as_relation(relation).edges
    if isinstance(rule, FeatureEdges):
        return rule.edges_of(x, grid)
    return rule(grid).to(x.device).expand(x.size(0), -1, -1)


def typed_edges_of_clips(
    x: Tensor, grid: Grid, relations: Sequence[RelationLike]
) -> tuple[Tensor, Tensor]:
    """The union of several relations' edges in each clip, as `Grid.typed_edges` has it.

    Shapes:
        - **x** `[B, N, C]`
        - **edge_index** `[B, 2, E]`, nodes of one clip, sorted by target, then source, then type
        - **edge_type** `[B, E]`, the place of each edge's relation
    """
    keys = []
    for place, relation in enumerate(relations):
        source, target = edges_of_clips(x, grid, relation).unbind(1)
        keys.append((target * grid.num_nodes + source) * len(relations) + place)
    key = torch.cat(keys, dim=1).sort(dim=1).values
    edge, edge_type = key // len(relations), key % len(relations)
    return torch.stack([edge % grid.num_nodes, edge // grid.num_nodes], dim=1), edge_type


def joined(edges: Tensor, num_nodes: int) -> Tensor:
    """The edges of all clips as those of one graph of disjoint clips.

    Shapes:
        - **edges** `[B, 2, E]`, nodes of one clip
        - **output** `[2, B*E]`
    """
    first = torch.arange(len(edges), device=edges.device).view(-1, 1, 1) * num_nodes
    return (edges + first).transpose(0, 1).flatten(1)
