"""Operator: a class with options, from which message-passing modules of any width are built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from torch import nn
from torch_geometric import nn as pyg
from torch_geometric.nn import MessagePassing, conv

from taghead.components import Component, Copy, Function, as_component, names_of
from taghead.components.classes import MODELS
from taghead.graph.graph_context import GraphContext
from taghead.graph.grid import Grid
from taghead.graph.relations import NODE, Relation
from taghead.operators.kernels import KERNELS

OperatorFactory = Callable[[int, int], nn.Module]
"""Builds an operator of the widths (in_channels, out_channels)."""

# Operators without a kernel that take features of edges, and what they call the features' width.
EDGE_OPTIONS: dict[type[MessagePassing], str | None] = {
    pyg.CGConv: "dim",
    pyg.GMMConv: "dim",
    pyg.HEATConv: "edge_dim",
    pyg.NNConv: None,
    pyg.PDNConv: "edge_dim",
}
# Modules whose forward hands its arguments on, to modules inside.
DELEGATING: tuple[type[nn.Module], ...] = (pyg.Sequential, pyg.DeepGCNLayer, pyg.HeteroConv)
PASSED_ON = ("edge_attr", "edge_type", "edge_weight", "pos", "x_0")  # by GPSConv, to its operator
NEED_EDGES: tuple[type[nn.Module], ...] = (pyg.GMMConv, pyg.NNConv, pyg.PDNConv)
NUM_POSITIONS = 3  # HEATConv's edge features where the head has none: frames, rows, columns


@cache
def named_operators() -> dict[str, type[nn.Module]]:
    """PyG's operators, and its models that are used as one, by name."""
    names = [name for name in conv.__all__ if name != "MessagePassing"]
    models = [getattr(pyg, name) for name in MODELS]
    return names_of([*(getattr(pyg, n) for n in names), *filter(is_operator_class, models)])


def is_operator_class(cls: Any) -> bool:
    """Whether a class's objects have the protocol of operators, `forward(x, edge_index, ...)`."""
    if not (inspect.isclass(cls) and issubclass(cls, nn.Module)):
        return False
    if issubclass(cls, MessagePassing):
        return True
    parameters = inspect.signature(cls.forward).parameters
    return not {"edge_index", "edge_index_dict"}.isdisjoint(parameters) or cls in DELEGATING


NO_GRAPH = GraphContext((), Grid(1, 1, 1))


