"""Jumping knowledge: the outputs of all message-passing layers in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch_geometric.nn import JumpingKnowledge

Jumping = Literal["cat", "max", "lstm"]


class Jump(nn.Module):
    """PyG's `JumpingKnowledge` on the outputs of all layers, as wide as one of them.

    Follows `Representation Learning on Graphs with Jumping Knowledge Networks
    <https://arxiv.org/abs/1806.03536>`_. As in PyG's models, a linear layer brings concatenated
    outputs back to the width of one.

    Args:
        channels: Width of every token.
        num_layers: Number of layers.
        mode: `cat`, `max` or `lstm`, a weighted mean of each token's own weights.

    Shapes:
        - **outputs** each `[..., channels]`
        - **output** `[..., channels]`
    """

    def __init__(self, channels: int, num_layers: int, mode: Jumping) -> None:
        super().__init__()
        self.jump = JumpingKnowledge(mode, channels, num_layers)
        is_wider = mode == "cat"
        self.lin = nn.Linear(num_layers * channels, channels) if is_wider else nn.Identity()

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        rows = [out.flatten(0, -2) for out in outputs]  # PyG's takes rows
        return self.lin(self.jump(rows)).view_as(outputs[0])
