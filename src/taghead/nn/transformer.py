"""The Transformer stage, which gives the tokens global context."""

from __future__ import annotations

from torch import nn

from taghead.errors import check_counts


def transformer(
    channels: int, layers: int, heads: int, feedforward: int, norm: str, dropout: float
) -> nn.Module:
    """torch's Transformer encoder, or the identity without layers.

    Args:
        channels: Width of every token.
        layers: Number of layers.
        heads: Attention heads of each layer.
        feedforward: Width of their feed-forward network.
        norm: Whether the LayerNorm comes before (`pre`) or after (`post`) each block.
        dropout: Dropout of the layers.

    Shapes:
        - **x**, **output** `[B, N, channels]`

    Raises:
        ValueError: If an argument is invalid; the message has its name in `TAGHead`.
    """
    if layers == 0:
        return nn.Identity()
    check_counts(encoder_layers=layers, encoder_heads=heads, encoder_channels=feedforward)
    if channels % heads:
        raise ValueError(f"encoder_heads must divide the width {channels} (got {heads})")
    layer = nn.TransformerEncoderLayer(
        channels, heads, feedforward, dropout, batch_first=True, norm_first=norm == "pre"
    )
    last_norm = nn.LayerNorm(channels) if norm == "pre" else None
    return nn.TransformerEncoder(layer, layers, norm=last_norm, enable_nested_tensor=False)
