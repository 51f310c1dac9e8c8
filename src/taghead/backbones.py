"""3D video backbones: from a clip to a feature map, each saying what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, video
from torchvision.models.video.resnet import (
    BasicBlock,
    Conv2Plus1D,
    R2Plus1dStem,
    VideoResNet,
)

from taghead.errors import DataError
from taghead.grid import Grid

RGB = tuple[float, float, float]
KINETICS_MEAN: RGB = (0.43216, 0.394666, 0.37645)
KINETICS_STD: RGB = (0.22803, 0.22145, 0.216989)


class Backbone(nn.Module):
    """A video network without its pooling and classifier.

    Args:
        name: What `build_backbone` calls it.
        features: From a clip to a feature map.
        channels: Width of the feature map.
        stride: Pixels of the clip per token along (t, h, w).
        mean: Mean of each colour in the clips that it expects, in 0..1.
        std: Standard deviation of each colour, in 0..1.
        num_frames: Frames of a clip that it was made for.
        size: Height and width of a clip that it was made for, in pixels.

    Shapes:
        - **clip** `[B, 3, T_in, H_in, W_in]`
        - **output** `[B, channels, T, H, W]`, the sizes divided by the stride and rounded up
    """

    def __init__(
        self,
        name: str,
        features: nn.Module,
        channels: int,
        stride: tuple[int, int, int],
        mean: RGB = KINETICS_MEAN,
        std: RGB = KINETICS_STD,
        num_frames: int = 16,
        size: int = 112,
    ) -> None:
        super().__init__()
        self.name = name
        self.features = features
        self.channels = channels
        self.stride = stride
        self.mean = mean
        self.std = std
        self.num_frames = num_frames
        self.size = size

    def forward(self, clip: Tensor) -> Tensor:
        return self.features(clip)

    def grid(self, num_frames: int, size: int) -> Grid:
        """The grid of the feature map of a square clip."""
        clip = (num_frames, size, size)
        t, h, w = (ceil(length / step) for length, step in zip(clip, self.stride, strict=True))
        return Grid(t, h, w)


def build_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """A backbone by name.

    Args:
        name: One of `BACKBONES`.
        weights: Trained weights: a file with a state dict, or a name that torchvision publishes
            for this model, such as `DEFAULT`; random ones when not given.

    Raises:
        ValueError: If there is no such backbone or no such weights.
        DataError: If the file does not hold this backbone's weights.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)} (got {name!r})")
    spec = BACKBONES[name]
    model = spec.build()
    if weights is not None:
        model.load_state_dict(_without_classifier(_weights(name, weights, model)), strict=False)
    if isinstance(model, VideoResNet):
        stages = (model.stem, model.layer1, model.layer2, model.layer3, model.layer4)
        model = nn.Sequential(*stages)
    return Backbone(
        name, model, spec.channels, spec.stride, spec.mean, spec.std, spec.num_frames, spec.size
    )


def r2plus1d_34() -> VideoResNet:
    """R(2+1)D-34 as its IG-65M weights need it.

    From `Large-scale weakly-supervised pre-training for video action recognition
    <https://arxiv.org/abs/1905.00561>`_: torchvision's network with 3-4-6-3 blocks, but the second
    convolution of each stage's first block has the width in between that its own input gives, and
    batch norms have another epsilon and momentum.
    """
    model = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem)
    for layer, planes in ((model.layer2, 128), (model.layer3, 256), (model.layer4, 512)):
        midplanes = planes * 9 // 4  # 288, 576, 1152
        layer[0].conv2[0] = Conv2Plus1D(planes, planes, midplanes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps, module.momentum = 1e-3, 0.9
    return model


def r2plus1d_tiny() -> nn.Sequential:
    """A small R(2+1)D for training from nothing on a CPU: a stem and three stages."""
    return nn.Sequential(
        nn.Sequential(*_convolution(3, 16, (1, 5, 5), (1, 2, 2))),
        _conv2plus1d(16, 32, (1, 2, 2)),
        nn.Sequential(_conv2plus1d(32, 64, (2, 2, 2)), _conv2plus1d(64, 64)),
        nn.Sequential(_conv2plus1d(64, 128, (2, 1, 1)), _conv2plus1d(128, 128)),
    )


def _conv2plus1d(narrow: int, wide: int, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Sequential:
    """A convolution in space and one in time, each with its batch norm and ReLU."""
    t, h, w = stride
    return nn.Sequential(
        *_convolution(narrow, wide, (1, 3, 3), (1, h, w)),
        *_convolution(wide, wide, (3, 1, 1), (t, 1, 1)),
    )


def _convolution(
    narrow: int, wide: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> list[nn.Module]:
    t, h, w = (size // 2 for size in kernel)
    return [
        nn.Conv3d(narrow, wide, kernel, stride, padding=(t, h, w), bias=False),
        nn.BatchNorm3d(wide),
        nn.ReLU(inplace=True),
    ]


@dataclass(frozen=True)
class BackboneSpec:
    """How a backbone is built and what it states; the fields are `Backbone`'s arguments."""

    build: Callable[[], nn.Module]
    channels: int
    stride: tuple[int, int, int]
    mean: RGB = KINETICS_MEAN
    std: RGB = KINETICS_STD
    num_frames: int = 16
    size: int = 112


BACKBONES = {
    "r2plus1d_tiny": BackboneSpec(
        r2plus1d_tiny, 128, (4, 8, 8), mean=(0.45,) * 3, std=(0.225,) * 3, size=48
    ),
    "r3d_18": BackboneSpec(video.r3d_18, 512, (8, 16, 16)),
    "mc3_18": BackboneSpec(video.mc3_18, 512, (1, 16, 16)),
    "r2plus1d_18": BackboneSpec(video.r2plus1d_18, 512, (8, 16, 16)),
    "r2plus1d_34": BackboneSpec(r2plus1d_34, 512, (8, 16, 16), num_frames=32),
}


def _weights(name: str, weights: str | Path, model: nn.Module) -> dict[str, Tensor]:
    """A state dict from a file, or the one that torchvision publishes under a name."""
    if Path(weights).is_file():
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
        except Exception as error:
            raise DataError(f"{weights}: not a readable state dict: {error}") from error
        if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
            raise DataError(f"{weights}: not a state dict: it must map names to tensors")
        wanted = _without_classifier(model.state_dict())
        given = _without_classifier(state)
        wrong = [k for k in wanted if k not in given or given[k].shape != wanted[k].shape]
        wrong += [k for k in given if k not in wanted]
        if wrong:
            raise DataError(
                f"{weights}: not weights of {name}: {len(wrong)} keys differ, {wrong[0]}"
            )
        return state
    try:
        return get_model_weights(name)[str(weights)].get_state_dict(check_hash=True)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"weights of {name}: no file and no published weights {weights}"
        ) from error


def _without_classifier(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("fc.")}
