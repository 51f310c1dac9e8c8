"""Learned edges: rules with parameters, which choose edges and weight their messages."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from taghead.errors import check_counts
from taghead.graph.edges import DynamicEdges
from taghead.graph.grid_shape import GridShape


class LearnedEdges(DynamicEdges, nn.Module):
    """A rule with parameters that train: it chooses edges, and gives each a weight.

    The choice has no gradient, the weight has one: operators get it as `edge_weight`, or else as
    the last feature in `edge_attr`. A head builds the rule with its width as `channels`, and holds
    its parameters.
    """

    @abstractmethod
    def weights(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The weight of each edge.

        Args:
            x: The tokens that enter the graph.
            edge_index: The edges.

        Shapes:
            - **x** `[M, C]`, **edge_index** `[2, E]`
            - **output** `[E]`
        """


class TopKEdges(LearnedEdges):
    r"""Edges from the k tokens of the clip that are most similar in a learned projection.

    .. math:: w_{ij} = \mathrm{sigmoid}(\mathbf{q}_i^{\top} \mathbf{k}_j / \sqrt{d})

    There are N*k edges, k of them at each token, and no self-loops.

    Args:
        channels: Width of every token; a head gives it.
        k: Number of edges at each token, at most the number of other tokens.
        width: Width d of the projections.
    """

    def __init__(self, channels: int, k: int = 8, width: int = 32) -> None:
        super().__init__()
        check_counts(channels=channels, k=k, width=width)
        self.k = k
        self.query = nn.Linear(channels, width)
        self.key = nn.Linear(channels, width)

    @torch.no_grad()
    def edges_of(self, x: Tensor, grid: GridShape) -> Tensor:
        num_nodes = x.size(1)
        scores = self.query(x) @ self.key(x).transpose(-2, -1)  # [B, N, N], target first
        is_self = torch.eye(num_nodes, dtype=torch.bool, device=x.device)
        nearest = scores.masked_fill(is_self, -torch.inf).topk(min(self.k, num_nodes - 1))
        source = nearest.indices.sort(-1).values  # [B, N, k]
        target = torch.arange(num_nodes, device=x.device).view(-1, 1).expand_as(source)
        return torch.stack([source.flatten(1), target.flatten(1)], dim=1)

    def weights(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index
        scores = (self.query(x)[target] * self.key(x)[source]).sum(-1)
        return (scores / math.sqrt(self.query.out_features)).sigmoid()


class UnbuiltEdges(DynamicEdges):
    """A learned rule that no head has built yet; its relation has edges in `head.relations`.

    Args:
        rule: The rule's class.
    """

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def __str__(self) -> str:
        return self.rule.__name__

    def edges_of(self, x: Tensor, grid: GridShape) -> Tensor:
        raise ValueError(
            f"{self} has learned edges, which a head builds and trains: take the relation from "
            f"head.relations"
        )


class NoLearnedEdges(LearnedEdges):
    """No edges, in place of learned ones."""

    def edges_of(self, x: Tensor, grid: GridShape) -> Tensor:
        return torch.empty(x.size(0), 2, 0, dtype=torch.long, device=x.device)

    def weights(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x.new_ones(edge_index.size(1))


def is_learned(rule: Any) -> bool:
    """Whether a rule has parameters that a head trains."""
    return isinstance(rule, LearnedEdges)
