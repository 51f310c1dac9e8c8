"""Operator: a PyG class with options, from which operators of any width are built."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import nn
from torch_geometric import nn as pyg
from torch_geometric.nn import MessagePassing

from taghead.class_paths import check_plain_options, import_class
from taghead.graph.edge_features import NUM_OFFSETS
from taghead.operators.kernels import KERNELS

if TYPE_CHECKING:
    OperatorFactory = Callable[[int, int], MessagePassing]
else:

    class OperatorFactory(Protocol):
        """Builds an operator of the widths (in_channels, out_channels).

        A `MessagePassing` class, a `functools.partial` of one with its options, or a function. The
        command line reads this signature: an option of this type takes a class path and the class's
        arguments, except those named here, which the head fills in.
        """

        def __call__(
            self, in_channels: int, out_channels: int, channels: int, nn: nn.Module
        ) -> MessagePassing: ...


PACKAGES = ("torch_geometric", "taghead")  # where operators lie, beside modules of one's own

# Operators without a kernel that take features of edges, and what they call the features' width.
EDGE_OPTIONS: dict[type[MessagePassing], str | None] = {
    pyg.CGConv: "dim",
    pyg.GMMConv: "dim",
    pyg.HEATConv: "edge_dim",
    pyg.NNConv: None,
    pyg.PDNConv: "edge_dim",
}


class Operator:
    """A PyG operator's class with its options; called with the widths, it builds an operator.

    The class gets the arguments that it takes: `in_channels` and `out_channels`; `channels`; none
    (APPNP, LGConv, SimpleConv, AGNNConv); a two-layer MLP as `nn` (GINConv, GINEConv, EdgeConv).
    Concatenated heads share `out_channels` among them. With edge features, it also gets their width
    (`edge_dim`, `in_edge_channels`, or `dim` for CGConv and GMMConv); NNConv gets a network that
    maps them to a matrix.

    Args:
        cls: The operator's class, PyG's or your own.
        options: Its other arguments, by name.

    Raises:
        ValueError: If the class has no such option, the heads do not divide the width, or an option
            contradicts the width of the edge features.
    """

    def __init__(self, cls: type[MessagePassing], **options: Any) -> None:
        if not (inspect.isclass(cls) and issubclass(cls, MessagePassing)):
            raise ValueError(f"conv must be a MessagePassing class (got {cls!r})")
        if options.get("cached"):
            raise ValueError(
                f"{cls.__name__}: cached must be False (got True): it would keep the edges of the "
                f"first batch for batches of any size"
            )
        self.cls = cls
        self.options = options
        self._parameters = dict(inspect.signature(cls).parameters)  # a head can be copied
        takes_any = any(p.kind is p.VAR_KEYWORD for p in self._parameters.values())
        base = inspect.signature(MessagePassing).parameters if takes_any else {}
        unknown = [name for name in options if name not in {*self._parameters, *base}]
        if unknown:
            known = ", ".join(n for n, p in self._parameters.items() if p.kind is not p.VAR_KEYWORD)
            raise ValueError(f"{cls.__name__} has no option {unknown[0]!r}; it has {known}")

    def __call__(
        self, in_channels: int, out_channels: int, edge_channels: int | None = None
    ) -> MessagePassing:
        widths = {
            "in_channels": in_channels,
            "out_channels": self._width_of_a_head(out_channels),
            "channels": out_channels,
        }
        given = {name: widths[name] for name in widths if name in self._parameters}
        kernel = KERNELS.get(self.cls)
        if kernel is not None and kernel.network_inputs is not None:
            width = kernel.network_inputs * in_channels
            given["nn"] = pyg.MLP([width, out_channels, out_channels], norm=None)
        options = dict(self.options)
        if "metadata" in options:  # HGTConv's edge types: a config file has lists for tuples
            nodes, edges = options["metadata"]
            options["metadata"] = (list(nodes), [tuple(edge) for edge in edges])
        if edge_channels is not None:
            options |= self._of_edges(in_channels, out_channels, edge_channels)
        try:
            return self.cls(**{**given, **options})
        except TypeError as error:
            raise ValueError(f"{self.cls.__name__} cannot be built: {error}") from error

    def _of_edges(self, in_channels: int, out_channels: int, edge_channels: int) -> dict[str, Any]:
        """The options for edge features; a command line gives 0 or none for no width."""
        known = ("edge_dim", "in_edge_channels", EDGE_OPTIONS.get(self.cls))
        names = [name for name in self._parameters if name in known]
        for name in names:
            if self.options.get(name) not in (None, 0, edge_channels):
                raise ValueError(
                    f"{self.cls.__name__}: {name} must be {edge_channels}, the number of an edge's "
                    f"features (got {self.options[name]})"
                )
        found: dict[str, Any] = dict.fromkeys(names, edge_channels)
        if self.cls is pyg.NNConv and "nn" not in self.options:
            matrix = in_channels * out_channels  # from input to output, one for each edge
            found["nn"] = pyg.MLP([edge_channels, out_channels, matrix], norm=None)
        return found

    def _width_of_a_head(self, out_channels: int) -> int:
        defaults = {name: parameter.default for name, parameter in self._parameters.items()}
        options = {**defaults, **self.options}
        if not ("heads" in defaults and "concat" in defaults and options["concat"]):
            return out_channels
        heads = options["heads"]
        if out_channels % heads:
            raise ValueError(
                f"{self.cls.__name__}: heads must divide the width {out_channels} (the head's "
                f"channels) when they are concatenated (got {heads}); or set concat to false"
            )
        return out_channels // heads

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"Operator({self.cls.__name__}{options})"

    def to_config(self) -> dict[str, Any]:
        """The class path and options, as a YAML file holds them."""
        name = self.cls.__name__
        public = getattr(pyg, name, None) is self.cls
        module = "torch_geometric.nn" if public else self.cls.__module__
        options = {k: v for k, v in self.options.items() if not self._is_default_module(k, v)}
        return {"class_path": f"{module}.{name}", "init_args": options}

    def _is_default_module(self, name: str, value: Any) -> bool:
        """Whether an option is a module equal to the class's default: no file can hold a module."""
        default = getattr(self._parameters.get(name), "default", None)
        return isinstance(default, nn.Module) and repr(value) == repr(default)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Operator:
        """The operator of a class path and options.

        A config may come from anywhere: nothing but a `MessagePassing` class is called, and only
        PyG's modules, this package's and those that were named are imported
        (:func:`~taghead.class_paths.allow_modules`). An option that is a class path is refused.

        Raises:
            ValueError: If the path is not allowed or leads to another class, or an option is not a
                plain value.
        """
        try:
            found = import_class(config["class_path"], MessagePassing, PACKAGES)
            options = check_plain_options(config.get("init_args") or {})
        except ValueError as error:
            raise ValueError(f"conv: {error}") from error
        return cls(found, **options)


