"""Attention weights as dense tensors: over the positions of a frame, or over nearby frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from taghead.attention.layer_attention import WeightedEdges
from taghead.graph.edges import TimeEdges, WindowEdges, intra_frame_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation


class DenseWeights(NamedTuple):
    """Weights with a slot for every possible neighbour; targets before sources.

    Shapes:
        - **weights** `[B, heads, T, P, K]`; K = P within frames
        - **mask** `[T, P, K]`, true where there is an edge
    """

    weights: Tensor
    mask: Tensor


def to_dense_weights(
    grid: Grid, relation: Relation, edges: WeightedEdges, is_transposed: bool = False
) -> DenseWeights:
    """Scatters the weights of a relation's edges into a dense tensor.

    Args:
        grid: The grid.
        relation: The relation.
        edges: Its edges and weights.
        is_transposed: Whether messages flow from target to source.

    Raises:
        ValueError: If the relation is a custom or a baseline one, or its edges are dynamic.
    """
    source, target, alpha = edges
    rule = relation.edges
    if isinstance(rule, WindowEdges) or rule is intra_frame_edges:
        num_slots = grid.num_positions
        slot = source % num_slots
    elif isinstance(rule, TimeEdges):
        before = rule.after if is_transposed else rule.before
        num_slots = rule.before + rule.after
        offset = (source - target) // grid.num_positions  # in frames
        slot = offset + before - (offset > 0).long()  # there is no slot for offset 0
    else:
        raise ValueError(
            f"relation {relation.name!r} has no dense form, as any two tokens may have an edge; "
            f"use edge_index and weights"
        )
    shape = (grid.frames, grid.num_positions, num_slots)
    index = target * num_slots + slot
    weights = alpha.new_zeros(*alpha.shape[::2], grid.num_nodes * num_slots)  # [B, heads, N*K]
    weights = weights.index_copy(2, index, alpha.transpose(1, 2))
    mask = torch.zeros(grid.num_nodes * num_slots, dtype=torch.bool, device=alpha.device)
    mask[index] = True
    return DenseWeights(weights.unflatten(2, shape), mask.view(shape))
