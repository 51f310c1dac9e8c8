"""pytorchvideo's networks: SlowFast, Slow, I3D, C2D, X3D and CSN."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taghead.backbones.backbone import BackboneSpec, PublishedWeights, Size3
from taghead.video.preprocessing import Preprocessing

ZOO = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/"
ALPHA = 4  # frames of the fast pathway for each frame of the slow one


class SlowFastFeatures(nn.Module):
    """Both pathways of a SlowFast network as one feature map.

    From `SlowFast Networks for Video Recognition <https://arxiv.org/abs/1812.03982>`_. The fast
    pathway takes every frame of a clip, the slow one every fourth, as in the paper: these are the
    centres of the lateral connections, convolutions of stride 4. (The training code of the
    published weights takes as many frames at even distances, from the first to the last.) The
    output of the fast pathway is averaged over the four frames of each slow one, and concatenated
    to that of the slow pathway.

    Args:
        blocks: The stem and the four stages, each from a list of two feature maps to another.

    Shapes:
        - **clip** `[B, 3, T_in, H_in, W_in]`
        - **output** `[B, 2048 + 256, T_in / 4, H_in / 32, W_in / 32]`, rounded up
    """

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, clip: Tensor) -> Tensor:
        # [B, 2048, T, H, W], [B, 256, T_in, H, W]
        slow, fast = self.blocks([clip[:, :, ::ALPHA], clip])
        # [B, 256, T, H, W]
        window = (min(ALPHA, fast.size(2)), 1, 1)
        fast = F.avg_pool3d(fast, window, stride=(ALPHA, 1, 1), ceil_mode=True)
        return torch.cat([slow, fast], dim=1)


def _build(name: str) -> nn.Module:
    """A network of pytorchvideo; only its models are imported, since its transforms cannot be.

    Raises:
        ValueError: If pytorchvideo is not installed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*")
        try:
            hub = importlib.import_module("pytorchvideo.models.hub")
        except ImportError as error:
            raise ValueError(
                f"backbone {name} needs pytorchvideo: pip install 'taghead[slowfast]' ({error})"
            ) from error
    return getattr(hub, name)()


def _slowfast_features(model: Any) -> nn.Module:
    stem, *stages, _pool, _head = model.blocks
    return SlowFastFeatures([stem, *stages])


def _blocks(model: Any) -> nn.Sequential:
    """All blocks but the head."""
    return nn.Sequential(*model.blocks[:-1])


def _x3d_features(model: Any) -> nn.Sequential:
    """All blocks and the last convolution, which is in the head but a stage in X3D's paper."""
    *blocks, head = model.blocks
    return nn.Sequential(*blocks, head.pool.pre_conv, head.pool.pre_norm, head.pool.pre_act)


def _clips(num_frames: int, resize: int = 256, crop: int = 224) -> Preprocessing:
    return Preprocessing(
        num_frames=num_frames, resize=resize, crop=crop, mean=(0.45,) * 3, std=(0.225,) * 3
    )


def _spec(
    name: str,
    file: str,
    clips: Preprocessing,
    features: Callable[..., nn.Module],
    channels: int,
    stride: Size3,
    rounded_down: Size3 = (1, 1, 1),
) -> BackboneSpec:
    """The spec of a pytorchvideo network with the weights of its model zoo."""
    return BackboneSpec(
        build=partial(_build, name),
        features=features,
        channels=channels,
        stride=stride,
        preprocessing=clips,
        weights={"KINETICS400": PublishedWeights(f"{ZOO}{file}.pyth", clips)},
        rounded_down=rounded_down,
    )


SPECS = {
    "slowfast_r50": _spec(
        "slowfast_r50", "SLOWFAST_8x8_R50", _clips(32), _slowfast_features, 2304, (4, 32, 32)
    ),
    "slowfast_r101": _spec(
        "slowfast_r101", "SLOWFAST_8x8_R101", _clips(32), _slowfast_features, 2304, (4, 32, 32)
    ),
    "slow_r50": _spec("slow_r50", "SLOW_8x8_R50", _clips(8), _blocks, 2048, (1, 32, 32)),
    # after the first stage, pairs of frames are pooled without padding
    "i3d_r50": _spec(
        "i3d_r50", "I3D_8x8_R50", _clips(8), _blocks, 2048, (2, 32, 32), rounded_down=(2, 1, 1)
    ),
    "c2d_r50": _spec(
        "c2d_r50", "C2D_8x8_R50", _clips(8), _blocks, 2048, (2, 32, 32), rounded_down=(2, 1, 1)
    ),
    "x3d_s": _spec("x3d_s", "X3D_S", _clips(13, 182, 160), _x3d_features, 432, (1, 32, 32)),
    "x3d_m": _spec("x3d_m", "X3D_M", _clips(16), _x3d_features, 432, (1, 32, 32)),
    "x3d_l": _spec("x3d_l", "X3D_L", _clips(16, 356, 312), _x3d_features, 432, (1, 32, 32)),
    "csn_r101": _spec("csn_r101", "CSN_32x2_R101", _clips(32), _blocks, 2048, (8, 32, 32)),
}
