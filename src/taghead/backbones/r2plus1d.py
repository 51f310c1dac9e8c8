"""R(2+1)D networks that are in no library: R(2+1)D-34 and a small one."""

from __future__ import annotations

from torch import nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from taghead.backbones.backbone import BackboneSpec, PublishedWeights
from taghead.backbones.torchvision import KINETICS_MEAN, KINETICS_STD, resnet_stages
from taghead.video.preprocessing import Preprocessing

IG65M = "https://github.com/moabitcoin/ig65m-pytorch/releases/download/v1.0.0/r2plus1d_34_"


def r2plus1d_34() -> VideoResNet:
    """R(2+1)D-34 with the layers of its published IG-65M weights.

    From `Large-scale weakly-supervised pre-training for video action recognition
    <https://arxiv.org/abs/1905.00561>`_: torchvision's network with 3-4-6-3 blocks, but the inner
    width of the second convolution of each stage's first block follows from that convolution's own
    input, and batch norms have another epsilon and momentum.
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
    """A small R(2+1)D to train from scratch on a CPU: a stem and three stages."""
    return nn.Sequential(
        nn.Sequential(*_convolution(3, 16, (1, 5, 5), (1, 2, 2))),
        _conv2plus1d(16, 32, (1, 2, 2)),
        nn.Sequential(_conv2plus1d(32, 64, (2, 2, 2)), _conv2plus1d(64, 64)),
        nn.Sequential(_conv2plus1d(64, 128, (2, 1, 1)), _conv2plus1d(128, 128)),
    )


def _conv2plus1d(narrow: int, wide: int, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Sequential:
    """A convolution in space and one in time, each with a batch norm and a ReLU."""
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


def _ig65m(num_frames: int) -> Preprocessing:
    return Preprocessing(
        num_frames=num_frames, resize=128, crop=112, mean=KINETICS_MEAN, std=KINETICS_STD
    )


SPECS = {
    "r2plus1d_tiny": BackboneSpec(
        build=r2plus1d_tiny,
        features=lambda model: model,
        channels=128,
        stride=(4, 8, 8),
        preprocessing=Preprocessing(num_frames=16, resize=48, crop=48),
    ),
    "r2plus1d_34": BackboneSpec(
        build=r2plus1d_34,
        features=resnet_stages,
        channels=512,
        stride=(8, 16, 16),
        preprocessing=_ig65m(32),
        weights={
            name: PublishedWeights(f"{IG65M}{file}.pth", _ig65m(num_frames))
            for name, file, num_frames in (
                ("IG65M_CLIP32", "clip32_ig65m_from_scratch-449a7af9", 32),
                ("IG65M_CLIP8", "clip8_ig65m_from_scratch-9bae36ae", 8),
                ("IG65M_KINETICS400_CLIP32", "clip32_ft_kinetics_from_ig65m-ade133f1", 32),
                ("IG65M_KINETICS400_CLIP8", "clip8_ft_kinetics_from_ig65m-0aa0550b", 8),
            )
        },
    ),
}
