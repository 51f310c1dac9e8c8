"""A head's forward pass that keeps what it attended to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from taghead.attention.edge_attention import EdgeAttention
from taghead.attention.layers import LayerAttention, OperatorAttention
from taghead.attention.weights import check_attentive, edge_weights, in_evaluation
from taghead.graph.controls import no_edges
from taghead.graph.convert import grid_of
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.operators import propagate

if TYPE_CHECKING:
    from taghead.nn.head import TAGHead


def capture(head: TAGHead, feature_map: Tensor) -> tuple[Tensor, EdgeAttention]:
    """A head's logits, and its attention before any dropout.

    Operators that run densely show their weights densely. The logits are those of a plain forward
    pass. With gradients enabled, they reach through the weights.

    Args:
        head: The head.
        feature_map: A backbone's output.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`
        - **logits** `[B, K]`

    Raises:
        ValueError: If an operator of the head has no attention weights.
    """
    for conv in head.layers.modules():
        if isinstance(conv, MessagePassing):
            check_attentive(conv)
    grid = grid_of(feature_map)
    found: list[list[OperatorAttention]] = [[] for _ in head.layers]
    layer_of = {id(part): i for i, layer in enumerate(head.layers) for part in layer.modules()}

    def observe(
        conv: MessagePassing, x: Tensor, relations: Sequence[Relation], x_0: Tensor, out: Tensor
    ) -> None:
        weights = edge_weights(conv, x, grid, relations, x_0, head.engine, head.edge_features)
        added = _added(out.detach(), _without_edges(head, conv, x, grid, relations, x_0))
        is_transposed = conv.flow == "target_to_source"
        name = type(conv).__name__
        found[layer_of[id(conv)]].append(
            OperatorAttention(name, tuple(relations), weights, added, is_transposed)
        )

    # [B, N, C]: tokens; [B, layers, heads, N, N]: the Transformer's weights
    x, transformer = encode(head.encoder, head.embed(feature_map))
    # [B, N, C]: typed message passing on the grid
    x = head.refine(x, grid, observe=observe)
    layers = tuple(
        LayerAttention(tuple(operators), bool(layer.residual))
        for operators, layer in zip(found, head.layers, strict=True)
    )
    x = x.unflatten(1, (grid.frames, grid.num_positions))
    counts: Tensor = head.readout.weights(x)  # type: ignore[operator]
    attention = EdgeAttention(grid, head.relations, layers, counts, transformer)
    return head.classifier(head.readout(x)), attention


def _added(out: Tensor, alone: Tensor) -> Tensor:
    """How far the edges moved each token's output; what may be rounding is 0. `[B, N]`"""
    moved = (out - alone).norm(dim=-1)
    rounding = torch.finfo(out.dtype).eps ** 0.5 * alone.norm(dim=-1)
    return moved.where(moved > rounding, 0)


@torch.no_grad()
def _without_edges(
    head: TAGHead,
    conv: MessagePassing,
    x: Tensor,
    grid: Grid,
    relations: Sequence[Relation],
    x_0: Tensor,
) -> Tensor:
    """What an operator gives each token by itself: its root weight, bias and self-loops."""
    empty = [Relation(relation.name, no_edges) for relation in relations]
    with in_evaluation(conv):
        return propagate(conv, x, grid, empty, x_0, edge_features=head.edge_features, engine="pyg")


def encode(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Runs the Transformer stage layer by layer, and asks each for its weights.

    Shapes:
        - **x**, **output** `[B, N, C]`
        - **weights** `[B, layers, heads, N, N]`, none if there are no layers
    """
    if not isinstance(encoder, nn.TransformerEncoder):
        return encoder(x), None
    weights = []
    for layer in encoder.layers:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        weights.append(_self_attention(layer, x))
        x = layer(x)
    return x if encoder.norm is None else encoder.norm(x), torch.stack(weights, dim=1)


def _self_attention(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """A Transformer layer's weights without dropout, `[B, heads, N, N]`."""
    attention = layer.self_attn
    x = (layer.norm1(x) if layer.norm_first else x).transpose(0, 1)  # [N, B, C]
    _, weights = F.multi_head_attention_forward(
        x,
        x,
        x,
        attention.embed_dim,
        attention.num_heads,
        attention.in_proj_weight,
        attention.in_proj_bias,
        attention.bias_k,
        attention.bias_v,
        attention.add_zero_attn,
        0.0,
        attention.out_proj.weight,
        attention.out_proj.bias,
        training=False,
        need_weights=True,
        average_attn_weights=False,
    )
    assert weights is not None
    return weights
