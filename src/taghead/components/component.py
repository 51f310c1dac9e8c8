"""A component: a class with options, a module that is copied, or a function."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import inits

from taghead.class_paths import is_named
from taghead.components.classes import PYG, find_class, path_of
from taghead.components.sequential import SEQUENTIAL, check_sequential

WIDTHS = ("in_channels", "out_channels", "channels", "hidden_channels")
VARIADIC = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
PLAIN = (str, int, float, bool, type(None))


def parameters_of(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a class; of one that takes `*args, **kwargs`, also those of its base."""
    found: dict[str, inspect.Parameter] = dict(inspect.signature(cls).parameters)
    bases = [base for base in cls.__mro__ if "__init__" in vars(base)][1:]
    while bases and {p.kind for p in found.values()} >= VARIADIC:
        found = {name: p for name, p in found.items() if p.kind not in VARIADIC}
        inner = list(inspect.signature(vars(bases.pop(0))["__init__"]).parameters.values())[1:]
        found |= {parameter.name: parameter for parameter in inner if parameter.name not in found}
    return found


class Component:
    """A class with options, from which an object is built wherever one is needed.

    Options hold plain values, lists and mappings, tensors, and components of their own; each object
    has its own copy of the modules among them.

    Args:
        cls: The class.
        options: Its arguments, by name; `args` for those of a class that takes `*args`.
        name: The name that it was given by, where it has one.
        preset: Options that the name stands for.

    Raises:
        ValueError: If the class has no such option.
    """

    def __init__(
        self,
        cls: type[Any],
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        preset: Mapping[str, Any] | None = None,
    ) -> None:
        self.cls = cls
        self.name = name
        self.preset = dict(preset or {})
        options = {**self.preset, **(options or {})}
        self.parameters = parameters_of(cls)
        self.options = {key: as_option(value) for key, value in options.items()}
        unknown = [key for key in self.options if key not in self.known_options()]
        if unknown and not self.takes_any:
            known = ", ".join(k for k, p in self.parameters.items() if p.kind is not p.VAR_KEYWORD)
            raise ValueError(f"{cls.__name__} has no option {unknown[0]!r}; it has {known}")
        for key, value in self.options.items():
            if isinstance(value, list) and "Tensor" in str(self._parameter(key).annotation):
                self.options[key] = torch.tensor(value)
        if path := SEQUENTIAL.get(cls.__name__):
            check_sequential(cls, self.options, path)

    def known_options(self) -> set[str]:
        """The names of the class's arguments."""
        return set(self.parameters)

    @property
    def takes_any(self) -> bool:
        """Whether the class takes arguments that its signature does not name."""
        return any(p.kind is p.VAR_KEYWORD for p in self.parameters.values())

    def _parameter(self, name: str) -> inspect.Parameter:
        missing = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
        return self.parameters.get(name, missing)

    def is_open(self, name: str) -> bool:
        """Whether an argument must be given, and is not."""
        parameter = self.parameters.get(name)
        return (
            parameter is not None
            and name not in self.options
            and parameter.default is inspect._empty
        )

    def build(self, given: Mapping[str, Any]) -> Any:
        """A new object.

        Args:
            given: Arguments that the class gets if it takes them and no option has them.

        Raises:
            ValueError: If it cannot be built; the message has the class and the reason.
        """
        return self.make(self.arguments(given))

    def arguments(
        self,
        given: Mapping[str, Any],
        widths: Callable[[str], Mapping[str, Any]] | None = None,
        build: Callable[[Component, Mapping[str, Any]], Any] | None = None,
    ) -> dict[str, Any]:
        """The arguments of a new object, with objects for the components among the options.

        Args:
            given: Arguments that the class gets if it takes them and no option has them.
            widths: The widths that components of an option get where they need them; `given` if
                there is no such function.
            build: Builds a component of the options; :meth:`build_inner` if there is no such
                function.
        """
        found = {name: value for name, value in given.items() if name in self.parameters}
        for name, value in self.options.items():
            inner = widths(name) if widths else given
            found[name] = _built(value, inner, build or self.build_inner)
        return found

    def make(self, arguments: dict[str, Any]) -> Any:
        """The class's object of these arguments; raises a ValueError if there is none."""
        positional: Any = ()
        for name, parameter in self.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional = arguments.pop(name, ())
        try:
            return self.cls(*positional, **arguments)
        except Exception as error:
            reason = str(error) or repr(error)
            raise ValueError(f"{self.cls.__name__} cannot be built: {reason}") from error

    @property
    def is_own(self) -> bool:
        """Whether the class is neither torch's nor PyG's."""
        return not self.cls.__module__.startswith(("torch.", f"{PYG}."))

    def build_inner(self, part: Component, given: Mapping[str, Any]) -> Any:
        """An object of a component among the options.

        A class of your own gets the component's factory, if the component lacks arguments; other
        components get the widths that they lack.
        """
        if self.is_own and part.is_incomplete:
            make: Callable[..., Any] = part.cls
            return functools.partial(make, **part.arguments({}))
        return part.build(part.open_widths(given))

    def open_widths(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The widths that a component among options gets: those that it needs and has not."""
        is_network = "channel_list" in self.parameters and "channel_list" not in self.options
        named = {name: given[name] for name in WIDTHS if name in given and name not in self.options}
        return {
            name: value
            for name, value in named.items()
            if self.is_open(name) or (is_network and name in ("in_channels", "out_channels"))
        }

    @property
    def is_incomplete(self) -> bool:
        """Whether the class needs arguments that no option has."""
        named = (n for n, p in self.parameters.items() if p.kind not in VARIADIC)
        return any(map(self.is_open, named))

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{type(self).__name__}({self.cls.__name__}{options})"

    def to_config(self) -> Any:
        """The name, or the class path and options as a YAML file holds them.

        Raises:
            ValueError: If no file can hold the class or an option.
        """
        options = {k: v for k, v in self.options.items() if not self._is_default_module(k, v)}
        if self.name is not None and options == self.preset:
            return self.name
        return {
            "class_path": path_of(self.cls),
            "init_args": {name: to_plain(value, name) for name, value in options.items()},
        }

    def _is_default_module(self, name: str, value: Any) -> bool:
        default = self._parameter(name).default
        module = value.module if isinstance(value, Copy) else None
        return isinstance(default, nn.Module) and repr(module) == repr(default)


class Copy:
    """A given module, of which each use gets a copy with parameters of its own.

    Args:
        module: The module. Copies have its options; its weights are reset, where it can reset them.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @property
    def cls(self) -> type[nn.Module]:
        return type(self.module)

    def build(self, given: Mapping[str, Any]) -> nn.Module:
        """A copy."""
        module = copy.deepcopy(self.module)
        inits.reset(module)
        return module

    def __repr__(self) -> str:
        return repr(self.module)

    def to_config(self) -> Any:
        """The class path and options that make an equal module.

        Raises:
            ValueError: If its arguments are not known.
        """
        found = described(self.module)
        if found is None:
            raise ValueError(
                f"a {self.cls.__name__} object cannot be written to a file; give its class, or "
                f"functools.partial of it, with options"
            )
        return found.to_config()


class Function:
    """A component that a function makes, of the arguments of its kind; no file can hold it."""

    cls = None

    def __init__(self, function: Callable[..., Any], what: str) -> None:
        self.function = function
        self.what = what

    def build(self, given: Mapping[str, Any]) -> Any:
        """What the function returns."""
        return self.function(*given.values())

    def __repr__(self) -> str:
        return repr(self.function)

    def to_config(self) -> Any:
        raise ValueError(
            f"{self.function!r} cannot be written to a file; give a class, its class path, or "
            f"functools.partial of a class, with options"
        )


def _built(
    value: Any, given: Mapping[str, Any], build: Callable[[Component, Mapping[str, Any]], Any]
) -> Any:
    """An option's value, with objects for the components in it."""
    if isinstance(value, Component):
        return build(value, given)
    if isinstance(value, Copy):
        return value.build(given)
    if isinstance(value, dict):
        return {key: _built(each, given, build) for key, each in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(_built(each, given, build) for each in value)
    return value


AnyComponent = Component | Copy | Function


def init_args_of(value: Mapping[str, Any]) -> dict[str, Any]:
    options = value.get("init_args")
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise ValueError(f"init_args must be options by name (got {options!r})")
    if other := [name for name in value if name not in ("class_path", "init_args")]:
        raise ValueError(f"a class has class_path and init_args (got {other[0]!r} beside them)")
    return dict(options)


def partial_arguments(value: functools.partial[Any]) -> dict[str, Any]:
    """The arguments of a partial by name."""
    names = [p.name for p in inspect.signature(value.func).parameters.values()]
    return {**dict(zip(names, value.args, strict=False)), **value.keywords}


def as_option(value: Any) -> Any:
    """The value of an option, with components for what is to be built.

    Raises:
        ValueError: If it holds a class path that is not allowed.
    """
    if isinstance(value, Mapping) and "class_path" in value:
        return Component(find_class(value["class_path"]), init_args_of(value))
    if isinstance(value, Mapping):
        return {key: as_option(each) for key, each in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(as_option, value))
    if isinstance(value, str) and _looks_like_path(value):
        return Component(find_class(value))
    if isinstance(value, functools.partial) and _is_module_class(cls := value.func):
        return Component(cls, partial_arguments(value))  # type: ignore[arg-type]
    if _is_module_class(value):
        return Component(value)
    return Copy(value) if isinstance(value, nn.Module) else value


def _is_module_class(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _looks_like_path(text: str) -> bool:
    is_dotted = "." in text and all(part.isidentifier() for part in text.split("."))
    return is_dotted and (text.startswith(("torch.", f"{PYG}.", "taghead.")) or is_named(text))


def to_plain(value: Any, name: str = "") -> Any:
    """A value as JSON and YAML can hold it.

    Raises:
        ValueError: If they cannot.
    """
    if isinstance(value, AnyComponent):
        try:
            return value.to_config()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: to_plain(each, name) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(each, name) for each in value]
    if isinstance(value, PLAIN):
        return value
    raise ValueError(
        f"{name}: {value!r} cannot be written to a file; give a class path, a class or "
        f"functools.partial of one"
    )


def described(module: nn.Module) -> Component | None:
    """The class and options that make a module equal to a given one, but for its weights.

    They are read from its attributes; `None` if the module that they make is not equal.
    """
    options: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            options[name] = list(module.children())
        elif hasattr(module, name):
            value = getattr(module, name)
            is_default = parameter.default is not parameter.empty and value is parameter.default
            if isinstance(value, (*PLAIN, list, tuple, nn.Module)) and not is_default:
                options[name] = value
    try:
        found = Component(type(module), {k: _described(v) for k, v in options.items()})
        with torch.random.fork_rng(devices=[]):
            made = found.build({})
    except (ValueError, TypeError):
        return None
    return found if _identity(made) == _identity(module) else None


def _described(value: Any) -> Any:
    if isinstance(value, nn.Module):
        found = described(value)
        if found is None:
            raise ValueError(f"{value!r} has unknown arguments")
        return found
    return [_described(each) for each in value] if isinstance(value, list) else value


def _identity(module: nn.Module) -> list[Any]:
    """What two modules of the same arguments have in common."""
    found: list[Any] = [repr(module), [(k, v.shape) for k, v in module.state_dict().items()]]
    for each in module.modules():
        values = {k: v for k, v in vars(each).items() if isinstance(v, PLAIN) and k[0] != "_"}
        found.append((type(each), {k: v for k, v in values.items() if k != "training"}))
    return found
