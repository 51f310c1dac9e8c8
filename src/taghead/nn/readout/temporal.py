"""Readouts that learn from the order of frames: temporal convolution, GRU, Transformer."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taghead.errors import check_choices, check_counts
from taghead.graph.grid import Grid
from taghead.nn.readout.frames import FrameReadout, Pool, pool_frames, pooled_width
from taghead.nn.transformer import transformer

Norm = Literal["layer_norm", "batch_norm"]


class TemporalConvReadout(FrameReadout):
    r"""Temporal convolutions over the frame means.

    .. math:: \mathbf{x} \leftarrow \mathbf{x} + \mathrm{dropout}(\mathrm{gelu}(\mathrm{conv}(
        \mathrm{norm}(\mathbf{x}))))

    Args:
        channels: Width of every token.
        grid: The grid whose number of frames `sequence` concatenates; others are resized to it.
        layers: Number of convolutions.
        kernel: Frames that a convolution spans.
        width: Width of the convolutions; when not given that of the tokens, else a linear layer
            comes first.
        norm: The norm before each convolution, or none.
        dropout: Dropout after each nonlinearity.
        residual: Whether each convolution's input is added to its output.
        causal: Whether a convolution sees a frame and those before it alone, instead of as many
            before as after.
        pool: What follows: `sequence`, the concatenation of all frames; their `mean` or `max`; or
            the `last`.

    Shapes:
        - **x** `[B, T, P, channels]`
        - **output** `[B, width]`; `[B, grid.frames * width]` of `sequence`
    """

    uses_frame_means = True

    def __init__(
        self,
        channels: int,
        grid: Grid,
        layers: int = 2,
        kernel: int = 3,
        width: int | None = None,
        norm: Norm | None = "layer_norm",
        dropout: float = 0.1,
        residual: bool = True,
        causal: bool = False,
        pool: Pool = "sequence",
    ) -> None:
        super().__init__(channels)
        width = channels if width is None else width
        check_counts(layers=layers, kernel=kernel, width=width)
        check_choices(norm=(norm, (*get_args(Norm), None)), pool=(pool, get_args(Pool)))
        self.num_frames, self.pool = grid.frames, pool
        self.out_channels = pooled_width(width, pool, grid.frames)
        self.lin = nn.Identity() if width == channels else nn.Linear(channels, width)
        self.blocks = nn.ModuleList(
            TemporalBlock(width, kernel, norm, dropout, residual, causal) for _ in range(layers)
        )

    def of_frames(self, x: Tensor) -> Tensor:
        return pool_frames(self.each_frame(x), self.pool, self.num_frames)

    def each_frame(self, x: Tensor) -> Tensor:
        """The vector of each frame, before the pool.

        With `causal`, a frame's vector depends on no later frame.

        Shapes:
            - **x** `[B, T, channels]`: frame means
            - **output** `[B, T, width]`
        """
        x = self.lin(x)
        for block in self.blocks:
            x = block(x)
        return x


class TemporalBlock(nn.Module):
    """Norm, temporal convolution, nonlinearity and dropout; as many frames as before.

    Args:
        channels: Width.
        kernel: As in :class:`TemporalConvReadout`, and the others too.

    Shapes:
        - **x**, **output** `[B, T, channels]`
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        norm: Norm | None,
        dropout: float,
        residual: bool,
        causal: bool,
    ) -> None:
        super().__init__()
        norms = {"layer_norm": nn.LayerNorm, "batch_norm": nn.BatchNorm1d}
        self.norm: nn.Module = norms[norm](channels) if norm else nn.Identity()
        self.conv = nn.Conv1d(channels, channels, kernel)
        self.dropout = nn.Dropout(dropout)
        self.residual = residual
        before = kernel - 1 if causal else kernel // 2
        self.padding = (before, kernel - 1 - before)  # frames of zeros before and after

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(x.flatten(0, 1)).view_as(x).transpose(1, 2)  # [B, C, T]
        out = self.conv(F.pad(out, self.padding)).transpose(1, 2)
        out = self.dropout(F.gelu(out))
        return x + out if self.residual else out


