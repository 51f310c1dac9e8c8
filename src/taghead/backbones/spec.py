"""How a backbone is built and what it states, in one place for each name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from taghead.backbones.base import Size3
from taghead.video.preprocessing import Preprocessing


@dataclass(frozen=True)
class PublishedWeights:
    """Trained weights that can be downloaded.

    Args:
        url: Where they are; a file name that ends in `-<hexadecimal digits>` begins with the
            file's SHA-256, which is checked then.
        preprocessing: How the clips were made that they were trained on.
    """

    url: str
    preprocessing: Preprocessing


@dataclass(frozen=True)
class BackboneSpec:
    """How a backbone is built and what it states.

    Args:
        build: Builds the whole network, with the keys that its published weights have.
        features: Takes the network's part before the pooling out of it; weights of other parts
            are not used.
        channels, stride, rounded_down, clip_size: As `Backbone` has them.
        preprocessing: How clips are made for it.
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
