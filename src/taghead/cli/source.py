"""Definitions of classes and functions, found in source files by dotted path: nothing is imported.

Options of a command are arguments of functions and classes. A parser built from imported objects
needs torch, lightning and torch_geometric first: 5 s of CPU time before a misspelt option is
reported. Reading the few files that define them takes 0.1 s. A stored list of all options would be
as fast, but outdated with each release of Lightning or PyG; griffe reads sources too, but whole
packages.

What cannot be known without running code is `None`: a compiled module, names made at import.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path

_PENDING: set[str] = set()


class MissingNameError(Exception):
    """A module that has no such name.

    Args:
        module: The module's dotted path.
        name: The name.
        names: Those that it has.
    """

    def __init__(self, module: str, name: str, names: Iterable[str]) -> None:
        super().__init__(f"{module} has no {name}")
        self.module = module
        self.name = name
        self.names = [known for known in names if not known.startswith("_")]


@dataclass(frozen=True)
class Definition:
    """A class, a function or the value of a name.

    Args:
        path: Its dotted path, where it is defined.
        node: What defines it.
        module: The module whose names it uses.
    """

    path: str
    node: ast.ClassDef | ast.FunctionDef | ast.expr
    module: Module


@dataclass(frozen=True, eq=False)
class Module:
    """A source file; a package's `__init__.pyi` counts where names are made lazily from it."""

    name: str
    file: Path

    @cached_property
    def names(self) -> dict[str, ast.ClassDef | ast.FunctionDef | ast.expr | str]:
        """What each name is bound to; to a dotted path, if it is imported."""
        return dict(self._bound(self._body))

    @cached_property
    def stars(self) -> list[str]:
        """The modules that all names are imported from."""
        return [
            self._origin(node)
            for node in self._body
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
        ]

    @property
    def is_open(self) -> bool:
        """Whether it may have names that the source does not show."""
        return "__getattr__" in self.names and not self._stub.exists()

    @property
    def _stub(self) -> Path:
        return self.file.with_suffix(".pyi")

    @cached_property
    def _body(self) -> list[ast.stmt]:
        files = [self.file, *([self._stub] if self._stub.exists() else [])]
        return [node for file in files for node in ast.parse(file.read_text(encoding="utf-8")).body]

    def _bound(
        self, body: Iterable[ast.AST]
    ) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.expr | str]]:
        for node in body:
            match node:
                case ast.ClassDef() | ast.FunctionDef():
                    yield node.name, node
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    yield name, value
                case ast.Assign(targets=[ast.Tuple(elts=names)], value=value):
                    yield from ((n.id, value) for n in names if isinstance(n, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    yield name, value
                case ast.Import(names=aliases):
                    for alias in aliases:
                        top = alias.name.partition(".")[0]
                        yield alias.asname or top, alias.name if alias.asname else top
                case ast.ImportFrom(names=aliases):
                    origin = self._origin(node)
                    yield from ((a.asname or a.name, f"{origin}.{a.name}") for a in aliases)
                case ast.If():  # what is there at run time stands behind `if TYPE_CHECKING`
                    yield from self._bound([*node.body, *node.orelse])
                case ast.Try():
                    inner = [part for handler in node.handlers for part in handler.body]
                    yield from self._bound([*inner, *node.body, *node.orelse])

    def _origin(self, node: ast.ImportFrom) -> str:
        """The module of a `from` import."""
        if not node.level:
            return node.module or ""
        package = self.name.split(".")
        up = node.level - (self.file.stem == "__init__")
        return ".".join([*package[: len(package) - up], *([node.module] if node.module else [])])


@cache
def module(path: str) -> Module | None:
    """A module by dotted path; `None` if there is none, or no source of it."""
    parent, _, name = path.rpartition(".")
    if not parent:
        file = _top(path)
    else:
        package = module(parent)
        folder = package.file.parent if package and package.file.stem == "__init__" else None
        files = [] if folder is None else [folder / name / "__init__.py", folder / f"{name}.py"]
        file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    found = Module(path, file)
    try:
        _ = found.names
    except (SyntaxError, ValueError):  # the import tells what is wrong
        return None
    return found


def _top(name: str) -> Path | None:
    if name == "__main__":
        return None
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec
        return None
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


@cache
def find(path: str) -> Definition | None:
    """What a dotted path leads to; `None` if its source does not tell.

    Raises:
        MissingNameError: If a module in it is known, and has no such name.
    """
    if path in _PENDING:  # an import that leads back, as that of a compiled submodule
        return None
    _PENDING.add(path)
    try:
        return _found(path)
    finally:
        _PENDING.remove(path)


def _found(path: str) -> Definition | None:
    first, *rest = path.split(".")
    found = module(first)
    for number, name in enumerate(rest):
        if found is None:
            return None
        inner = module(f"{found.name}.{name}")
        if inner is None:
            is_last = number == len(rest) - 1
            definition = member(found, name)
            return definition if is_last else None
        found = inner
    return None


def member(holder: Module, name: str) -> Definition | None:
    """What a name means in a module; raises as :func:`find` does."""
    bound = holder.names.get(name)
    if isinstance(bound, str):
        try:
            return find(bound)
        except MissingNameError:  # an import that fails, or a name made by running code
            return None
    if bound is not None:
        return Definition(f"{holder.name}.{name}", bound, holder)
    unknown = holder.is_open
    names = {*holder.names}
    for star in holder.stars:
        origin = module(star)
        if origin is None:
            unknown = True
            continue
        try:
            return member(origin, name)
        except MissingNameError as error:
            names.update(error.names)
    if unknown:
        return None
    raise MissingNameError(holder.name, name, sorted(names))


def resolve(expression: ast.expr, scope: Module) -> Definition | None:
    """What a name or a dotted name means in a module; `None` if that is not known."""
    parts = ast.unparse(expression).split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    try:
        if len(parts) == 1:
            return member(scope, parts[0])
        origin = scope.names.get(parts[0])
        return find(".".join([origin, *parts[1:]])) if isinstance(origin, str) else None
    except MissingNameError:  # a builtin, or what a star import brings
        return None


def forget() -> None:
    """Drops what was read: files and `sys.path` may have changed."""
    module.cache_clear()
    find.cache_clear()