class GRUReadout(FrameReadout):
    """A gated recurrent unit over the frame means, in both directions.

    Args:
        channels: Width of every token.
        grid: The grid whose number of frames `sequence` concatenates; others are resized to it.
        layers: Number of layers.
        width: Width of each direction; that of the tokens when not given.
        dropout: Dropout of each layer's input.
        bidirectional: Whether a second one reads the frames backwards.
        pool: What follows: `last`, the last state of each direction; `sequence`, the concatenation
            of all frames' states; or their `mean` or `max`.

    Shapes:
        - **x** `[B, T, P, channels]`
        - **output** `[B, D * width]`, D the number of directions; `[B, grid.frames * D * width]`
          of `sequence`
    """

    uses_frame_means = True

    def __init__(
        self,
        channels: int,
        grid: Grid,
        layers: int = 1,
        width: int | None = None,
        dropout: float = 0.1,
        bidirectional: bool = True,
        pool: Pool = "last",
    ) -> None:
        super().__init__(channels)
        width = channels if width is None else width
        check_counts(layers=layers, width=width)
        check_choices(pool=(pool, get_args(Pool)))
        self.num_frames, self.pool = grid.frames, pool
        directions = 1 + bool(bidirectional)
        self.out_channels = pooled_width(directions * width, pool, grid.frames)
        self.dropout = nn.Dropout(dropout)
        # cells, as torch.compile takes no nn.GRU; one for each layer and direction
        self.cells = nn.ModuleList(
            nn.ModuleList(
                nn.GRUCell(directions * width if layer else channels, width)
                for _ in range(directions)
            )
            for layer in range(layers)
        )

    def of_frames(self, x: Tensor) -> Tensor:
        for cells in self.cells:
            x = self.dropout(x)
            assert isinstance(cells, nn.ModuleList)
            # [B, T, width] each: forwards, and backwards if there is a second
            states = [_states(cell, x, bool(i)) for i, cell in enumerate(cells)]
            x = torch.cat(states, dim=-1)
        if self.pool != "last":
            return pool_frames(x, self.pool, self.num_frames)
        last = [one[:, -1 if i == 0 else 0] for i, one in enumerate(states)]
        return torch.cat(last, dim=-1)


def _states(cell: nn.Module, x: Tensor, is_reverse: bool) -> Tensor:
    """The states of a recurrent cell, which starts from zeros, after each frame.

    Shapes:
        - **x** `[B, T, channels]`
        - **output** `[B, T, width]`, in the order of the frames
    """
    states: list[Tensor] = []
    for frame in reversed(x.unbind(1)) if is_reverse else x.unbind(1):
        states.append(cell(frame, states[-1] if states else None))
    return torch.stack(states[::-1] if is_reverse else states, dim=1)


class FrameTransformerReadout(FrameReadout):
    """A Transformer over the frame means, each with a learned position in time.

    Args:
        channels: Width of every token.
        grid: The grid whose number of frames has positions; they are resized to other numbers.
        layers: Number of layers.
        heads: Attention heads of each.
        feed_forward: Width of their feed-forward networks; twice that of the tokens when not given.
        dropout: Dropout of the layers.
        pool: What follows: the `mean` or `max` of all frames, the `last`, or their concatenation
            (`sequence`).

    Shapes:
        - **x** `[B, T, P, channels]`
        - **output** `[B, channels]`; `[B, grid.frames * channels]` of `sequence`
    """

    uses_frame_means = True

    def __init__(
        self,
        channels: int,
        grid: Grid,
        layers: int = 2,
        heads: int = 4,
        feed_forward: int | None = None,
        dropout: float = 0.1,
        pool: Pool = "mean",
    ) -> None:
        super().__init__(channels)
        feed_forward = 2 * channels if feed_forward is None else feed_forward
        check_counts(layers=layers, heads=heads, feed_forward=feed_forward)
        check_choices(pool=(pool, get_args(Pool)))
        if channels % heads:
            raise ValueError(f"heads must divide the width {channels} (got {heads})")
        self.num_frames, self.pool = grid.frames, pool
        self.out_channels = pooled_width(channels, pool, grid.frames)
        self.positions = nn.Parameter(torch.randn(1, grid.frames, channels) * 0.02)
        self.encoder = transformer(channels, layers, heads, feed_forward, "pre", dropout)

    def of_frames(self, x: Tensor) -> Tensor:
        positions: Tensor = self.positions
        if x.size(1) != self.num_frames:
            positions = F.interpolate(positions.transpose(1, 2), x.size(1), mode="linear")
            positions = positions.transpose(1, 2)
        return pool_frames(self.encoder(x + positions), self.pool, self.num_frames)
