"""Backbones by name or class path, with random or pretrained weights."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

from torch import nn

from taghead import backbones
from taghead.backbones.backbone import Backbone, BackboneSpec
from taghead.backbones.weights import download, load_features
from taghead.class_paths import import_class
from taghead.files import read_tensors, state_dict_in
from taghead.video.preprocessing import Preprocessing

PACKAGES = ("taghead",)  # where classes of backbones lie, beside modules of one's own


def collect_specs() -> dict[str, BackboneSpec]:
    """Collects the `SPECS` of all modules of this package; a new module needs no other entry.

    Raises:
        ValueError: If two modules have a spec of the same name.
    """
    found: dict[str, BackboneSpec] = {}
    origin: dict[str, str] = {}
    for info in pkgutil.iter_modules(backbones.__path__):
        module = importlib.import_module(f"{backbones.__name__}.{info.name}")
        for name, spec in getattr(module, "SPECS", {}).items():
            if name in found:
                raise ValueError(
                    f"backbone {name} is in SPECS of {origin[name]} and {module.__name__}"
                )
            found[name], origin[name] = spec, module.__name__
    return found


BACKBONES = collect_specs()


def build_backbone(name: str, weights: str | Path | None = None) -> Backbone:
    """A backbone by name.

    Args:
        name: One of `BACKBONES`, or the class path of a `Backbone` of your own, in a module that
            was named (:func:`~taghead.class_paths.allow_modules`).
        weights: Pretrained weights: a file with a state dict, or the name of published weights,
            such as `DEFAULT`, which are downloaded once into torch.hub's folder; random weights
            when not given. A classifier's weights are ignored. A class of your own gets this as its
            argument `weights`.

    Raises:
        ValueError: If there is no such backbone or no such weights, or pytorchvideo is missing.
        DataError: If the weights cannot be downloaded or belong to another network.
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
    preprocessing, loaded = _load(name, spec, model, features, weights)
    return Backbone(
        features,
        spec.channels,
        spec.stride,
        preprocessing,
        rounded_down=spec.rounded_down,
        clip_size=spec.clip_size,
        name=name,
        weights=loaded,
    )


def backbone_from_config(name: str) -> Backbone:
    """The backbone of a saved model's config, with random weights.

    Raises:
        ValueError: If there is no such backbone, or its class path is not allowed.
    """
    if not isinstance(name, str):
        raise ValueError(f"backbone must be a name or a class path (got {name!r})")
    return build_backbone(name)


def _load(
    name: str,
    spec: BackboneSpec,
    model: nn.Module,
    features: nn.Module,
    weights: str | Path | None,
) -> tuple[Preprocessing, str | None]:
    """Loads the weights; returns the preprocessing that they were trained with, and their name."""
    if weights is None:
        return spec.preprocessing, None
    if Path(weights).is_file():
        state = state_dict_in(read_tensors(weights), weights)
        load_features(name, model, features, state, weights)
        return spec.preprocessing, str(weights)
    label = next(iter(spec.weights), "") if weights == "DEFAULT" else str(weights)
    if label not in spec.weights:
        known = ", ".join(spec.weights) or "none"
        raise ValueError(
            f"weights of {name}: no file and no published weights {weights} (published: {known})"
        )
    published = spec.weights[label]
    state = state_dict_in(download(published.url), published.url)
    load_features(name, model, features, state, published.url)
    return published.preprocessing, label


def _own_backbone(path: str, weights: str | Path | None) -> Backbone:
    """A backbone of a user's own class."""
    try:
        cls: Any = import_class(path, Backbone, PACKAGES)
    except ValueError as error:
        raise ValueError(f"backbone: {error}") from error
    options = {} if weights is None else {"weights": weights}
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        given = ", ".join(options) or "no arguments"
        raise ValueError(f"backbone: {path} cannot be built with {given}: {error}") from error
    return cls(**options)
