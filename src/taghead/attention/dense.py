"""Weights of edges as dense tensors: a frame's positions, or the frames before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from taghead.graph.edges import TimeEdges, WindowEdges, intra_frame_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation

if TYPE_CHECKING:
    from taghead.attention.layers import Weighed


class DenseWeights(NamedTuple):
    """Weights with a slot for every possible neighbour; targets before sources.

    Shapes:
        - **weights** `[B, heads, T, P, K]`; K = P within frames
        - **mask** `[T, P, K]`: where there is an edge
    """

    weights: Tensor
    mask: Tensor


def dense_weights(
    grid: Grid, relation: Relation, weighed: Weighed, is_transposed: bool = False
) -> DenseWeights:
    """Puts the weights of a relation's edges where they belong.

    Args:
        grid: The grid.
        relation: The relation.
        weighed: Its edges and weights.
        is_transposed: Whether the relation's edges run from target to source.

    Raises:
        ValueError: If the relation is a custom one, whose edges may be any.
    """
    source, target, alpha = weighed
    rule = relation.edges
    if isinstance(rule, WindowEdges) or rule is intra_frame_edges:
        num_slots = grid.num_positions
        slot = source % num_slots
    elif isinstance(rule, TimeEdges):
        before, after = rule.before, rule.after
        before, after = (after, before) if is_transposed else (before, after)
        offsets = [offset for offset in range(-before, after + 1) if offset]
        num_slots = len(offsets)
        distance = (source - target) // grid.num_positions
        slot = distance + before - (distance > 0).long()
    else:
        raise ValueError(
            f"relation {relation.name!r} has no dense form, as its edges may be any; take "
            f"edge_index and weights"
        )
    shape = (grid.frames, grid.num_positions, num_slots)
    place = target * num_slots + slot
    weights = alpha.new_zeros(*alpha.shape[::2], grid.num_nodes * num_slots)  # [B, heads, N*K]
    weights = weights.index_copy(2, place, alpha.transpose(1, 2))
    mask = torch.zeros(grid.num_nodes * num_slots, dtype=torch.bool, device=alpha.device)
    mask[place] = True
    return DenseWeights(weights.unflatten(2, shape), mask.view(shape))
