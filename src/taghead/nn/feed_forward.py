"""The feed-forward network of a graph layer."""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.nn.resolver import activation_resolver

from taghead.errors import check_counts
from taghead.nn.norms import apply_norm
from taghead.nn.runner import Runner


class FeedForward(nn.Module):
    r"""A feed-forward network with a residual connection: of each token by itself.

    .. math:: \mathbf{x} + \mathrm{lin}_2(\sigma(\mathrm{lin}_1(\mathrm{norm}(\mathbf{x}))))

    Args:
        channels: Width of every token.
        width: Width between the two linear layers.
        pre_norm: The norm of the input.
        post_norm: The norm of the sum.
        activation: The nonlinearity's name, as PyG resolves it.
        dropout: Dropout probability, after the nonlinearity and of the output.

    Shapes:
        - **x**, **output** `[..., channels]`
    """

    def __init__(
        self,
        channels: int,
        width: int,
        pre_norm: nn.Module,
        post_norm: nn.Module,
        activation: str | None = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_counts(graph_feed_forward=width)
        self.pre_norm = pre_norm
        self.lin1 = nn.Linear(channels, width)
        self.activation = activation_resolver(activation or "gelu")
        self.dropout = nn.Dropout(dropout)
        self.lin2 = nn.Linear(width, channels)
        self.post_norm = post_norm

    def forward(self, x: Tensor, runner: Runner) -> Tensor:
        out = self.lin1(apply_norm(self.pre_norm, x, runner))
        out = self.dropout(self.lin2(self.dropout(self.activation(out))))
        return apply_norm(self.post_norm, x + out, runner)
