"""What stands for a component: a name, a class path, a mapping, a class or another object."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import register_type
from torch import nn

from taghead.class_paths import Spec
from taghead.components.classes import find_class
from taghead.components.component import (
    AnyComponent,
    Component,
    Copy,
    Function,
    init_args_of,
    partial_arguments,
)
from taghead.errors import did_you_mean

if TYPE_CHECKING:
    ComponentLike = Any
else:
    ComponentLike = Spec  # what the command line and `cli.signature` read
register_type(Spec, serializer=lambda spec: spec.value)  # a parser takes it as it is written


def _known(names: Mapping[str, type[Any] | Component]) -> str:
    """The names that a component may be given by; PyG's classes are not listed."""
    own = [name for name in names if not name[0].isupper()]
    listed = f"one of {', '.join(own)}, " if own else ""
    return listed + "the name of a class of PyG, " * (len(own) < len(names))


def as_component(
    value: Any,
    what: str,
    names: Mapping[str, type[Any] | Component],
    base: type[Any] = nn.Module,
) -> AnyComponent:
    """The component that a value stands for.

    Args:
        value: A name, a class path, a mapping with `class_path` and `init_args`, a class, a
            `functools.partial` of one, a module of which copies are made, or a function.
        what: The argument's name, for errors.
        names: The classes that have names, alone or with options.
        base: What a class must be a subclass of.

    Raises:
        ValueError: If it is none of them; the message has the argument's name.
    """
    value = value.value if isinstance(value, Spec) else value
    try:
        if isinstance(value, AnyComponent):
            return value
        if isinstance(value, str):
            return _by_path(value, {}, names, base)
        if isinstance(value, Mapping) and "class_path" in value:
            return _by_path(value["class_path"], init_args_of(value), names, base)
        if isinstance(value, functools.partial) and inspect.isclass(value.func):
            _check_base(value.func, base)
            return Component(value.func, partial_arguments(value))
        if inspect.isclass(value):
            _check_base(value, base)
            return Component(value)
        if isinstance(value, base) and isinstance(value, nn.Module):
            return Copy(value)
    except ValueError as error:
        between = " " if str(error).startswith("must ") else ": "
        raise ValueError(f"{what}{between}{error}") from error
    if callable(value) and not isinstance(value, nn.Module):
        return Function(value, what)
    known = _known(names)
    raise ValueError(f"{what} must be {known}a class path, a class or an object (got {value!r})")


def _by_path(
    path: Any, options: dict[str, Any], names: Mapping[str, type[Any] | Component], base: type[Any]
) -> Component:
    if isinstance(path, str) and path in names:
        found = names[path]
        if isinstance(found, Component):
            return Component(found.cls, options, path, found.preset)
        return Component(found, options, path)
    if isinstance(path, str) and "." not in path and names:
        near = did_you_mean(path, names)
        raise ValueError(f"must be {_known(names)}a class path (got {path!r}){near}")
    return Component(find_class(path, base), options)


def _check_base(cls: type[Any], base: type[Any]) -> None:
    if not issubclass(cls, base):
        raise ValueError(f"must be a {base.__name__} class (got {cls!r})")
