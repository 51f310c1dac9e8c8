"""Image networks on clips: every frame by itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_FRAMES = 64


class FrameByFrame(nn.Module):
    """Applies an image network to every frame of a clip.

    The frames of all clips are one batch. When no gradient is needed, a large batch is computed in
    parts of `max_frames`, so its memory does not grow with the length of the clips. A clip in the
    memory format `channels_last_3d` gives frames in `channels_last` without a copy.

    Args:
        network: From images to feature maps.
        max_frames: Frames that are computed at once when no gradient is needed.

    Shapes:
        - **clip** `[B, 3, T, H, W]`
        - **network** `[M, 3, H, W]` -> `[M, C, h, w]`
        - **output** `[B, C, T, h, w]`
    """

    def __init__(self, network: nn.Module, max_frames: int = MAX_FRAMES) -> None:
        super().__init__()
        self.network = network
        self.max_frames = max_frames

    def forward(self, clip: Tensor) -> Tensor:
        # [B, 3, T, H, W] -> [B*T, 3, H, W]
        frames = clip.transpose(1, 2).flatten(0, 1)
        # [B*T, C, h, w]
        maps = self._maps(frames)
        # [B, C, T, h, w]
        return maps.unflatten(0, (clip.size(0), clip.size(2))).transpose(1, 2)

    def _maps(self, frames: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or self.training or self._needs_gradient(frames):
            return self.network(frames)
        if frames.size(0) <= self.max_frames:
            return self.network(frames)
        return torch.cat([self.network(part) for part in frames.split(self.max_frames)])

    def _needs_gradient(self, frames: Tensor) -> bool:
        return torch.is_grad_enabled() and (
            frames.requires_grad or any(p.requires_grad for p in self.network.parameters())
        )
