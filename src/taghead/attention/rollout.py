"""Attention rollout: the matrices of readout, graph and Transformer, multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from taghead.attention.layer_attention import LayerAttention

Stage = Literal["all", "transformer", "graph"]


def rollout(
    readout: Tensor, layers: Sequence[LayerAttention], transformer: Tensor | None, through: Stage
) -> Tensor:
    """The weight of each token in a clip's vector; `EdgeAttention.rollout` has the definition.

    Shapes:
        - **readout**, **output** `[B, N]`
        - **transformer** `[B, layers, heads, N, N]`

    Raises:
        ValueError: If there is no such stage.
    """
    if through not in get_args(Stage):
        raise ValueError(f"through must be one of {', '.join(get_args(Stage))} (got {through!r})")
    weights = readout.detach().unsqueeze(1)  # [B, 1, N]: a row vector
    if through != "transformer":
        for layer in reversed(layers):
            mixed = _times_layer(weights, layer)
            weights = (weights + mixed) / 2 if layer.is_residual else mixed
    if through != "graph" and transformer is not None:
        for attention in transformer.detach().mean(2).flip(1).unbind(1):
            weights = (weights + weights @ attention) / 2
    return weights.squeeze(1)


def _times_layer(weights: Tensor, layer: LayerAttention) -> Tensor:
    """`[B, 1, N]` times the layer's matrix, whose rows sum to 1, without forming the matrix."""
    row = weights.squeeze(1)
    total = torch.zeros_like(row)
    for operator in layer.operators:
        _, target = operator.source_and_target
        total = total.index_add(1, target, operator.edges.alpha.detach().abs().mean(2))
        if operator.edges.loops is not None:
            total = total + operator.edges.loops.detach().abs().mean(2)
    is_isolated = total == 0
    scaled = row / total.masked_fill(is_isolated, 1)
    out = row * is_isolated
    for operator in layer.operators:
        source, target = operator.source_and_target
        alpha = operator.edges.alpha.detach().abs().mean(2)
        out = out.index_add(1, source, scaled[:, target] * alpha)
        if operator.edges.loops is not None:
            out = out + scaled * operator.edges.loops.detach().abs().mean(2)
    return out.unsqueeze(1)
