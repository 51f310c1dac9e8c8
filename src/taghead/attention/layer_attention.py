"""The attention of one message-passing layer, operator by operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from taghead.attention.weights import EdgeWeights
from taghead.graph.relations import Relation


class WeightedEdges(NamedTuple):
    """One relation's edges and their weights in one layer.

    Shapes:
        - **source**, **target** `[E]`: the nodes that messages come from and arrive at
        - **alpha** `[B, E, heads]`
    """

    source: Tensor
    target: Tensor
    alpha: Tensor


@dataclass(frozen=True)
class OperatorAttention:
    """The attention of one operator of a layer.

    Args:
        name: The operator's class.
        relations: The relations whose union of edges it ran on.
        edges: Its weights.
        update_norm: Norm of each token's output minus its output without edges, `[B, N]`.
        is_transposed: Whether messages flow from target to source.
    """

    name: str
    relations: tuple[Relation, ...]
    edges: EdgeWeights
    update_norm: Tensor
    is_transposed: bool = False

    def is_of(self, relation: Relation) -> Tensor:
        """A mask of a relation's edges, `[E]`."""
        return self.edges.edge_type == self.relations.index(relation)

    @property
    def source_and_target(self) -> tuple[Tensor, Tensor]:
        """Nodes that messages come from and arrive at, each `[E]`."""
        source, target = self.edges.edge_index.flip([0] if self.is_transposed else [])
        return source, target

    def weighted_edges(self, relation: Relation) -> WeightedEdges:
        """One relation's edges with their weights."""
        chosen = self.is_of(relation)
        source, target = self.source_and_target
        return WeightedEdges(source[chosen], target[chosen], self.edges.alpha[:, chosen])

    def degree(self, num_nodes: int) -> Tensor:
        """The number of edges and added self-loops in the softmax of each target, `[N]`."""
        degree = torch.bincount(self.source_and_target[1], minlength=num_nodes)
        return degree + (self.edges.loops is not None)

    def total_weight(self, num_nodes: int) -> Tensor:
        """Sum of the absolute weights at each target, self-loops included, `[B, N, heads]`."""
        alpha, loops = self.edges.alpha.detach().abs(), self.edges.loops
        zeros = alpha.new_zeros(alpha.size(0), num_nodes, alpha.size(2))
        total = zeros.index_add(1, self.source_and_target[1], alpha)
        return total if loops is None else total + loops.detach().abs()

    def map(self, function: Callable[[Tensor], Tensor]) -> OperatorAttention:
        """A copy with a function applied to all tensors whose first dimension is the clip."""
        loops = None if self.edges.loops is None else function(self.edges.loops)
        edges = self.edges._replace(alpha=function(self.edges.alpha), loops=loops)
        return replace(self, edges=edges, update_norm=function(self.update_norm))


@dataclass(frozen=True)
class LayerAttention:
    """The attention of a message-passing layer.

    Args:
        operators: One for each relation, or one for the union of all.
        is_residual: Whether the layer's input is added to its output.
    """

    operators: tuple[OperatorAttention, ...]
    is_residual: bool

    def operator_of(self, relation: Relation) -> OperatorAttention:
        """The operator that ran on a relation's edges."""
        return next(o for o in self.operators if relation in o.relations)

    def weighted_edges(self, relation: Relation) -> WeightedEdges:
        """One relation's edges with their weights."""
        return self.operator_of(relation).weighted_edges(relation)

    def shares_softmax(self, relation: Relation, num_nodes: int) -> Tensor:
        """A mask of a relation's edges that are not alone in their target's softmax, `[E]`.

        The weight of an edge that is alone is always 1.
        """
        operator = self.operator_of(relation)
        return operator.degree(num_nodes)[operator.weighted_edges(relation).target] > 1

    def relative_weights(self, relation: Relation, num_nodes: int) -> Tensor:
        """A relation's weights divided by the uniform weight of their target's softmax.

        Shapes:
            - **output** `[B, E, heads]`
        """
        operator = self.operator_of(relation)
        degree = operator.degree(num_nodes).clamp(min=1).view(1, -1, 1)
        uniform = operator.total_weight(num_nodes) / degree
        _, target, alpha = operator.weighted_edges(relation)
        return alpha.detach() / uniform[:, target].clamp(min=torch.finfo(alpha.dtype).tiny)

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerAttention:
        """A copy with a function applied to all tensors whose first dimension is the clip."""
        return replace(self, operators=tuple(operator.map(function) for operator in self.operators))