class Operator(Component):
    """An operator's class with its options; called with the widths, it builds an operator.

    The class is PyG's, or any module with `forward(x, edge_index, ...)`. It gets the arguments that
    it takes: `in_channels` and `out_channels`; `channels`; none (APPNP, LGConv, SimpleConv,
    AGNNConv); a two-layer MLP as `nn` (GINConv, GINEConv, EdgeConv). Concatenated heads share
    `out_channels` among them. With edge features, it also gets their width (`edge_dim`,
    `in_edge_channels`, or `dim` for CGConv and GMMConv); NNConv gets a network that maps them to a
    matrix. From the graph it gets `num_relations`, `metadata`, `deg`, `layer` and
    `num_edge_types`, if they are not among the options.

    Args:
        cls: The operator's class, PyG's or your own.
        options: Its other arguments, by name; modules among them as
            :class:`~taghead.components.Component` has them.

    Raises:
        ValueError: If the class has no such option, the heads do not divide the width, or an option
            contradicts the width of the edge features or the relations.
    """

    def __init__(self, cls: type[nn.Module], **options: Any) -> None:
        if not is_operator_class(cls):
            raise ValueError(
                f"conv must be a MessagePassing class, or that of a module whose forward takes "
                f"edge_index (got {cls!r})"
            )
        names, required = forward_arguments(_class(cls))
        if "x" in required and not any("edge" in name for name in names) and cls not in DELEGATING:
            raise ValueError(
                f"conv: {cls.__name__} takes no edge_index, so edges of relations would not be used"
            )
        if options.get("cached"):
            raise ValueError(
                f"{cls.__name__}: cached must be False (got True): it would keep the edges of the "
                f"first batch for batches of any size"
            )
        super().__init__(cls, options)
        if isinstance(convs := self.options.get("convs"), dict):  # HeteroConv's
            self.options["convs"] = {_name(key): each for key, each in convs.items()}

    def known_options(self) -> set[str]:
        base = inspect.signature(MessagePassing).parameters if super().takes_any else {}
        return {*self.parameters, *base}

    @property
    def takes_any(self) -> bool:
        return super().takes_any and not issubclass(self.cls, MessagePassing)

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        edge_channels: int | None = None,
        context: GraphContext | None = None,
    ) -> nn.Module:
        widths: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": self._width_of_a_head(out_channels),
            "channels": out_channels,
        }
        if self.is_open("hidden_channels"):
            widths["hidden_channels"] = out_channels
        kernel = KERNELS.get(self.cls)
        network = widths | {"out_channels": out_channels}
        given, forced = dict(widths), {}
        if kernel is not None and kernel.network_inputs is not None:
            network["in_channels"] = kernel.network_inputs * in_channels
            if "nn" not in self.options:
                layers = [network["in_channels"], out_channels, out_channels]
                given["nn"] = pyg.MLP(layers, norm=None)
        if edge_channels is not None:
            forced = self._of_edges(in_channels, out_channels, edge_channels)
            if self.cls is pyg.NNConv:
                matrix = in_channels * out_channels
                network = {"in_channels": edge_channels, "out_channels": matrix}
        if context is not None:
            given |= self._of_graph(context)

        def widths_of(option: str) -> dict[str, Any]:
            return network if option == "nn" else {**widths, "out_channels": out_channels}

        def build(part: Component, given: Mapping[str, Any]) -> Any:
            if not issubclass(part.cls, MessagePassing) or part.cls is self.cls:
                return self.build_inner(part, given)
            inner = Operator(part.cls, **part.options)
            if self.is_own and part.is_incomplete:  # its factory, of the widths
                return partial(inner, edge_channels=edge_channels, context=context)
            return inner(given["in_channels"], given["out_channels"], edge_channels, context)

        arguments = self.arguments(given, widths_of, build) | forced
        arguments = self._on_graph(arguments, context)
        try:
            return self.make(arguments)
        except ValueError as error:
            if self.cls not in NEED_EDGES or edge_channels is not None:
                raise
            raise ValueError(f"{error}; it needs edge_features, such as offset") from error

    def _of_edges(self, in_channels: int, out_channels: int, edge_channels: int) -> dict[str, Any]:
        """The options for edge features; a command line gives 0 or none for no width."""
        known = ("edge_dim", "in_edge_channels", EDGE_OPTIONS.get(self.cls))
        names = [name for name in self.parameters if name in known]
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

    def _of_graph(self, context: GraphContext) -> dict[str, Any]:
        """The options that the graph determines, without those that are given."""
        found: dict[str, Any] = {}
        number = len(context.relations)
        if self.is_open("num_relations") or context.is_typed:
            found["num_relations"] = number
        if self.is_open("num_node_types"):
            found["num_node_types"] = 1
        if self.is_open("num_edge_types"):
            found["num_edge_types"] = number
        if self.cls is pyg.HEATConv:
            found["edge_dim"] = NUM_POSITIONS
        if self.is_open("deg"):
            found["deg"] = context.degrees()
        if self.is_open("metadata"):
            found["metadata"] = ([NODE], [tuple(relation) for relation in context.relations])
        if "layer" in self.parameters and ("theta" not in self.parameters or self._is_scaled):
            found["layer"] = context.layer
        return {name: value for name, value in found.items() if name not in self.options}

    def _on_graph(self, arguments: dict[str, Any], context: GraphContext | None) -> dict[str, Any]:
        """The arguments with edge types in the order of the relations, by their names.

        Raises:
            ValueError: If the edge types that are given are not the relations.
        """
        if "metadata" in arguments:  # a config file has lists for tuples
            nodes, edges = arguments["metadata"]
            edges = [tuple(edge) for edge in edges]
            if context is not None:
                edges = [tuple(r) for r in self._in_order(edges, context.relations, "metadata")]
            arguments["metadata"] = (list(nodes), edges)
        if self.cls is pyg.HeteroConv:
            if not isinstance(arguments.get("convs"), dict):
                raise ValueError("HeteroConv: convs must have an operator for each relation")
            convs = arguments["convs"]
            relations = self._in_order(list(convs), (context or NO_GRAPH).relations, "convs")
            arguments["convs"] = {tuple(r): convs[_name(r)] for r in relations}
        return arguments

    def _in_order(
        self, edges: list[Any], relations: Sequence[Relation], option: str
    ) -> Sequence[Any]:
        names, known = [_name(edge) for edge in edges], [relation.name for relation in relations]
        if sorted(names) != sorted(known):
            raise ValueError(
                f"{self.cls.__name__}: {option} must have the relations {', '.join(known)}, each "
                f"once (got {', '.join(names)})"
            )
        return relations

    @property
    def _is_scaled(self) -> bool:
        """Whether GCN2Conv's `theta` is given, without which it takes no `layer`."""
        return self.options.get("theta") is not None

    def _width_of_a_head(self, out_channels: int) -> int:
        defaults = {name: parameter.default for name, parameter in self.parameters.items()}
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

    def to_config(self) -> dict[str, Any]:
        """The class path and options, as a YAML file holds them."""
        try:
            return super().to_config()
        except ValueError as error:
            raise ValueError(f"conv: {error}") from error

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Operator:
        """The operator of a class path and options.

        A config may come from anywhere: only classes of :func:`~taghead.components.find_class` are
        built, also for options.

        Raises:
            ValueError: If a path is not allowed or leads to another class.
        """
        found = as_operator(config)
        assert isinstance(found, Operator)
        return found


