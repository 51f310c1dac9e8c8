"""Class paths: which packages the classes of a config or of a model file may come from.

A config that you wrote is code; checkpoints, model folders, caches and stores are data. In either,
a class comes from the packages of this field, or from a module that you named yourself.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

PACKAGES = ("taghead", "torch", "torchvision", "torch_geometric", "lightning")
"""Packages whose classes a config may name."""

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)
"""An address, such as `https://...` or `s3://...`."""

T = TypeVar("T")


class Spec:
    """A component as a config or a command line has it: nothing of it is imported or built yet.

    Args:
        value: A name, a class path, a mapping with `class_path` and `init_args`, or lists and
            mappings of them.
    """

    def __init__(self, value: Any) -> None:
        self.value: Any = value.value if isinstance(value, Spec) else _plain(value)

    def __repr__(self) -> str:
        return repr(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.value == other.value


def written(value: Any) -> Any:
    """What a config has for a value: that of a :class:`Spec`, also of those in a list."""
    if isinstance(value, list | tuple) and any(isinstance(each, Spec) for each in value):
        return [written(each) for each in value]
    return value.value if isinstance(value, Spec) else value


def _plain(value: Any) -> Any:
    """A value without jsonargparse's mappings."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


_named: dict[str, None] = {}  # modules that were named, in their order


def allow_modules(names: Iterable[str]) -> None:
    """Imports modules of your own, whose classes configs and model files may name from then on.

    A module is found as Python finds it, or else in the working folder.

    Args:
        names: Dotted paths, such as `my_operators`.

    Raises:
        ValueError: If there is no such module, or it is one of Python's own.
    """
    for name in names:
        top = name.partition(".")[0] if isinstance(name, str) else ""
        if not _is_dotted(name) or top in sys.stdlib_module_names:
            reason = "must name modules of your own, such as my_operators"
            raise ValueError(f"modules {reason} (got {name!r})")
        if top not in sys.modules and importlib.util.find_spec(top) is None:
            _find_in_working_folder(top)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # of an import inside it
            folder = Path.cwd()
            raise ValueError(
                f"modules: there is no module {name}, neither installed nor in {folder}"
            ) from error
        _named[name] = None


def allowed_modules() -> list[str]:
    """The modules that were named."""
    return list(_named)


def is_allowed(path: str, named: Iterable[str] = ()) -> bool:
    """Whether a class path begins with an allowed package, or with a module that was named.

    Args:
        path: The class path.
        named: Modules that count as named beside those of `allow_modules`.
    """
    return any(path.startswith(f"{module}.") for module in (*PACKAGES, *_named, *named))


def is_named(path: str) -> bool:
    """Whether a class path begins with a module that was named."""
    return any(path.startswith(f"{module}.") for module in _named)


def refusal(path: str) -> str:
    """What is said of a class path that is not allowed."""
    module = path.rpartition(".")[0]
    refusal = f"{path} is not allowed: classes come from {', '.join(PACKAGES)}"
    if module.partition(".")[0] in sys.stdlib_module_names:
        return f"{refusal} and modules of your own (--modules), none from Python's {module}"
    return f"{refusal} and modules that you name: --modules={module} runs its code"


def import_class(path: object, base: type[T], packages: Sequence[str] = PACKAGES) -> type[T]:
    """The class of a path that a file holds; nothing is imported for a path that is not allowed.

    Args:
        path: The class path.
        base: What it must be a subclass of.
        packages: The packages in which it may lie, beside the modules that were named.

    Raises:
        ValueError: If it is not allowed, or leads to nothing or to another object.
    """
    if not isinstance(path, str) or "." not in path or not _is_dotted(path):
        raise ValueError(f"must be a class path, package.Class (got {path!r})")
    if not any(path.startswith(f"{module}.") for module in (*packages, *_named)):
        raise ValueError(refusal(path))
    module, _, name = path.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"there is no class {path}: {error}") from error
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ValueError(f"{path} must be a subclass of {base.__name__} (got {found!r})")
    return found


def check_plain_options(options: object) -> dict[str, Any]:
    """The options of a class as a file holds them: no option is a class to be built.

    Raises:
        ValueError: If they are no mapping of names, or one of them is a class path.
    """
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise ValueError(f"init_args must be options by name (got {options!r})")
    for name, value in options.items():
        if _holds_class(value):
            raise ValueError(f"option {name} must be a plain value, not a class (got {value!r})")
    return options


def _holds_class(value: object) -> bool:
    if isinstance(value, dict):
        return "class_path" in value or any(map(_holds_class, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_class, value))


def restrict_parser() -> None:
    """Holds jsonargparse's parsers to the same class paths, and has them read no address.

    It is called after Lightning's command line is imported, which has them read addresses.
    """
    from jsonargparse import set_parsing_settings

    set_parsing_settings(
        import_path_allowlist=[*PACKAGES, *_named],
        import_path_denylist=["*"],
        config_read_mode_urls_enabled=False,
        config_read_mode_fsspec_enabled=False,
    )


def refused_path(message: str) -> str | None:
    """What jsonargparse's message of a class path that is not allowed says; `None` of others."""
    found = re.search(r"Importing '([^']+)' is not allowed", message)
    return refusal(found[1]) if found else None


def refuse_address(name: str, value: object) -> None:
    """Refuses an address where a file is wanted.

    Raises:
        ValueError: If the value is one.
    """
    if isinstance(value, str) and ADDRESS.fullmatch(value):
        raise ValueError(
            f"{name}: {value} is an address, and nothing is fetched: download the file, check it, "
            f"and give its path"
        )


def _is_dotted(path: object) -> bool:
    return isinstance(path, str) and all(part.isidentifier() for part in path.split("."))


class _NamedModules:
    """A finder of modules in a working folder: of those that were named, and no others."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        folder = self.folders.get(name)
        return None if folder is None else PathFinder.find_spec(name, [folder])


_finder = _NamedModules()


def _find_in_working_folder(name: str) -> None:
    _finder.folders[name] = str(Path.cwd())
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
