"""Attention rollout: from the readout through the graph and the Transformer to the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

if TYPE_CHECKING:
    from taghead.attention.edge_attention import EdgeAttention
    from taghead.attention.layers import LayerAttention

Stage = Literal["all", "transformer", "graph"]


def rollout(attention: EdgeAttention, through: Stage = "all") -> Tensor:
    if through not in get_args(Stage):
        raise ValueError(f"through must be one of {', '.join(get_args(Stage))} (got {through!r})")
    grid = attention.grid
    counts = attention.readout.detach().unsqueeze(1)  # [B, 1, N]: a row vector
    if through != "transformer":
        for layer in reversed(attention.layers):
            mixed = _through_layer(counts, layer)
            counts = (counts + mixed) / 2 if layer.is_residual else mixed
    if through != "graph" and attention.transformer is not None:
        for weights in attention.transformer.detach().mean(2).flip(1).unbind(1):
            counts = (counts + counts @ weights) / 2
    return counts.squeeze(1).unflatten(1, (grid.frames, grid.height, grid.width))


def _through_layer(counts: Tensor, layer: LayerAttention) -> Tensor:
    """`[B, 1, N]` times the layer's matrix, whose rows sum to 1, without writing it out."""
    rows = counts.squeeze(1)
    total = torch.zeros_like(rows)
    for operator in layer.operators:
        target = operator.edges.edge_index[0 if operator.is_transposed else 1]
        total = total.index_add(1, target, operator.edges.alpha.detach().abs().mean(2))
        if operator.edges.loops is not None:
            total = total + operator.edges.loops.detach().abs().mean(2)
    is_alone = total == 0
    scaled = rows / total.masked_fill(is_alone, 1)
    out = rows * is_alone
    for operator in layer.operators:
        source, target = operator.edges.edge_index.flip([0] if operator.is_transposed else [])
        weights = operator.edges.alpha.detach().abs().mean(2)
        out = out.index_add(1, source, scaled[:, target] * weights)
        if operator.edges.loops is not None:
            out = out + scaled * operator.edges.loops.detach().abs().mean(2)
    return out.unsqueeze(1)
