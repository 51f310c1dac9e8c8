"""Arguments of functions and classes, read from their source code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property

from taghead.cli.source import Definition, Module, resolve

BUILTIN = ("int", "float", "bool", "str")
AS_TEXT = ("Path", "_PATH", "PathLike")
WITHOUT_ARGUMENTS = ("object", "Protocol", "Generic", "ABC", "NamedTuple")


@dataclass(frozen=True)
class Kinds:
    """What values an argument takes.

    Args:
        scalars: Those of `int`, `float`, `bool`, `str` and `None`.
        choices: The values of a `Literal`.
        classes: Classes whose objects it takes.
        is_open: Whether there may be others.
    """

    scalars: frozenset[str] = frozenset()
    choices: tuple[str, ...] = ()
    classes: tuple[Definition, ...] = ()
    is_open: bool = False

    def __or__(self, other: Kinds) -> Kinds:
        return Kinds(
            self.scalars | other.scalars,
            self.choices + other.choices,
            self.classes + other.classes,
            self.is_open or other.is_open,
        )


OPEN = Kinds(is_open=True)
NONE = ast.Constant(value=None)
OPTIONAL_TEXT = ast.parse("str | None", mode="eval").body


@dataclass(frozen=True, eq=False)
class Argument:
    """An argument of a function or a class."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    owner: Definition
    about: str = ""

    @cached_property
    def kinds(self) -> Kinds:
        return OPEN if self.annotation is None else kinds(self.annotation, self.owner.module)

    @property
    def is_required(self) -> bool:
        return self.default is None

    @property
    def is_list(self) -> bool:
        return self.annotation is not None and ast.unparse(self.annotation).startswith("list[")

    @property
    def takes_file(self) -> bool:
        """Whether its arguments may stand in a file."""
        return bool(self.kinds.classes) and "str" not in self.kinds.scalars

    @property
    def help(self) -> str:
        return self.about or descriptions(self.owner).get(self.name, "")


@dataclass(frozen=True)
class Signature:
    """The arguments of a function or a class.

    Args:
        arguments: By name.
        is_open: Whether there may be others.
    """

    arguments: dict[str, Argument] = field(default_factory=dict)
    is_open: bool = False

    def __or__(self, other: Signature) -> Signature:
        return Signature({**other.arguments, **self.arguments}, self.is_open or other.is_open)


ANY = Signature(is_open=True)


def kinds(annotation: ast.expr, scope: Module) -> Kinds:
    """The values that an annotation allows."""
    match annotation:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return kinds(left, scope) | kinds(right, scope)
        case ast.Constant(value=None):
            return Kinds(frozenset({"None"}))
        case ast.Constant(value=str(text)):
            return kinds(ast.parse(text, mode="eval").body, scope)
        case ast.Subscript(value=value, slice=inner):
            members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            outer = ast.unparse(value).rpartition(".")[2]
            if outer == "Literal":
                if not all(isinstance(each, ast.Constant) for each in members):
                    return OPEN  # choices that are collected at import: the live parser checks them
                return Kinds(choices=tuple(str(ast.literal_eval(each)) for each in members))
            if outer not in ("Optional", "Union"):
                return OPEN
            found = Kinds(frozenset({"None"}) if outer == "Optional" else frozenset())
            for each in members:
                found |= kinds(each, scope)
            return found
        case ast.Name(id=name) if name in BUILTIN:
            return Kinds(frozenset({name}))
        case ast.Name(id=name) if name in AS_TEXT:
            return Kinds(frozenset({"str"}))
        case ast.Name() | ast.Attribute():
            found_at = resolve(annotation, scope)
            if found_at is None or isinstance(found_at.node, ast.FunctionDef):
                return OPEN
            if isinstance(found_at.node, ast.ClassDef):
                return Kinds(classes=(found_at,))
            return kinds(found_at.node, found_at.module)
    return OPEN


