"""Transformers of the Hugging Face library: `hf:<model or folder>`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from taghead.backbones.backbone import Backbone, ClipSize, Size3
from taghead.backbones.extras import import_extra
from taghead.backbones.frames import FrameByFrame
from taghead.backbones.model_files import find_folder, preprocessing_of, read_json, read_weights
from taghead.errors import DataError, first_line
from taghead.files import json_text, parse_json, read_tensors, state_dict_in
from taghead.video.preprocessing import Preprocessing

PREFIX = "hf:"
NUM_FRAMES = 8  # of networks that take images
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Architecture:
    """What a clip is to a family of networks, and where its feature map is in their output.

    Args:
        config: The name of its class of configs in `transformers`.
        model: The name of its class of networks.
        patch: Frames, rows and columns of a token.
        num_frames: Frames of a clip.
        size: Height and width of a clip.
        num_prefix: Tokens before those of the grid.
        is_frame_last: Whether the tokens of a position follow one another, instead of those of a
            frame.
        takes_images: Whether it takes single frames, of any size.
        takes_any_length: Whether it takes clips of any number of frames.
        call: From the network and `[B, T, 3, H, W]`, or `[M, 3, H, W]` of images, to its output.
        part: From the network to the part that is used.
        unused: Names of parameters that the feature map does not depend on.
        statistics: Mean and std of the weights' authors, for folders that state none.
    """

    config: str
    model: str
    patch: Callable[[Any], Size3]
    num_frames: Callable[[Any], int]
    size: Callable[[Any], tuple[int, int]]
    num_prefix: Callable[[Any], int] = lambda config: 0
    is_frame_last: bool = False
    takes_images: bool = False
    takes_any_length: bool = False
    call: Callable[[Any, Tensor], Any] = lambda network, x: network(pixel_values=x)
    part: Callable[[Any], nn.Module] = lambda network: network
    unused: tuple[str, ...] = ()
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _without_pooler(network: Any) -> nn.Module:
    network.pooler = None
    return network


def _dinov2(config: str, model: str, num_prefix: Callable[[Any], int]) -> Architecture:
    return Architecture(
        config,
        model,
        patch=lambda c: (1, *_pair(c.patch_size)),
        num_frames=lambda c: NUM_FRAMES,
        size=lambda c: _pair(c.image_size),
        num_prefix=num_prefix,
        takes_images=True,
        unused=("embeddings.mask_token",),
    )


ARCHITECTURES = {
    "videomae": Architecture(
        "VideoMAEConfig",
        "VideoMAEModel",
        patch=lambda c: (c.tubelet_size, *_pair(c.patch_size)),
        num_frames=lambda c: c.num_frames,
        size=lambda c: _pair(c.image_size),
    ),
    "timesformer": Architecture(
        "TimesformerConfig",
        "TimesformerModel",
        patch=lambda c: (1, *_pair(c.patch_size)),
        num_frames=lambda c: c.num_frames,
        size=lambda c: _pair(c.image_size),
        num_prefix=lambda c: 1,
        is_frame_last=True,
        statistics=((0.45,) * 3, (0.225,) * 3),
    ),
    "vivit": Architecture(
        "VivitConfig",
        "VivitModel",
        patch=lambda c: cast(Size3, tuple(c.tubelet_size)),
        num_frames=lambda c: c.num_frames,
        size=lambda c: _pair(c.image_size),
        num_prefix=lambda c: 1,
        part=_without_pooler,
        unused=("pooler.dense.weight", "pooler.dense.bias"),
        statistics=((0.5,) * 3, (0.5,) * 3),
    ),
    "vjepa2": Architecture(
        "VJEPA2Config",
        "VJEPA2Model",
        patch=lambda c: (c.tubelet_size, *_pair(c.patch_size)),
        num_frames=lambda c: c.frames_per_clip,
        size=lambda c: _pair(c.crop_size),
        takes_any_length=True,
        call=lambda network, x: network(pixel_values_videos=x),
        part=lambda network: network.encoder,
    ),
    "dinov2": _dinov2("Dinov2Config", "Dinov2Model", lambda c: 1),
    "dinov2_with_registers": _dinov2(
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        lambda c: 1 + c.num_register_tokens,
    ),
}
"""The known architectures, by `model_type` of a config."""


class TransformerFeatures(nn.Module):
    """The grid of a Transformer's last tokens, as a feature map.

    Args:
        network: A network of `transformers`.
        architecture: Its family.
        config: Its config.

    Shapes:
        - **clip** `[B, 3, T_in, H_in, W_in]`, or frames `[M, 3, H_in, W_in]`
        - **output** `[B, C, T, H, W]`, or `[M, C, H, W]`
    """

    def __init__(self, network: nn.Module, architecture: Architecture, config: Any) -> None:
        super().__init__()
        self.network = network
        self._call = architecture.call
        self.patch = architecture.patch(config)
        self.num_prefix = architecture.num_prefix(config)
        self.is_frame_last = architecture.is_frame_last

    def forward(self, clip: Tensor) -> Tensor:
        if clip.dim() == 4:
            sizes = [
                size // step for size, step in zip(clip.shape[2:], self.patch[1:], strict=True)
            ]
            return self._tokens(clip).transpose(1, 2).unflatten(2, sizes)
        sizes = [size // step for size, step in zip(clip.shape[2:], self.patch, strict=True)]
        # [B, N, C]
        tokens = self._tokens(clip.transpose(1, 2))
        if self.is_frame_last:
            return tokens.transpose(1, 2).unflatten(2, [*sizes[1:], sizes[0]]).movedim(-1, 2)
        return tokens.transpose(1, 2).unflatten(2, sizes)

    def _tokens(self, x: Tensor) -> Tensor:
        return self._call(self.network, x).last_hidden_state[:, self.num_prefix :]


def build_transformer(name: str, weights: str | Path | None = None) -> Backbone:
    """A Transformer of the Hugging Face library as a backbone.

    Its config is read as data: nothing in it chooses a class but `model_type`, which must be one of
    `ARCHITECTURES`. Weights are read from safetensors alone.

    Args:
        name: `hf:<folder>`, with a `config.json`; `hf:<model>` or `hf:<model>@<revision>` of the
            hub, of which the config is fetched; or `hf:{...}`, the config itself as JSON.
        weights: `DEFAULT` for those of the folder or of the hub, or a file with a state dict;
            random weights when not given.

    Raises:
        ValueError: If `transformers` is missing, or the config is not of a known architecture.
        DataError: If a file is missing, or holds the weights of another network.
    """
    source = name.removeprefix(PREFIX)
    folder = None if is_architecture(name) else find_folder(source, weights == "DEFAULT")
    values = read_json(folder / "config.json") if folder else _json(source)
    library = import_extra("transformers", "hf", name if folder else _short(values))
    architecture, config = _config(library, values, name, is_strict=folder is None)
    state, label = _state(name, folder, weights)
    network = _network(library, architecture, config, state, label or name)
    size = architecture.size(config)
    features: nn.Module = TransformerFeatures(architecture.part(network), architecture, config)
    patch = architecture.patch(config)
    num_frames = architecture.num_frames(config)
    clip_size: ClipSize | None = (None if architecture.takes_any_length else num_frames, *size)
    if architecture.takes_images:
        features, clip_size = FrameByFrame(features), None
    mean, std = architecture.statistics
    usual = Preprocessing(num_frames, max(size), max(size), mean, std)
    return Backbone(
        features,
        config.hidden_size,
        patch,
        preprocessing_of(folder, usual, is_fixed=clip_size is not None) if folder else usual,
        rounded_down=patch,
        clip_size=clip_size,
        name=name if folder else _short(values),
        weights=label,
        config=PREFIX + json_text(_to_values(config), PREFIX, separators=(",", ":")),
    )


def is_architecture(name: str) -> bool:
    """Whether the name of such a backbone holds its whole config, and refers to no file."""
    return name.startswith(PREFIX + "{")


def _short(values: Mapping[str, Any]) -> str:
    return f"{PREFIX}{values.get('model_type')}"


def _json(text: str) -> dict[str, Any]:
    try:
        values = parse_json(text)
    except ValueError as error:
        raise ValueError(f"backbone {PREFIX}{{...}} must be a config as JSON: {error}") from error
    return values


def _config(
    library: Any, values: Mapping[str, Any], name: str, is_strict: bool
) -> tuple[Architecture, Any]:
    """The family and the config of plain values.

    Options of the library that are no part of the architecture, such as classes of an author's
    own, kernels and quantisation, are never passed on.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise ValueError(
            f"backbone {name}: model_type must be one of {', '.join(ARCHITECTURES)} (got {kind!r})"
        )
    architecture = ARCHITECTURES[kind]
    cls = getattr(library, architecture.config)
    known = _fields(cls)
    unknown = [key for key in values if key not in known and key != "model_type"]
    if is_strict and unknown:
        raise ValueError(f"backbone {_short(values)}: {architecture.config} has no {unknown[0]!r}")
    chosen = {key: value for key, value in values.items() if key in known}
    for key, value in chosen.items():
        entries = value if isinstance(value, list) else [value]
        if not all(isinstance(entry, int | float | str | None) for entry in entries):
            raise ValueError(f"backbone {name}: {key} must be a plain value (got {value!r})")
    try:
        config = cls(**chosen)
    except Exception as error:  # the library checks types by errors of its own
        reason = " ".join(str(error).split())
        raise ValueError(f"backbone {name}: not a config of {kind}: {reason}") from error
    if kind == "timesformer" and config.attention_type == "space_only":
        raise ValueError(f"backbone {name}: attention_type must not be space_only")
    return architecture, config


