"""Dense kernels: the record that describes one operator class, and functions that kernels share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch_geometric.nn import Linear, MessagePassing, aggr

from taghead.graph.edge_features import EdgeFeatures
from taghead.operators.neighbourhood import Neighbourhood


class EdgeAttr(NamedTuple):
    """Features of edges: rows `[R, D]` of the relations, or a function of offset and relation."""

    rows: Tensor | None
    features: EdgeFeatures | None
    like: Tensor  # of the dtype and device of the tokens

    @classmethod
    def of(cls, features: EdgeFeatures, num_relations: int, like: Tensor) -> EdgeAttr:
        if features.uses_offsets:
            return cls(None, features, like)
        return cls(features.of_relations(num_relations, like), None, like)

    @property
    def width(self) -> int:
        """The number of an edge's features, D."""
        if self.rows is not None:
            return self.rows.size(-1)
        assert self.features is not None
        return self.features.out_channels

    def by_part(self, hood: Neighbourhood) -> list[Tensor]:
        """The features of each part's slots, `[1, P or 1, K or 1, D]`.

        Offsets are those of edges: where messages flow from target to source, their negatives.
        """
        if self.rows is not None:
            return [self.rows[part.relation].view(1, 1, 1, -1) for part in hood.parts]
        assert self.features is not None
        found = []
        for part in hood.parts:
            offset = part.offsets(self.like)
            edge_type = offset.new_full(offset.shape[:-1], part.relation, dtype=torch.long)
            found.append(self.features(-offset if hood.is_transposed else offset, edge_type))
        return found


class Tokens(NamedTuple):
    """The input of a kernel: tokens `[B, T, P, C]`, and edge features."""

    x: Tensor
    x_0: Tensor
    edge_attr: EdgeAttr | None


class Condition(NamedTuple):
    """A condition of a dense kernel: its text, and its test of an operator."""

    text: str
    test: Callable[[Any], bool]


class Attention(NamedTuple):
    """Attention weights of all neighbours, and the values that they multiply.

    Shapes:
        - **weights** `[B, T, H, P, K]`
        - **values** `[B, T, H, P, C]`, of all parts or of each
        - **edges** `[T or 1, P or 1, K or 1, D]` for each part, and a matrix `[H, C, D]`: what
          edges add to the values
    """

    hood: Neighbourhood
    weights: Tensor
    values: Tensor | Sequence[Tensor]
    edges: tuple[Sequence[Tensor], Tensor] | None = None


Attend = Callable[[Any, Tokens, Neighbourhood], Attention]


@dataclass(frozen=True)
class Kernel:
    """The dense kernel of one operator class, and the properties of the class.

    Args:
        run: `(conv, tokens, neighbourhood)` -> `[B, T, P, C_out]`.
        conditions: Conditions on the operator's options.
        edge_attr: Whether it takes edge features.
        attention: For an attentive operator, computes its attention.
        shown_attention: Computes the weights that PyG returns, where they differ from those that
            multiply the messages.
        affine: For an operator that is affine in the tokens if all of its modules are: whether it
            is, with its present options.
        network_inputs: For an operator that takes a network `nn`: the width of the network's input
            as a multiple of the tokens' width.
    """

    run: Callable[[Any, Tokens, Neighbourhood], Tensor]
    conditions: tuple[Condition, ...] = ()
    edge_attr: bool = False
    attention: Attend | None = None
    shown_attention: Attend | None = None
    affine: Callable[[Any], bool] | None = None
    network_inputs: int | None = None


def class_of(module: Any) -> type:
    """A module's exact class; under torch.export, that of the module behind the tracer's proxy."""
    if torch.compiler.is_exporting() and hasattr(type(module), "get_base"):
        return type(module.get_base())
    return type(module)


PACKAGES = ("torch.nn.", "torch_geometric.")
METHODS = frozenset(
    ("forward", "reduce", "message", "aggregate", "message_and_aggregate", "update", "edge_update")
)
OF_PYG = {"propagate", "edge_updater"}  # PyG itself sets these on an operator and its class
GLOBAL_HOOKS = (
    *(module_hooks._global_forward_hooks, module_hooks._global_forward_pre_hooks),
    *(module_hooks._global_backward_hooks, module_hooks._global_backward_pre_hooks),
)
_ORIGINALS: dict[type, tuple[attrgetter, tuple]] = {}  # a getter of methods, and what it must get


@torch.compiler.assume_constant_result
def is_original(cls: type) -> bool:
    """Whether a class is torch's or PyG's and has the methods that it was defined with."""
    found = _ORIGINALS.get(cls)
    if found is None:
        found = _original_methods(cls)
        if found is None:  # not kept: a patch may be taken back
            return False
        _ORIGINALS[cls] = found
    getter, methods = found
    return getter(cls) == methods