def signature(definition: Definition | None) -> Signature:
    """The arguments of a function, or those that make an object of a class."""
    if definition is None or isinstance(definition.node, ast.expr):
        return ANY
    if isinstance(definition.node, ast.FunctionDef):
        return _of_function(definition.node, definition, skip=0)
    methods = {n.name: n for n in definition.node.body if isinstance(n, ast.FunctionDef)}
    if "__new__" in methods:
        return ANY
    if init := methods.get("__init__"):
        own = _of_function(init, definition, skip=1)
        if init.args.kwarg is None:
            return own
        read, given, is_all = _keywords(init, init.args.kwarg.arg)
        extra = {name: Argument(name, None, NONE, definition) for name in read}
        return own | _of_bases(definition, given) | Signature(extra, not is_all)
    if any("dataclass" in ast.unparse(node) for node in definition.node.decorator_list):
        return Signature(dict(_fields(definition))) | _of_bases(definition, set())
    return _of_bases(definition, set())


def _of_function(node: ast.FunctionDef, owner: Definition, skip: int) -> Signature:
    args = node.args
    named = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(named) - len(args.defaults)), *args.defaults, *args.kw_defaults]
    every = zip([*named, *args.kwonlyargs], defaults, strict=True)
    found = [Argument(arg.arg, arg.annotation, default, owner) for arg, default in every]
    is_open = args.kwarg is not None and skip == 0
    return Signature({argument.name: argument for argument in found[skip:]}, is_open)


def _keywords(init: ast.FunctionDef, kwargs: str) -> tuple[set[str], set[str], bool]:
    """What an `__init__` does with its own `**kwargs`.

    Returns:
        The keywords that it reads; those that it gives to its base itself; and whether it does
        nothing else with them but hand them to its base.
    """
    read: set[str] = set()
    given: set[str] = set()
    others = 0
    for node in ast.walk(init):
        match node:
            case ast.Name(id=name) if name == kwargs:
                others += 1
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key))) | (
                ast.Call(
                    func=ast.Attribute(value=ast.Name(id=name), attr="setdefault" | "pop" | "get"),
                    args=[ast.Constant(value=str(key)), *_],
                )
            ) if name == kwargs:
                others -= 1
                read.add(key)
            case ast.Call(func=func, keywords=keywords) if ast.unparse(func) == "super().__init__":
                others -= any(k.arg is None and ast.unparse(k.value) == kwargs for k in keywords)
                given |= {keyword.arg for keyword in keywords if keyword.arg}
    return read, given, others == 0


def _of_bases(definition: Definition, without: set[str]) -> Signature:
    assert isinstance(definition.node, ast.ClassDef)
    found = Signature()
    for base in definition.node.bases:
        if isinstance(base, ast.Subscript):
            base = base.value
        if ast.unparse(base).rpartition(".")[2] not in WITHOUT_ARGUMENTS:
            found |= signature(resolve(base, definition.module))
    arguments = {name: each for name, each in found.arguments.items() if name not in without}
    return Signature(arguments, found.is_open)


COMPONENT = "taghead.class_paths.Spec"


def is_component(argument: Argument | None) -> bool:
    """Whether an argument takes a component: a name, or a class path with options."""
    classes = argument.kinds.classes if argument is not None else ()
    return any(definition.path == COMPONENT for definition in classes)


def is_protocol(definition: Definition) -> bool:
    """Whether a class only says what others have."""
    node = definition.node
    return isinstance(node, ast.ClassDef) and "Protocol" in map(ast.unparse, node.bases)


def _fields(definition: Definition) -> Iterator[tuple[str, Argument]]:
    assert isinstance(definition.node, ast.ClassDef)
    for node in definition.node.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=default):
                text = ast.unparse(default) if default else ""
                if "ClassVar" not in ast.unparse(annotation) and "init=False" not in text:
                    yield name, Argument(name, annotation, default, definition)


@cache
def descriptions(definition: Definition) -> dict[str, str]:
    """What the docstring says of each argument."""
    from docstring_parser import DocstringStyle, ParseError, parse

    found: dict[str, str] = {}
    node = definition.node
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        inner = node.body if isinstance(node, ast.ClassDef) else []
        inits = [n for n in inner if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        for each in (*inits, node):
            try:
                read = parse(ast.get_docstring(each) or "", DocstringStyle.GOOGLE)
            except ParseError:
                continue
            found.update((p.arg_name, " ".join((p.description or "").split())) for p in read.params)
    return found


def summary(definition: Definition | None) -> str:
    """The first line of the docstring."""
    if definition is None or isinstance(definition.node, ast.expr):
        return ""
    return (ast.get_docstring(definition.node) or "").partition("\n")[0]