class CustomOperator(Operator):
    """An operator built by a function of (in_channels, out_channels); it cannot be saved."""

    def __init__(self, function: Callable[[int, int], MessagePassing]) -> None:
        self.function = function

    def __call__(
        self, in_channels: int, out_channels: int, edge_channels: int | None = None
    ) -> MessagePassing:
        return self.function(in_channels, out_channels)

    def __repr__(self) -> str:
        return f"CustomOperator({self.function!r})"

    def to_config(self) -> dict[str, Any]:
        raise ValueError(
            f"conv: {self.function!r} cannot be written to a file; give a MessagePassing class or "
            f"functools.partial of one, with options"
        )


def as_operator(conv: OperatorFactory | type[MessagePassing] | dict[str, Any]) -> Operator:
    """Converts to an `Operator`: from a class, a partial of one, a function or a config.

    Raises:
        ValueError: If it is none of them.
    """
    if isinstance(conv, Operator):
        return conv
    if isinstance(conv, dict):
        return Operator.from_config(conv)
    if isinstance(conv, partial):
        # partial(cls, **options); the command line's is partial(instantiate, ..., cls, **options)
        from_command_line = conv.func.__module__.startswith("jsonargparse")
        cls = conv.args[-1] if from_command_line else None if conv.args else conv.func
        if inspect.isclass(cls) and issubclass(cls, MessagePassing):
            return Operator(cls, **conv.keywords)
    if inspect.isclass(conv):
        return Operator(cast(type[MessagePassing], conv))
    if callable(conv):
        return CustomOperator(conv)
    raise ValueError(f"conv must be an operator's class or a factory of one (got {conv!r})")


@cache
def forward_arguments(cls: type[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of an operator's forward arguments: all, and those without a default."""
    _, *parameters = inspect.signature(cls.forward).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return tuple(p.name for p in named), tuple(p.name for p in named if p.default is p.empty)


def takes_edge_types(conv: MessagePassing) -> bool:
    """Whether an operator gets each edge's relation."""
    return isinstance(conv, pyg.HGTConv) or "edge_type" in forward_arguments(conv.__class__)[0]


def check_takes_edges(conv: MessagePassing) -> None:
    """Checks that an operator takes edge features.

    Raises:
        ValueError: If it takes none, with the names of those that do; or it was built without.
    """
    name = type(conv).__name__
    if "edge_attr" not in forward_arguments(conv.__class__)[0]:
        taking = [cls for cls, kernel in KERNELS.items() if kernel.edge_attr]
        known = ", ".join(sorted(cls.__name__ for cls in (*taking, *EDGE_OPTIONS)))
        raise ValueError(f"edge_features: {name} takes no edge_attr; operators that do are {known}")
    if None in (getattr(conv, "lin_edge", conv), getattr(conv, "in_edge_channels", conv)):
        raise ValueError(
            f"edge_features: {name} was built without features of edges; its edge_dim must be "
            f"{NUM_OFFSETS}"
        )
