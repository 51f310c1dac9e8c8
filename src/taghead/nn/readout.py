"""From the tokens of a clip to one vector.

Readouts take tokens by frame and position. With one position, they are means over frames.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    Aggregation,
    AttentionalAggregation,
    MaxAggregation,
    MeanAggregation,
)


class MeanReadout(nn.Module):
    """The mean over all tokens, as in the paper.

    Shapes:
        - **x** `[B, T, P, C]`
        - **output** `[B, C]`
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2))

    def weights(self, x: Tensor) -> Tensor:
        """What each token counts for, `[B, T*P]`; they sum to 1."""
        num_tokens = x.size(1) * x.size(2)
        return x.new_full((x.size(0), num_tokens), 1 / num_tokens)

    def aggregation(self) -> Aggregation:
        """The same as a PyG aggregation."""
        return MeanAggregation()


class FrameMeanMaxReadout(nn.Module):
    """The mean over each frame, then the maximum over the frames: what shows up once, counts.

    Shapes:
        - **x** `[B, T, P, C]`
        - **output** `[B, C]`
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=2).amax(dim=1)

    def weights(self, x: Tensor) -> Tensor:
        """The part of the channels whose maximum a token's frame is, shared by its positions.

        They are `[B, T*P]` and sum to 1.
        """
        best = x.mean(dim=2).argmax(dim=1)  # [B, C]
        counts = best.new_zeros(x.shape[:2]).scatter_add_(1, best, torch.ones_like(best))  # [B, T]
        of_frame = counts.to(x.dtype) / (x.size(2) * x.size(3))
        return of_frame.repeat_interleave(x.size(2), dim=1)

    def aggregation(self) -> Aggregation:
        """The same as an aggregation that takes each token's frame as well."""
        return FrameMeanMaxAggregation()


class FrameMeanMaxAggregation(Aggregation):
    """The mean over each frame of each graph, then the maximum over a graph's frames.

    Shapes:
        - **x** `[M, C]`
        - **index** `[M]`: each token's graph
        - **frame** `[M]`: its frame
        - **output** `[B, C]`
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.max = MeanAggregation(), MaxAggregation()

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        *,
        frame: Tensor,
    ) -> Tensor:
        self.assert_index_present(index)
        assert index is not None
        # numbered without gaps: a frame that is not there has no mean
        frames, place = torch.stack([index, frame]).unique(dim=1, return_inverse=True)
        return self.max(self.mean(x, place), frames[0], dim_size=dim_size)


class AttentionReadout(nn.Module):
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
        super().__init__()
        self.gate = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.weights(x).unsqueeze(-1) * x.flatten(1, 2)).sum(dim=1)

    def weights(self, x: Tensor) -> Tensor:
        """What each token counts for, `[B, T*P]`; they sum to 1."""
        return self.gate(x.flatten(1, 2)).softmax(dim=1).squeeze(-1)

    def aggregation(self) -> Aggregation:
        """The same as a PyG aggregation, sharing the parameters."""
        return AttentionalAggregation(self.gate)


READOUTS: dict[str, Callable[[int], nn.Module]] = {
    "mean": lambda channels: MeanReadout(),
    "frame_mean_max": lambda channels: FrameMeanMaxReadout(),
    "attention": AttentionReadout,
}
"""The readouts by name; each is made for a width."""

OF_FRAME_MEANS = (MeanReadout, FrameMeanMaxReadout)
"""Those that need no more than the mean over each frame."""
