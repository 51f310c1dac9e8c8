"""Components: the exchangeable parts of a head, as a name, a class path with options, or an object.

One rule for all of them, wherever they are written: the command line, YAML, sweeps, checkpoints and
model folders. A component that comes from a file is built of classes of :func:`find_class` alone.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from jsonargparse.typing import register_type
from torch import Tensor, nn
from torch_geometric.nn import inits

from taghead.class_paths import Spec, import_class, is_named
from taghead.errors import did_you_mean

if TYPE_CHECKING:
    ComponentLike = Any
else:
    ComponentLike = Spec  # what the command line and `cli.signature` read
register_type(Spec, serializer=lambda spec: spec.value)  # a parser takes it as it is written

OWN = ("taghead.nn", "taghead.operators", "taghead.graph")  # packages whose classes files may name
MODELS = (  # of torch_geometric.nn, beside its operators, aggregations and norms
    *("GCN", "GraphSAGE", "GIN", "GAT", "PNA", "EdgeCNN", "GraphUNet", "DeepGCNLayer"),
    *("GroupAddRev", "MLP", "JumpingKnowledge", "Linear", "Sequential"),
)
WIDTHS = ("in_channels", "out_channels", "channels", "hidden_channels")
NAMES = re.compile(r"\s*[A-Za-z_]\w*\s*(,\s*[A-Za-z_]\w*\s*)*")  # `x, edge_index`
VARIADIC = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
PLAIN = (str, int, float, bool, type(None))


@functools.cache
def listed_classes() -> dict[str, type[nn.Module]]:
    """The classes of torch and PyG that a file may name, by public path.

    torch's modules; PyG's operators, aggregations, norms and the models that act on tokens. No
    other class of theirs: some download weights, or run code, when they are built.
    """
    from torch.nn import modules
    from torch_geometric import nn as pyg
    from torch_geometric.nn import aggr, conv, norm

    names = {
        "torch.nn": (nn, modules.__all__),
        "torch_geometric.nn": (pyg, (*conv.__all__, *aggr.__all__, *norm.__all__, *MODELS)),
    }
    found = {f"{m}.{n}": getattr(where, n) for m, (where, ns) in names.items() for n in ns}
    return {path: cls for path, cls in found.items() if issubclass(cls, nn.Module)}


def find_class(path: object, base: type[Any] = nn.Module) -> type[Any]:
    """The class of a path that a config, a checkpoint or a model folder holds.

    It is one of :func:`listed_classes`, of this package, or of a module that you named
    (:func:`~taghead.class_paths.allow_modules`); for any other path nothing is imported.

    Raises:
        ValueError: If it is none of them, or no subclass of `base`.
    """
    if not isinstance(path, str) or not any(path.startswith(f"{m}.") for m in ("torch", PYG)):
        found = import_class(path, base, OWN)
        if not _is_nameable(found):
            raise ValueError(f"{path} is not allowed: {refused(found)}")
        return found
    package = "torch.nn" if path.startswith("torch.") else f"{PYG}.nn"
    module, _, name = path.rpartition(".")
    listed = listed_classes().get(f"{package}.{name}")
    is_there = listed is not None and (
        module == package or f"{listed.__module__}.".startswith(f"{module}.")
    )
    if listed is None or not is_there:
        known = "modules" if package == "torch.nn" else "operators, aggregations, norms and models"
        raise ValueError(f"there is no class {path} among the {known} of {package}")
    if not issubclass(listed, base):
        raise ValueError(f"{path} must be a subclass of {base.__name__} (got {listed!r})")
    return listed


PYG = "torch_geometric"


def _is_nameable(cls: type[Any]) -> bool:
    """Whether a file may name a class, which is known."""
    if cls.__module__.partition(".")[0] in ("torch", PYG):
        return cls in listed_classes().values()
    return "<locals>" not in cls.__qualname__


def refused(cls: type[Any]) -> str:
    """Why no file can name a class."""
    if "<locals>" in cls.__qualname__:
        return f"{cls.__name__} is made in a function; define it in a module"
    return f"{cls.__module__}.{cls.__name__} is no class that model files may name"


def path_of(cls: type[Any]) -> str:
    """A class's path, the public one where it has one.

    Raises:
        ValueError: If no file can name it.
    """
    if not _is_nameable(cls):
        raise ValueError(refused(cls))
    for package in ("torch.nn", f"{PYG}.nn"):
        if listed_classes().get(f"{package}.{cls.__name__}") is cls:
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


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
            _check_sequential(cls, self.options, path)

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
            return _by_path(value["class_path"], _init_args(value), names, base)
        if isinstance(value, functools.partial) and inspect.isclass(value.func):
            _check_base(value.func, base)
            return Component(value.func, _arguments(value))
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


def _known(names: Mapping[str, type[Any] | Component]) -> str:
    """The names that a component may be given by; PyG's classes are not listed."""
    own = [name for name in names if not name[0].isupper()]
    listed = f"one of {', '.join(own)}, " if own else ""
    return listed + "the name of a class of PyG, " * (len(own) < len(names))


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


def _init_args(value: Mapping[str, Any]) -> dict[str, Any]:
    options = value.get("init_args")
    options = {} if options is None else options
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise ValueError(f"init_args must be options by name (got {options!r})")
    if other := [name for name in value if name not in ("class_path", "init_args")]:
        raise ValueError(f"a class has class_path and init_args (got {other[0]!r} beside them)")
    return dict(options)


def _arguments(value: functools.partial[Any]) -> dict[str, Any]:
    """The arguments of a partial by name."""
    names = [p.name for p in inspect.signature(value.func).parameters.values()]
    return {**dict(zip(names, value.args, strict=False)), **value.keywords}


def as_option(value: Any) -> Any:
    """The value of an option, with components for what is to be built.

    Raises:
        ValueError: If it holds a class path that is not allowed.
    """
    if isinstance(value, Mapping) and "class_path" in value:
        return Component(find_class(value["class_path"]), _init_args(value))
    if isinstance(value, Mapping):
        return {key: as_option(each) for key, each in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(as_option, value))
    if isinstance(value, str) and _looks_like_path(value):
        return Component(find_class(value))
    if isinstance(value, functools.partial) and _is_module_class(cls := value.func):
        return Component(cls, _arguments(value))  # type: ignore[arg-type]
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


SEQUENTIAL = {"Sequential": "torch_geometric.nn.Sequential"}


def _check_sequential(cls: type[Any], options: Mapping[str, Any], path: str) -> None:
    """Refuses what PyG's Sequential would run as code: its arguments are names, no types.

    Raises:
        ValueError: If they are anything else.
    """
    if cls is not listed_classes()[path]:
        return
    modules = options.get("modules")
    if not isinstance(modules, list | tuple):
        raise ValueError(f"Sequential: modules must be a list (got {modules!r})")
    texts = [options.get("input_args")]
    for each in modules:
        if isinstance(each, list | tuple) and len(each) == 2:
            texts += str(each[1]).split("->") if str(each[1]).count("->") == 1 else [None]
    for text in texts:
        if not isinstance(text, str) or not NAMES.fullmatch(text):
            raise ValueError(
                f"Sequential: arguments must be names, as in 'x, edge_index -> x' (got {text!r})"
            )


def names_of(classes: Iterable[type[Any]]) -> dict[str, type[Any]]:
    """Classes by their own names."""
    return {cls.__name__: cls for cls in classes}
