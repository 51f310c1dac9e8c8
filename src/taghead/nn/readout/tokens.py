"""Readouts that weight tokens: their mean, a learned one, the maximum of frame means."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    Aggregation,
    AttentionalAggregation,
    MaxAggregation,
    MeanAggregation,
)

from taghead.nn.readout.base import FrameAggregation, Readout


class MeanReadout(Readout):
    """The mean over all tokens, as in the paper."""

    uses_frame_means = True

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2))

    def weights(self, x: Tensor) -> Tensor:
        num_tokens = x.size(1) * x.size(2)
        return x.new_full((x.size(0), num_tokens), 1 / num_tokens)

    def aggregation(self) -> Aggregation:
        return MeanAggregation()


class FrameMeanMaxReadout(Readout):
    """The maximum over frames of the mean over each frame: one frame suffices as evidence."""

    uses_frame_means = True

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=2).amax(dim=1)

    def weights(self, x: Tensor) -> Tensor:
        """The share of channels whose maximum is in a token's frame, divided by its positions."""
        best = x.mean(dim=2).argmax(dim=1)  # [B, C]
        counts = best.new_zeros(x.shape[:2]).scatter_add_(1, best, torch.ones_like(best))  # [B, T]
        of_frame = counts.to(x.dtype) / (x.size(2) * x.size(3))
        return of_frame.repeat_interleave(x.size(2), dim=1)

    def aggregation(self) -> Aggregation:
        return FrameMeanMaxAggregation()


class FrameMeanMaxAggregation(FrameAggregation):
    """The maximum over a graph's frames of the mean over each frame.

    Shapes:
        - **x** `[M, C]`
        - **index** `[M]`: each token's graph
        - **frame** `[M]`: its frame
        - **output** `[B, C]`
    """

    def __init__(self) -> None:
        super().__init__()
        self.max = MaxAggregation()

    def of_frames(self, means: Tensor, graph: Tensor, num_graphs: int | None) -> Tensor:
        return self.max(means, graph, dim_size=num_graphs)


class AttentionReadout(Readout):
    r"""A learned weighted mean over all tokens.

    Follows `Gated Graph Sequence Neural Networks <https://arxiv.org/abs/1511.05493>`_:

    .. math:: \sum_i \mathrm{softmax}_i(\mathbf{w}^{\top} \mathbf{x}_i + b) \, \mathbf{x}_i

    Args:
        channels: Width of every token.

    Shapes:
        - **x** `[B, T, P, channels]`
        - **output** `[B, channels]`
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gate = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.weights(x).unsqueeze(-1) * x.flatten(1, 2)).sum(dim=1)

    def weights(self, x: Tensor) -> Tensor:
        return self.gate(x.flatten(1, 2)).softmax(dim=1).squeeze(-1)

    def aggregation(self) -> Aggregation:
        return AttentionalAggregation(self.gate)