def _original_methods(cls: type) -> tuple[attrgetter, tuple] | None:
    """A getter of a class's methods, and the methods; `None` if it is patched or not known."""
    names = [name for name in METHODS | OF_PYG if hasattr(cls, name)]
    getter = attrgetter("forward", "forward", *names)  # several names, so that it gets a tuple
    modules = tuple(base.__module__ for base in cls.__mro__)
    is_own = all(getattr(cls, name).__module__.startswith(modules) for name in names)
    is_public = getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls
    is_known = is_public and cls.__module__.startswith(PACKAGES)
    is_known = is_known or issubclass(cls, MessagePassing)  # of one's own, with a kernel
    return (getter, getter(cls)) if is_own and is_known else None


def has_hooks(module: Any) -> bool:
    """Whether a module's own `forward` has hooks; submodules do not count."""
    if module._forward_hooks or module._forward_pre_hooks:
        return True
    return bool(module._backward_hooks or module._backward_pre_hooks)


def is_plain(conv: Any) -> bool:
    """Whether an operator and the modules inside it compute what their classes say."""
    if (
        conv._propagate_forward_hooks
        or conv._propagate_forward_pre_hooks
        or conv._message_forward_hooks
        or conv._message_forward_pre_hooks
        or conv._aggregate_forward_hooks
        or conv._aggregate_forward_pre_hooks
        or conv._edge_update_forward_hooks
        or conv._edge_update_forward_pre_hooks
    ):
        return False
    if "propagate" in conv.__dict__:  # PyG sets it, to one of two functions
        propagate = getattr(conv.propagate, "__func__", None)
        if propagate not in (conv._orig_propagate.__func__, conv._jinja_propagate.__func__):
            return False
    return _is_plain(conv, class_of if torch.compiler.is_exporting() else type)


def _is_plain(module: Any, class_of: Callable[[Any], type]) -> bool:
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if module._backward_hooks or module._backward_pre_hooks:
        return False
    if not is_original(class_of(module)) or not METHODS.isdisjoint(module.__dict__):
        return False
    for child in module._modules.values():
        if child is not None and not _is_plain(child, class_of):
            return False
    return True


def is_observed() -> bool:
    """Whether a hook of all modules is registered that is not one of torch's own counters."""
    hooks = [hook for registered in GLOBAL_HOOKS for hook in registered.values()]
    return not all(getattr(hook, "__module__", "").startswith("torch.utils.") for hook in hooks)


UNOBSERVED = (
    Condition(
        "it and the modules inside it are of torch's and PyG's classes, without hooks, "
        "parametrizations or patched methods",
        is_plain,
    ),
    Condition(
        "no global module hook is registered, except those of torch's own counters",
        lambda conv: not any(GLOBAL_HOOKS) or not is_observed(),
    ),
    Condition("it is not being explained", lambda conv: not conv.explain),
    Condition("decomposed_layers is 1", lambda conv: conv.decomposed_layers == 1),
)
"""Conditions of every kernel: nothing else observes or changes the operator's messages."""

SUMS = (aggr.SumAggregation, aggr.MeanAggregation)
SUM_OR_MEAN = Condition("aggr is sum or mean", lambda conv: class_of(conv.aggr_module) in SUMS)
NOT_CACHED = Condition("cached is False", lambda conv: not conv.cached)


def takes_mean(conv: Any) -> bool:
    """Whether an operator averages its messages instead of summing them."""
    return class_of(conv.aggr_module) is aggr.MeanAggregation


def check_edge_attr(conv: nn.Module, expected: bool, edge_attr: EdgeAttr | None) -> None:
    """Checks that edge features are given exactly if the operator was built for them.

    Raises:
        ValueError: If not; the message names the operator.
    """
    if expected and edge_attr is None:
        raise ValueError(f"{conv} was built for edge features: edge_attr must be given (got None)")
    if not expected and edge_attr is not None:
        got = f"{edge_attr.width} features"
        raise ValueError(f"{conv} takes no edge features: edge_attr must be None (got {got})")


def always(conv: nn.Module) -> bool:
    """A test that every operator passes."""
    return True


def add_bias(out: Tensor, bias: Tensor | None) -> Tensor:
    """Adds an optional bias."""
    return out if bias is None else out + bias


def apply_rowwise(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs a network on x flattened to rows `[M, C]`, as PyG does."""
    return module(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


LINEAR = (nn.Linear, Linear)


def are_linear(*layers: Any) -> bool:
    """Whether layers are plain Linear ones, so that their weights define them."""
    return all(class_of(layer) in LINEAR for layer in layers)


LINEAR_EDGES = Condition(
    "lin_edge is Linear", lambda conv: conv.lin_edge is None or are_linear(conv.lin_edge)
)


def split_linear(linear: Any, *inputs: int) -> list[Callable[[Tensor], Tensor]]:
    """Splits a linear layer of concatenated inputs into one function of each input.

    The first function adds the bias.

    Args:
        linear: The layer.
        inputs: The inputs' widths.
    """
    weights = linear.weight.split(inputs, dim=-1)
    biases = [linear.bias] + [None] * (len(inputs) - 1)
    pairs = zip(weights, biases, strict=True)
    return [partial(F.linear, weight=weight, bias=bias) for weight, bias in pairs]