def _name(edge_type: Any) -> str:
    """A relation's name, of its edge type or name."""
    return edge_type if isinstance(edge_type, str) else edge_type[1]


class GivenOperator:
    """An operator that is copied from an object, or made by a function of the widths.

    Args:
        part: The object or the function.
    """

    def __init__(self, part: Copy | Function) -> None:
        self.part = part
        self.cls = part.cls

    def __call__(
        self,
        in_channels: int,
        out_channels: int,
        edge_channels: int | None = None,
        context: GraphContext | None = None,
    ) -> nn.Module:
        return self.part.build({"in_channels": in_channels, "out_channels": out_channels})

    def __repr__(self) -> str:
        return f"GivenOperator({self.part!r})"

    def to_config(self) -> dict[str, Any]:
        """The class path and options; raises a ValueError if no file can hold it."""
        try:
            return self.part.to_config()
        except ValueError as error:
            raise ValueError(f"conv: {error}") from error


def as_operator(conv: Any) -> Operator | GivenOperator:
    """The operator of a name, a class path, a class, a partial of one, an object or a function.

    Raises:
        ValueError: If it is none of them.
    """
    if isinstance(conv, Operator | GivenOperator):
        return conv
    if inspect.isclass(conv):
        given: Any = conv
        return Operator(given)
    found = as_component(conv, "conv", named_operators())
    if isinstance(found, Component):
        cls: Any = found.cls
        return Operator(cls, **found.options)
    if isinstance(found, Copy) and not is_operator_class(found.cls):
        raise ValueError(f"conv: forward of {found.cls.__name__} takes no edge_index")
    return GivenOperator(found)


def arguments_of(conv: nn.Module) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As :func:`forward_arguments`, of a module: PyG's containers take what their parts take."""
    if isinstance(conv, pyg.Sequential):
        names = tuple(conv.signature.param_dict)
        return names, names
    if isinstance(conv, pyg.DeepGCNLayer):
        return arguments_of(conv.conv) if conv.conv is not None else (("x",), ())
    if isinstance(conv, pyg.HeteroConv):
        return ("x_dict", "edge_index_dict"), ("edge_index_dict",)
    names, required = forward_arguments(_class(type(conv)))
    if isinstance(conv, pyg.GPSConv) and conv.conv is not None:
        inner, needed = arguments_of(conv.conv)
        extra = tuple(name for name in inner if name in PASSED_ON and name not in names)
        return names + extra, required + tuple(name for name in needed if name in extra)
    return names, required


def _class(cls: type[Any]) -> Any:
    """A class as a key of a cache."""
    return cls


def forward_arguments(cls: type[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of an operator's forward arguments: all, and those without a default.

    A `forward` that names none, such as a patch with `*args` and `**kwargs`, gets the tokens and
    the edges.
    """
    return _arguments_of_function(cls.forward)


@cache
def _arguments_of_function(forward: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    parameters = inspect.signature(forward).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if all(parameter.kind in kinds for parameter in parameters):
        return ("x", "edge_index"), ("x", "edge_index")
    named = [p for p in list(parameters)[1:] if p.kind not in kinds]
    return tuple(p.name for p in named), tuple(p.name for p in named if p.default is p.empty)


def takes_edge_types(conv: nn.Module) -> bool:
    """Whether an operator gets each edge's relation."""
    names, _ = arguments_of(conv)
    return "edge_type" in names or "edge_index_dict" in names


def check_takes_edges(conv: nn.Module, width: int) -> None:
    """Checks that an operator takes edge features.

    Args:
        conv: The operator.
        width: The number of an edge's features.

    Raises:
        ValueError: If it takes none, with the names of those that do; or it was built without.
    """
    name = type(conv).__name__
    if "edge_attr" not in arguments_of(conv)[0]:
        taking = [cls for cls, kernel in KERNELS.items() if kernel.edge_attr]
        known = ", ".join(sorted(cls.__name__ for cls in (*taking, *EDGE_OPTIONS)))
        raise ValueError(f"edge_features: {name} takes no edge_attr; operators that do are {known}")
    if None in (getattr(conv, "lin_edge", conv), getattr(conv, "in_edge_channels", conv)):
        raise ValueError(
            f"edge_features: {name} was built without features of edges; its edge_dim must be "
            f"{width}"
        )