def _fields(cls: Any) -> list[str]:
    """The options of an architecture; those that all of the library's configs have are left out."""
    return [key for key in cls.__annotations__ if not key.startswith("_") and key != "model_type"]


def _to_values(config: Any) -> dict[str, Any]:
    """The whole architecture, as JSON holds it."""
    return {"model_type": config.model_type} | {
        key: getattr(config, key) for key in sorted(_fields(type(config)))
    }


def _state(
    name: str, folder: Path | None, weights: str | Path | None
) -> tuple[dict[str, Tensor] | None, str | None]:
    """A state dict, and its name; none for random weights."""
    if weights is None:
        return None, None
    if weights == "DEFAULT" and folder is not None:
        return read_weights(folder), name
    if not Path(weights).is_file():
        published = "DEFAULT" if folder else "none"
        raise ValueError(
            f"weights of {name}: no file and no published weights {weights} "
            f"(published: {published})"
        )
    return state_dict_in(read_tensors(weights), weights), str(weights)


def _network(
    library: Any,
    architecture: Architecture,
    config: Any,
    state: dict[str, Tensor] | None,
    source: str,
) -> nn.Module:
    """The network, with random weights or those of a state dict.

    Args:
        source: The name of the backbone, or of its weights if there are any, for the error.
    """
    cls = getattr(library, architecture.model)
    with _quiet(library):
        if state is None:
            try:
                network = cls(config)
            except Exception as error:  # an activation that is unknown, heads that do not fit
                reason = first_line(error)
                raise ValueError(f"backbone {source}: not a network: {reason}") from error
        else:
            try:
                network, found = cls.from_pretrained(
                    None,
                    config=config,
                    state_dict=state,
                    local_files_only=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
            except Exception as error:  # shapes that differ
                raise DataError(
                    f"{source}: not weights of {architecture.model}: {first_line(error)}"
                ) from error
            missing = sorted(key for key in found["missing_keys"] if key not in architecture.unused)
            if missing:
                raise DataError(
                    f"{source}: not weights of {architecture.model}: {len(missing)} keys are "
                    f"missing, the first: {missing[0]}"
                )
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and key not in architecture.unused)
    return network.train()  # `from_pretrained` gives it in evaluation, a constructor does not


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """No progress bar and no report of weights that a classifier or a decoder has."""
    log = library.utils.logging
    level, has_bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if has_bar:
            log.enable_progress_bar()
