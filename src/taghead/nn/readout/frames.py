"""Readouts that keep the order of frames: they take the mean over each frame, in its place."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from taghead.graph.grid import Grid
from taghead.nn.readout.base import FrameAggregation, Readout

Pool = Literal["sequence", "mean", "max", "last"]


class FrameReadout(Readout):
    """Base class of readouts of the means over each frame, in the order of the frames.

    A class of yours has `of_frames`. It declares `uses_frame_means = True` in its own body, so that
    the head may run its last layers on frame means alone where that gives the same.

    Args:
        channels: Width of every token.

    Shapes:
        - **x** `[B, T, P, channels]`
        - **output** `[B, out_channels]`
    """

    uses_frame_means = True

    def forward(self, x: Tensor) -> Tensor:
        return self.of_frames(x.mean(dim=2))

    @abstractmethod
    def of_frames(self, x: Tensor) -> Tensor:
        """The vector of each clip, of its frame means.

        Shapes:
            - **x** `[B, T, channels]`, any T
            - **output** `[B, out_channels]`
        """

    def aggregation(self) -> FrameAggregation:
        return OrderedFrameAggregation(self)


class OrderedFrameAggregation(FrameAggregation):
    """A readout of frame means for graphs, each with frames of its own.

    A graph's frames are those that have tokens, in the order of their numbers. A graph without
    tokens has zeros, as PyG's aggregations give.

    Args:
        readout: The readout.

    Shapes:
        - **x** `[M, C]`
        - **index** `[M]`: each token's graph
        - **frame** `[M]`: its frame
        - **output** `[B, out_channels]`
    """

    def __init__(self, readout: FrameReadout) -> None:
        super().__init__()
        self.readout = readout

    def of_frames(self, means: Tensor, graph: Tensor, num_graphs: int | None) -> Tensor:
        counts = graph.bincount(minlength=num_graphs or 0)  # [B]: frames of each graph
        out = means.new_zeros(len(counts), self.readout.out_channels)
        for count in counts.unique().tolist():  # graphs with as many frames run together
            if count:
                has_count = counts == count
                rows = means[has_count[graph]].unflatten(0, (-1, count))
                vectors = self.readout.of_frames(rows)
                out = out.to(vectors.dtype).index_put((has_count,), vectors)
        return out


class LastFrameReadout(FrameReadout):
    """The mean over the last frame: causal, if no relation leads back in time."""

    uses_frame_means = True

    def of_frames(self, x: Tensor) -> Tensor:
        return x[:, -1]

    def weights(self, x: Tensor) -> Tensor:
        weights = torch.zeros_like(x[..., 0])
        weights[:, -1] = 1 / x.size(2)
        return weights.flatten(1)


class FrameSequenceReadout(FrameReadout):
    """The means over each frame, concatenated in their order.

    Clips with another number of frames are resized to that of the grid: frames are averaged where
    there are more, and repeated where there are fewer.

    Args:
        channels: Width of every token.
        grid: The grid whose number of frames is concatenated.

    Shapes:
        - **x** `[B, T, P, channels]`
        - **output** `[B, grid.frames * channels]`
    """

    uses_frame_means = True

    def __init__(self, channels: int, grid: Grid) -> None:
        super().__init__(channels)
        self.num_frames = grid.frames
        self.out_channels = channels * grid.frames

    def of_frames(self, x: Tensor) -> Tensor:
        return resize_frames(x, self.num_frames).flatten(1)

    def weights(self, x: Tensor) -> Tensor:
        """The share of channels that are a token's frame's, divided by its positions."""
        num_clips, num_frames, num_positions, _ = x.shape
        own = torch.eye(num_frames, dtype=x.dtype, device=x.device)
        of_frame = resize_frames(own[None], self.num_frames).mean(1) / num_positions  # [1, T]
        return of_frame.repeat_interleave(num_positions, dim=1).expand(num_clips, -1)


def resize_frames(x: Tensor, num_frames: int) -> Tensor:
    """`[B, T, C]` to another number of frames, each the mean of those of its part of the clip."""
    if x.size(1) == num_frames:
        return x
    return F.adaptive_avg_pool1d(x.transpose(1, 2), num_frames).transpose(1, 2)


def pooled_width(channels: int, pool: Pool, num_frames: int) -> int:
    """The width of `pool_frames`."""
    return channels * num_frames if pool == "sequence" else channels


def pool_frames(x: Tensor, pool: Pool, num_frames: int) -> Tensor:
    """The vectors of a clip's frames in one.

    Args:
        x: The vectors.
        pool: `sequence`, their concatenation, resized to `num_frames`; their mean or max; the last.
        num_frames: How many vectors `sequence` concatenates.

    Shapes:
        - **x** `[B, T, C]`
        - **output** `[B, num_frames * C]` of `sequence`, else `[B, C]`
    """
    if pool == "sequence":
        return resize_frames(x, num_frames).flatten(1)
    if pool == "last":
        return x[:, -1]
    return x.mean(dim=1) if pool == "mean" else x.amax(dim=1)
