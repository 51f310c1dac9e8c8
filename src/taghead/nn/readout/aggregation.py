"""PyG's aggregations as readouts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn import (
    Aggregation,
    AttentionalAggregation,
    MaxAggregation,
    MeanAggregation,
    MinAggregation,
    SoftmaxAggregation,
    SumAggregation,
)

from taghead.graph.grid import Grid
from taghead.nn.readout.base import Readout, no_token_weights


class AggregationReadout(Readout):
    """An aggregation of PyG over all tokens of a clip, which come frame by frame.

    Args:
        channels: Width of every token.
        grid: The grid of the tokens.
        aggregation: The aggregation.

    Shapes:
        - **x** `[B, T, P, channels]`
        - **output** `[B, C_out]`, as wide as the aggregation makes it

    Raises:
        ValueError: If the aggregation does not run on tokens.
    """

    def __init__(self, channels: int, grid: Grid, aggregation: Aggregation) -> None:
        super().__init__(channels)
        self.aggr = aggregation
        self.out_channels = output_width(self, channels, grid)

    def forward(self, x: Tensor) -> Tensor:
        num_tokens, most = x.size(1) * x.size(2), getattr(self.aggr, "max_num_elements", None)
        if most is not None and num_tokens > most:  # PyG leaves the others out
            raise ValueError(
                f"readout: {type(self.aggr).__name__} takes at most max_num_elements={most} tokens "
                f"of a clip (got {num_tokens})"
            )
        return self.aggr(x.flatten(0, 2), _clips(x, num_tokens), dim_size=x.size(0))

    def weights(self, x: Tensor) -> Tensor:
        """The weight of each token; of a maximum, and of weights per channel, the channels' mean.

        Sums, means, maxima, minima, `SoftmaxAggregation` and `AttentionalAggregation` with one
        weight a token have weights.
        """
        x, kind = x.flatten(1, 2), type(self.aggr)  # [B, N, C]
        if kind in (MeanAggregation, SumAggregation):
            return torch.full_like(x[..., 0], 1 / x.size(1))
        if kind in (MaxAggregation, MinAggregation):
            best = x.argmax(1) if kind is MaxAggregation else x.argmin(1)  # [B, C]
            counts = best.new_zeros(x.shape[:2]).scatter_add_(1, best, torch.ones_like(best))
            return counts.to(x.dtype) / x.size(2)
        if kind is SoftmaxAggregation:
            return (x * self.aggr.t).softmax(1).mean(-1)
        if kind is AttentionalAggregation:
            gate = self._gate(x)
            if gate.size(-1) == 1:
                return gate.softmax(1).squeeze(-1)
        raise no_token_weights(self.aggr)

    def _gate(self, x: Tensor) -> Tensor:
        """The gates of `AttentionalAggregation` before its softmax, `[B, N, C]` -> `[B, N, G]`."""
        rows = x.flatten(0, 1)
        if self.aggr.gate_mlp is None:
            return self.aggr.gate_nn(rows).unflatten(0, x.shape[:2])
        batch = {"batch": _clips(x, x.size(1)), "batch_size": x.size(0)}
        return self.aggr.gate_mlp(rows, **batch).unflatten(0, x.shape[:2])

    def aggregation(self) -> Aggregation:
        return self.aggr


def _clips(x: Tensor, num_tokens: int) -> Tensor:
    """The clip of each token, `[B*N]`."""
    return torch.arange(x.size(0), device=x.device).repeat_interleave(num_tokens)


@torch.no_grad()
def output_width(readout: Readout, channels: int, grid: Grid) -> int:
    """The width of a readout's output, of a clip of zeros.

    Raises:
        ValueError: If it does not run, or does not give a vector for each clip.
    """
    was_training = readout.training
    try:
        out = readout.eval()(torch.zeros(1, grid.frames, grid.num_positions, channels))
    except Exception as error:
        reason = str(error) or repr(error)
        raise ValueError(f"readout: {readout} does not run on tokens: {reason}") from error
    finally:
        readout.train(was_training)
    if not isinstance(out, Tensor) or out.dim() != 2 or len(out) != 1:
        found = list(out.shape) if isinstance(out, Tensor) else out
        raise ValueError(f"readout: {readout} must give a vector for a clip (got {found})")
    return out.size(1)
