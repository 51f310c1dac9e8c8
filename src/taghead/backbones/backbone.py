"""The base class of backbones (clip -> feature map), and the spec from which one is built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from taghead.graph.grid import Grid
from taghead.video.preprocessing import Preprocessing

Size3 = tuple[int, int, int]
"""Sizes along (t, h, w)."""


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
        clip_size: Size3 | None = None,
        name: str | None = None,
        weights: str | None = None,
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

    def forward(self, clip: Tensor) -> Tensor:
        self._check_size((clip.size(2), clip.size(3), clip.size(4)))
        return self.features(clip)

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
        if self.name is not None:
            return self.name
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
        if self.clip_size is not None and clip != self.clip_size:
            wanted, given = ("x".join(map(str, size)) for size in (self.clip_size, clip))
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
class BackboneSpec:
    """How to build a backbone: the network, and the arguments of :class:`Backbone`.

    Args:
        build: Builds the whole network, with the state-dict keys of its published weights.
        features: Takes from the whole network the part before the pooling; the weights of other
            parts are not used.
        channels, stride, rounded_down, clip_size: As in `Backbone`.
        preprocessing: The default preprocessing.
        weights: The published weights by name, the default first.
    """

    build: Callable[[], nn.Module]
    features: Callable[[nn.Module], nn.Module]
    channels: int
    stride: Size3
    preprocessing: Preprocessing
    weights: Mapping[str, PublishedWeights] = field(default_factory=dict)
    rounded_down: Size3 = (1, 1, 1)
    clip_size: Size3 | None = None
