"""From the tokens of a clip to one vector."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn import Aggregation, AttentionalAggregation, MeanAggregation


class MeanReadout(nn.Module):
    """The mean over all tokens, as in the paper.

    Shapes:
        - **x** `[B, N, C]`
        - **output** `[B, C]`
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)

    def weights(self, x: Tensor) -> Tensor:
        """What each token counts for, `[B, N]`; they sum to 1."""
        return x.new_full(x.shape[:2], 1 / x.size(1))

    def aggregation(self) -> Aggregation:
        """The same as a PyG aggregation."""
        return MeanAggregation()


class AttentionReadout(nn.Module):
    r"""A learned weighted mean over all tokens.

    Follows `Gated Graph Sequence Neural Networks <https://arxiv.org/abs/1511.05493>`_:

    .. math:: \sum_i \mathrm{softmax}_i(\mathbf{w}^{\top} \mathbf{x}_i + b) \, \mathbf{x}_i

    Args:
        channels: Width of every token.

    Shapes:
        - **x** `[B, N, channels]`
        - **output** `[B, channels]`
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.weights(x).unsqueeze(-1) * x).sum(dim=1)

    def weights(self, x: Tensor) -> Tensor:
        """What each token counts for, `[B, N]`; they sum to 1."""
        return self.gate(x).softmax(dim=1).squeeze(-1)

    def aggregation(self) -> Aggregation:
        """The same as a PyG aggregation, sharing the parameters."""
        return AttentionalAggregation(self.gate)
