"""Every backbone beside what its spec states and what its own classifier takes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from needed import needs
from torch import Tensor, nn

from taghead.backbones import (
    BACKBONES,
    build_backbone,
)
from taghead.backbones.image import SPECS as IMAGE
from taghead.backbones.pytorchvideo import SPECS as PYTORCHVIDEO

PACKAGES = dict.fromkeys(PYTORCHVIDEO, "pytorchvideo") | dict.fromkeys(IMAGE, "timm")


NAMES = [
    pytest.param(name, marks=[needs(PACKAGES[name])] if name in PACKAGES else [])
    for name in BACKBONES
]
IG65M = {"IG65M_CLIP32", "IG65M_CLIP8", "IG65M_KINETICS400_CLIP32", "IG65M_KINETICS400_CLIP8"}


def only(*names: str) -> list[Any]:
    return [name for name in NAMES if name.values[0] in names]


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_gives_what_it_states(name: str) -> None:
    with torch.device("meta"):  # real forwards, whose tensors have sizes and no numbers
        backbone = build_backbone(name).eval()
        made_for = (backbone.preprocessing.num_frames, backbone.preprocessing.crop)
        sizes = [made_for, (16, 64), (9, 50), (13, 47), (30, 100)]  # most divide by no stride
        for num_frames, size in [made_for] if backbone.clip_size else sizes:
            with torch.no_grad():
                feature_map = backbone(torch.randn(2, 3, num_frames, size, size))
            grid = backbone.grid(num_frames, size)
            expected = (2, backbone.channels, grid.frames, grid.height, grid.width)
            assert feature_map.shape == expected
            if (num_frames, size) in (made_for, (16, 64)) and num_frames % backbone.stride[0] == 0:
                steps = (num_frames // grid.frames, -(-size // grid.height), -(-size // grid.width))
                assert steps[0] == backbone.stride[0]
                assert size % backbone.stride[1] or steps == backbone.stride


@pytest.mark.parametrize("name", only("r2plus1d_tiny", "r2plus1d_18", "slowfast_r50", "c2d_r50"))
def test_clips_of_one_frame_or_of_an_odd_number(name: str) -> None:
    backbone = build_backbone(name).eval()
    for num_frames in (2, 7) if name == "c2d_r50" else (1, 7):
        feature_map = backbone(torch.randn(1, 3, num_frames, 32, 32))
        assert feature_map.shape[2] == backbone.grid(num_frames, 32).frames
        assert feature_map.isfinite().all()


def test_a_clip_of_which_nothing_is_left() -> None:
    with pytest.raises(ValueError, match="s3d: a clip of 2x224x224 leaves no tokens"):
        build_backbone("s3d").grid(2, 224)


def mean_then(*layers: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """The network's own classifier on the feature map's mean."""

    def classify(model: nn.Module, feature_map: Tensor) -> Tensor:
        x = feature_map.mean((2, 3, 4))
        for layer in layers:
            x = model.get_submodule(layer)(x)
        return x

    return classify


def x3d_head(model: nn.Module, feature_map: Tensor) -> Tensor:
    pool = model.blocks[-1].pool  # type: ignore[union-attr,index]
    x = pool.post_act(pool.post_conv(feature_map.mean((2, 3, 4), keepdim=True)))  # type: ignore[operator,union-attr]
    return model.blocks[-1].proj(x.flatten(1)).softmax(1)  # type: ignore[union-attr,index,operator]


CLASSIFIERS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "r3d_18": mean_then("fc"),
    "swin3d_t": mean_then("head"),
    "s3d": lambda model, x: model.classifier(model.avgpool(x)).mean((2, 3, 4)),
    "slow_r50": mean_then("blocks.5.proj"),
    "i3d_r50": mean_then("blocks.6.proj"),
    "slowfast_r50": mean_then("blocks.6.proj"),
    "x3d_s": x3d_head,
    "csn_r101": mean_then("blocks.5.proj"),
}


@pytest.mark.parametrize("name", only(*CLASSIFIERS))
def test_the_feature_map_is_what_the_networks_own_classifier_sees(name: str) -> None:
    spec = BACKBONES[name]
    model = spec.build().eval()
    num_frames = spec.preprocessing.num_frames if name in PYTORCHVIDEO else 16
    clip = torch.randn(1, 3, num_frames, 64, 64)
    for pool in model.modules():  # the last pooling is of the size that they were made for
        if isinstance(pool, nn.AvgPool3d):
            pool.kernel_size = (pool.kernel_size[0], 2, 2)  # type: ignore[index,assignment]
    with torch.no_grad():
        theirs = model([clip[:, :, ::4], clip] if name == "slowfast_r50" else clip)
        ours = CLASSIFIERS[name](model, spec.features(model)(clip))
    assert theirs.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_clips_must_fit_positions_that_are_bound_to_a_size() -> None:
    with torch.device("meta"):
        backbone = build_backbone("mvit_v1_b")
        message = r"mvit_v1_b: clips must be 16x224x224 \(frames, height, width; got 32x112x112\)"
        with pytest.raises(ValueError, match=message):
            backbone.grid(32, 112)
        with pytest.raises(ValueError, match=message):
            backbone(torch.randn(1, 3, 32, 112, 112))
