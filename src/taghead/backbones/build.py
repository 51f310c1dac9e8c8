"""Backbones by name, with or without trained weights."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from torch import nn

from taghead.backbones.base import Backbone
from taghead.backbones.networks import R2PLUS1D_34, TINY
from taghead.backbones.slowfast import SLOWFAST
from taghead.backbones.spec import BackboneSpec
from taghead.backbones.vision import VISION
from taghead.backbones.weights import download, load_features
from taghead.files import read_tensors, state_dict_in
from taghead.video.preprocessing import Preprocessing

BACKBONES: dict[str, BackboneSpec] = {
    "r2plus1d_tiny": TINY,
    "r2plus1d_34": R2PLUS1D_34,
    **VISION,
    **SLOWFAST,
}


def build_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """A backbone by name.

    Args:
        name: One of `BACKBONES`, or the class path of a `Backbone` of your own.
        weights: Trained weights: a file with a state dict, or the name of published ones, such as
            `DEFAULT`, which are downloaded once, into torch.hub's folder; random ones when not
            given. Weights of a classifier in it are not used, for however many classes it is. A
            class of your own is given them as the argument `weights`.

    Raises:
        ValueError: If there is no such backbone or no such weights, or pytorchvideo is missing.
        DataError: If the weights cannot be downloaded or are not this backbone's.
    """
    if "." in name:
        return _own_backbone(name, weights)
    if name not in BACKBONES:
        raise ValueError(
            f"backbone must be one of {', '.join(BACKBONES)}, or the class path of one of your own "
            f"(got {name!r})"
        )
    spec = BACKBONES[name]
    model = spec.build()
    features = spec.features(model)
    preprocessing, held = _load(name, spec, model, features, weights)
    return Backbone(
        features,
        spec.channels,
        spec.stride,
        preprocessing,
        rounded_down=spec.rounded_down,
        clip_size=spec.clip_size,
        name=name,
        weights=held,
    )


def backbone_from_config(name: str) -> Backbone:
    """The backbone that a saved model names, with random weights.

    A config may come from anywhere, and importing a module runs it: the class of a backbone of
    your own must be imported already.

    Raises:
        ValueError: If there is no such backbone.
    """
    module, _, cls = name.rpartition(".")
    if module and module not in sys.modules:
        raise ValueError(f"backbone: import {module!r} first: {cls} is none of this package's")
    return build_backbone(name)


def _load(
    name: str,
    spec: BackboneSpec,
    model: nn.Module,
    features: nn.Module,
    weights: str | Path | None,
) -> tuple[Preprocessing, str | None]:
    """Loads the weights; returns how their clips were made, and what they are."""
    if weights is None:
        return spec.preprocessing, None
    if Path(weights).is_file():
        state = state_dict_in(read_tensors(weights), weights)
        load_features(name, model, features, state, weights)
        return spec.preprocessing, str(weights)
    label = next(iter(spec.weights), "") if weights == "DEFAULT" else str(weights)
    if label not in spec.weights:
        published = ", ".join(spec.weights) or "none"
        raise ValueError(
            f"weights of {name}: no file and no published weights {weights} "
            f"(published: {published})"
        )
    entry = spec.weights[label]
    state = state_dict_in(download(entry.url), entry.url)
    load_features(name, model, features, state, entry.url)
    return entry.preprocessing, label


def _own_backbone(path: str, weights: str | Path | None) -> Backbone:
    """A backbone of the user's own class."""
    module, _, name = path.rpartition(".")
    try:
        cls: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"backbone: there is no class {path}: {error}") from error
    is_backbone = inspect.isclass(cls) and issubclass(cls, Backbone)
    if not is_backbone:
        raise ValueError(f"backbone: {path} must be a subclass of Backbone (got {cls!r})")
    options = {} if weights is None else {"weights": weights}
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        given = ", ".join(options) or "no arguments"
        raise ValueError(f"backbone: {path} cannot be built with {given}: {error}") from error
    return cls(**options)
