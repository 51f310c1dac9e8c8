"""Readouts: from the tokens of a clip to one vector.

One of your own is a `Readout(channels)`, by its class path. To add one to the package, write its
class and add it to `READOUTS` and to `ReadoutName`, both at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    Aggregation,
    AttentionalAggregation,
    MaxAggregation,
    MeanAggregation,
    aggr,
)

from taghead.components import AnyComponent, Component, ComponentLike, as_component, names_of
from taghead.operators.kernel import class_of


class Readout(nn.Module, ABC):
    """Base class of readouts: from the tokens of a clip to one vector.

    Args:
        channels: Width of every token.

    Shapes:
        - **x** `[B, T, P, channels]`; with P = 1, the means over each frame
        - **output** `[B, out_channels]`
    """

    out_channels: int
    """Width of the output."""

    uses_frame_means: ClassVar[bool] = False
    """Whether the output depends on frame means alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    def weights(self, x: Tensor) -> Tensor:
        """The weight of each token in the output, `[B, T*P]`; each clip's sum to 1.

        Raises:
            ValueError: If the readout has no such weights.
        """
        raise ValueError(f"readout: {type(self).__name__} has no weights of tokens")

    def aggregation(self) -> Aggregation:
        """The readout as a PyG aggregation with the same parameters, for graphs of any size.

        A `FrameAggregation` also takes each token's frame.

        Raises:
            ValueError: If there is none.
        """
        raise ValueError(f"readout: {type(self).__name__} has no aggregation of graphs")


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


class FrameAggregation(Aggregation):
    """A PyG aggregation that takes each token's frame as the keyword `frame`, `[M]`."""


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
        # indices without gaps: a frame without tokens has no mean
        frames, frame_index = torch.stack([index, frame]).unique(dim=1, return_inverse=True)
        return self.max(self.mean(x, frame_index), frames[0], dim_size=dim_size)


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


class AggregationReadout(Readout):
    """An aggregation of PyG over all tokens of a clip.

    Args:
        channels: Width of every token.
        aggregation: The aggregation.

    Shapes:
        - **x** `[B, T, P, channels]`
        - **output** `[B, C_out]`, as wide as the aggregation makes it

    Raises:
        ValueError: If the aggregation does not run on tokens.
    """

    def __init__(self, channels: int, aggregation: Aggregation) -> None:
        super().__init__(channels)
        self.aggr = aggregation
        self.out_channels = _width(self, channels)

    def forward(self, x: Tensor) -> Tensor:
        clips = torch.arange(x.size(0), device=x.device)
        index = clips.repeat_interleave(x.size(1) * x.size(2))
        return self.aggr(x.flatten(0, 2), index, dim_size=x.size(0))

    def aggregation(self) -> Aggregation:
        return self.aggr


@torch.no_grad()
def _width(readout: Readout, channels: int) -> int:
    """The width of a readout's output, of a clip of four tokens."""
    was_training = readout.training
    try:
        out = readout.eval()(torch.zeros(1, 2, 2, channels))
    except Exception as error:
        raise ValueError(f"readout: {readout} does not run on tokens: {error}") from error
    finally:
        readout.train(was_training)
    if out.dim() != 2 or len(out) != 1:
        raise ValueError(
            f"readout: {readout} must give a vector for a clip (got {list(out.shape)})"
        )
    return out.size(1)


ReadoutName = Literal["mean", "frame_mean_max", "attention"]

READOUTS: dict[ReadoutName, type[Readout]] = {
    "mean": MeanReadout,
    "frame_mean_max": FrameMeanMaxReadout,
    "attention": AttentionReadout,
}
"""The readouts by name."""


def readout_component(readout: ComponentLike) -> AnyComponent:
    """The readout that a value stands for: a `Readout`, or an aggregation of PyG.

    Raises:
        ValueError: If it is neither.
    """
    names: dict[str, Any] = names_of(getattr(aggr, name) for name in aggr.__all__)
    found = as_component(
        readout, "readout", {**names, **{str(name): cls for name, cls in READOUTS.items()}}
    )
    if found.cls is not None and not issubclass(found.cls, Readout | Aggregation):
        raise ValueError(
            f"readout must be a Readout or one of PyG's aggregations (got {found.cls!r})"
        )
    return found


def build_readout(component: AnyComponent, channels: int) -> Readout:
    """A readout of tokens of a width.

    Raises:
        ValueError: If it cannot be built, or does not run.
    """
    widths = {"channels": channels, "in_channels": channels}
    try:
        if isinstance(component, Component):
            widths = component.open_widths(widths)
        made = component.build(widths if component.cls else {"channels": channels})
    except ValueError as error:
        raise ValueError(f"readout: {error}") from error
    if isinstance(made, Aggregation):
        return AggregationReadout(channels, made)
    if not isinstance(made, Readout):
        raise ValueError(f"readout must be a Readout or one of PyG's aggregations (got {made!r})")
    if type(made) not in READOUTS.values():
        made.out_channels = _width(made, channels)
    return made


def needs_frame_means_only(readout: nn.Module) -> bool:
    """Whether a readout depends on frame means alone; its exact class must declare it."""
    return vars(class_of(readout)).get("uses_frame_means", False)
