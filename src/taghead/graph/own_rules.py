"""Rules for edges of your own, by the path of a class or of a function."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from taghead.class_paths import is_named, refusal
from taghead.components import Component, to_plain
from taghead.files import json_text

ARGUMENT = "grid"  # of a function, by which it says what it is


class OwnRule:
    """A class or a function that makes edges: of a module that you named, with options.

    A function takes a grid, and its argument is called `grid`. A class is called with its options;
    its objects take a grid, or are a :class:`~taghead.graph.DynamicEdges`.

    Args:
        rule: The class or the function.
        options: The class's options.

    Raises:
        ValueError: If it is neither, or the class has no such option.
    """

    def __init__(self, rule: Any, options: Mapping[str, Any] | None = None) -> None:
        if not _makes_edges(rule):
            raise ValueError(
                f"relations: {_name(rule)} must be a function of `{ARGUMENT}`, or a class whose "
                f"objects are"
            )
        if options and not inspect.isclass(rule):
            raise ValueError(f"relations: {_name(rule)} is a function and has no options")
        self.rule = rule
        self.component = Component(rule, options) if inspect.isclass(rule) else None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> OwnRule | None:
        """The rule of a function that a file can hold; `None` for others."""
        can_be_held = inspect.isfunction(function) and "<" not in function.__qualname__
        return cls(function) if can_be_held and _makes_edges(function) else None

    @classmethod
    def of_object(cls, rule: Any) -> OwnRule:
        """The rule of a class, a `functools.partial` of one, or a function."""
        if isinstance(rule, functools.partial) and inspect.isclass(rule.func) and not rule.args:
            return cls(rule.func, rule.keywords)
        return cls(rule)

    @property
    def default_name(self) -> str:
        """The rule's name in lower case, with underscores: `ring_edges` of `RingEdges`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", _name(self.rule)).lower()

    def build(self) -> Any:
        """The function, or an object of the class."""
        return self.rule if self.component is None else self.component.build({})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnRule) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, str]:
        options = self.component.options if self.component else {}
        return self.rule, json_text(to_plain(options, "relations"), "relations", sort_keys=True)

    def to_config(self, name: str) -> str | dict[str, Any]:
        """The path, or a mapping with the path, the options and the relation's name.

        Raises:
            ValueError: If the rule is made in a function: no file can name it.
        """
        if "<" in self.rule.__qualname__:
            raise ValueError(
                f"relations: {name!r}: {_name(self.rule)} cannot be written to a file; define it "
                f"in a module"
            )
        path = f"{self.rule.__module__}.{self.rule.__qualname__}"
        options = to_plain(self.component.options, "relations") if self.component else {}
        if not options and name == self.default_name:
            return path
        return {"name": name, "class_path": path} | ({"init_args": options} if options else {})


def _makes_edges(rule: Any) -> bool:
    if inspect.isclass(rule):
        methods = {**{k: v for base in reversed(rule.__mro__) for k, v in vars(base).items()}}
        rule = methods.get("edges_of") or methods.get("__call__")
    if not callable(rule):
        return False
    names = list(inspect.signature(rule).parameters)
    return ARGUMENT in names and len(names) <= 3


def _name(rule: Any) -> str:
    return getattr(rule, "__name__", None) or repr(rule)


def find_rule(path: object, options: object = None) -> OwnRule:
    """The rule of a path that a file holds; only modules that were named are looked at.

    Raises:
        ValueError: If it is not allowed, or leads to nothing that makes edges.
    """
    if not isinstance(path, str) or not (is_named(path) or path.startswith("taghead.graph.")):
        raise ValueError(f"relations: {refusal(str(path))}")
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"relations: init_args must be options by name (got {options!r})")
    module, _, name = path.rpartition(".")
    try:
        rule = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"relations: there is no {path}: {error}") from error
    if not f"{getattr(rule, '__module__', '')}.".startswith(f"{module.partition('.')[0]}."):
        raise ValueError(f"relations: {path} is not allowed: it comes from another module")
    return OwnRule(rule, options)
