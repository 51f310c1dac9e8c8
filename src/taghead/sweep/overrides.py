"""Dotted overrides of a config of `taghead fit`, as its command line has them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

KEY = re.compile(r"(trainer|model|data)(\.[A-Za-z_]\w*)+")
OF_A_CLASS = ("class_path", "init_args", "dict_kwargs")
Config = dict[str, Any]


def overridden(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A copy of a config in which values are replaced.

    A class stands in a config as `class_path` and `init_args`; a key leaves `init_args` out, as on
    the command line: `model.head.mode`.

    Args:
        config: The config.
        overrides: Values by dotted key.

    Raises:
        ValueError: If a key leads into a value that has no arguments.
    """
    config = copy.deepcopy(config)
    for key, value in overrides.items():
        place: Config = config
        *path, last = key.split(".")
        for depth, name in enumerate(path):
            place = _group(place, name, ".".join(path[: depth + 1]), key)
        _arguments(place, last)[last] = copy.deepcopy(value)
    return config


def _group(place: Config, name: str, so_far: str, key: str) -> Config:
    """The group of a name, made where there is none."""
    place = _arguments(place, name)
    inner = place.setdefault(name, {})
    if isinstance(inner, str) and "." in inner:  # a class without arguments
        inner = place[name] = {"class_path": inner}
    if not isinstance(inner, dict):
        raise ValueError(f"{key}: {so_far} has no arguments (got {inner!r})")
    return inner


def _arguments(place: Config, name: str) -> Config:
    if "class_path" in place and name not in OF_A_CLASS:
        return place.setdefault("init_args", {})
    return place


def differences(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two configs differ: the dotted key, and both values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            inner = name if key == "init_args" else f"{name}.{key}".lstrip(".")
            yield from differences(one.get(key), other.get(key), inner)
    elif one != other:
        yield name, one, other
