"""Dense kernels: the record that describes one operator class, and functions that kernels share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import Linear, MessagePassing, aggr

from taghead.operators.neighbourhood import Neighbourhood


class Tokens(NamedTuple):
    """The input of a kernel: tokens `[B, T, P, C]`, and edge features by relation `[R, D]`."""

    x: Tensor
    x_0: Tensor
    edge_attr: Tensor | None


class Condition(NamedTuple):
    """A condition of a dense kernel: its text, and its test of an operator."""

    text: str
    test: Callable[[Any], bool]


class Attention(NamedTuple):
    """Attention weights of all neighbours, and the values that they multiply.

    Shapes:
        - **weights** `[B, T, H, P, K]`
        - **values** `[B, T, H, P, C]`, of all parts or of each
    """

    hood: Neighbourhood
    weights: Tensor
    values: Tensor | Sequence[Tensor]


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


MESSAGE_HOOKS = tuple(
    f"_{step}_forward_{when}hooks"
    for step in ("propagate", "message", "aggregate", "edge_update")
    for when in ("", "pre_")
)
# PyG itself sets an operator's propagate
METHODS = frozenset(("forward", "message", "aggregate", "update", "edge_update"))


def has_hooks(module: nn.Module) -> bool:
    """Whether a module's own `forward` has hooks or is patched; submodules are not looked at."""
    if module._forward_hooks or module._forward_pre_hooks:
        return True
    if module._backward_hooks or module._backward_pre_hooks:
        return True
    return isinstance(module, MessagePassing) and any(getattr(module, n) for n in MESSAGE_HOOKS)


def is_plain(module: nn.Module) -> bool:
    """Whether a module has no hooks, parametrizations or patched methods."""
    is_patched = not METHODS.isdisjoint(module.__dict__)
    return not (is_patched or has_hooks(module) or "parametrizations" in module._modules)


UNOBSERVED = (
    Condition(
        "neither it nor a module inside it has hooks, parametrizations or patched methods",
        lambda conv: all(map(is_plain, conv.modules())),
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


def check_edge_attr(conv: nn.Module, expected: bool, edge_attr: Tensor | None) -> None:
    """Checks that edge features are given exactly if the operator was built for them.

    Raises:
        ValueError: If not; the message names the operator.
    """
    if expected and edge_attr is None:
        raise ValueError(f"{conv} was built for edge features: edge_attr must be given (got None)")
    if not expected and edge_attr is not None:
        shape = list(edge_attr.shape)
        raise ValueError(f"{conv} takes no edge features: edge_attr must be None (got {shape})")


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
