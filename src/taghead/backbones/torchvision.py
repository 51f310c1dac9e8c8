"""torchvision's video networks: ResNets, S3D, MViT and Swin Transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model_weights, video
from torchvision.models.video import MViT, VideoResNet
from torchvision.ops import Permute

from taghead.backbones.backbone import BackboneSpec, PublishedWeights, Size3
from taghead.video.preprocessing import Preprocessing

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)


class MViTFeatures(nn.Module):
    """The token grid of a Multiscale Vision Transformer, without its class token.

    Args:
        model: torchvision's network.

    Shapes:
        - **clip** `[B, 3, 16, 224, 224]`
        - **output** `[B, 768, 8, 7, 7]`
    """

    def __init__(self, model: MViT) -> None:
        super().__init__()
        self.conv_proj = model.conv_proj
        self.pos_encoding = model.pos_encoding
        self.blocks = model.blocks
        self.norm = model.norm

    def forward(self, clip: Tensor) -> Tensor:
        # [B, 3, T_in, H_in, W_in] -> [B, N, C]
        x = self.conv_proj(clip).flatten(2).transpose(1, 2)
        # [B, 1 + N, C]: the class token comes first
        x = self.pos_encoding(x)
        size = (self.pos_encoding.temporal_size, *self.pos_encoding.spatial_size)
        for block in self.blocks:
            x, size = block(x, size)
        # [B, C, T, H, W]
        return self.norm(x)[:, 1:].transpose(1, 2).unflatten(2, size)


def resnet_stages(model: VideoResNet) -> nn.Sequential:
    """A video ResNet's stem and its four stages."""
    return nn.Sequential(model.stem, model.layer1, model.layer2, model.layer3, model.layer4)


def _swin_features(model: Any) -> nn.Sequential:
    """A video Swin Transformer up to its last norm, channels first."""
    parts = (model.patch_embed, model.pos_drop, model.features, model.norm)
    return nn.Sequential(*parts, Permute([0, 4, 1, 2, 3]))


def _spec(
    name: str,
    num_frames: int,
    features: Callable[..., nn.Module],
    channels: int,
    stride: Size3,
    rounded_down: Size3 = (1, 1, 1),
    clip_size: Size3 | None = None,
) -> BackboneSpec:
    """The spec of a torchvision network with all its published weights."""
    published = {
        entry.name: PublishedWeights(entry.url, _preprocessing(entry.transforms(), num_frames))
        for entry in get_model_weights(name)
    }
    return BackboneSpec(
        build=getattr(video, name),
        features=features,
        channels=channels,
        stride=stride,
        preprocessing=next(iter(published.values())).preprocessing,
        weights=published,
        rounded_down=rounded_down,
        clip_size=clip_size,
    )


def _preprocessing(transform: Any, num_frames: int) -> Preprocessing:
    """The preprocessing of published weights, but without torchvision's change of aspect ratio."""
    return Preprocessing(
        num_frames=num_frames,
        resize=min(transform.resize_size),
        crop=transform.crop_size[0],
        mean=tuple(transform.mean),
        std=tuple(transform.std),
    )


SPECS = {
    "r3d_18": _spec("r3d_18", 16, resnet_stages, 512, (8, 16, 16)),
    "mc3_18": _spec("mc3_18", 16, resnet_stages, 512, (1, 16, 16)),
    "r2plus1d_18": _spec("r2plus1d_18", 16, resnet_stages, 512, (8, 16, 16)),
    # the last pooling is 2x2x2, without padding
    "s3d": _spec("s3d", 128, lambda model: model.features, 1024, (8, 32, 32), (2, 2, 2)),
    "mvit_v1_b": _spec("mvit_v1_b", 16, MViTFeatures, 768, (2, 32, 32), clip_size=(16, 224, 224)),
    "mvit_v2_s": _spec("mvit_v2_s", 16, MViTFeatures, 768, (2, 32, 32), clip_size=(16, 224, 224)),
    "swin3d_t": _spec("swin3d_t", 32, _swin_features, 768, (2, 32, 32)),
    "swin3d_s": _spec("swin3d_s", 32, _swin_features, 768, (2, 32, 32)),
    "swin3d_b": _spec("swin3d_b", 32, _swin_features, 1024, (2, 32, 32)),
}
