"""A dense kernel: a function that runs one operator class on a neighbourhood, and its rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn.aggr import MeanAggregation, SumAggregation

from taghead.operators.neighbourhood import Neighbourhood


class Tokens(NamedTuple):
    """What an operator works on.

    Shapes:
        - **x**, **x_0** `[B, T, P, C]`
        - **edge_attr** `[R, D]`, one row per relation
    """

    x: Tensor
    x_0: Tensor
    edge_attr: Tensor | None


class Rule(NamedTuple):
    """A condition for the dense way, as a sentence and as a test of an operator."""

    says: str
    holds: Callable[[Any], bool]


class Attention(NamedTuple):
    """Weights of all neighbours, and the values that they weigh.

    Shapes:
        - **weights** `[B, T, H, P, K]`
        - **values** `[B, T, H, P, C]` for each part, or one if there is no part
    """

    hood: Neighbourhood
    weights: Tensor
    values: Sequence[Tensor]


Run = Callable[[Any, Tokens, Neighbourhood], Tensor]
"""`(conv, tokens, neighbourhood)` -> `[B, T, P, C_out]`"""


@dataclass(frozen=True)
class Kernel:
    """The dense way to run one operator class.

    Args:
        run: Runs an operator of the class.
        rules: What must hold of the operator's options.
        edge_attr: Whether it takes edge features.
        attention: For an operator that has attention weights, how it weighs its neighbours.
        shown: The weights that PyG shows for it, where those are others.
    """

    run: Run
    rules: tuple[Rule, ...] = ()
    edge_attr: bool = False
    attention: Callable[[Any, Tokens, Neighbourhood], Attention] | None = None
    shown: Callable[[Any, Tokens, Neighbourhood], Attention] | None = None


def class_of(module: Any) -> type:
    """A module's exact class; in an export, of the module behind the stand-in of torch's tracer."""
    if torch.compiler.is_exporting() and hasattr(type(module), "get_base"):
        return type(module.get_base())
    return type(module)


SUM_OR_MEAN = Rule(
    "aggr is sum or mean",
    lambda conv: class_of(conv.aggr_module) in (SumAggregation, MeanAggregation),
)
NOT_CACHED = Rule("cached is False", lambda conv: not conv.cached)


def takes_mean(conv: Any) -> bool:
    """Whether an operator averages its messages instead of summing them."""
    return class_of(conv.aggr_module) is MeanAggregation


def plus(out: Tensor, bias: Tensor | None) -> Tensor:
    """Adds a bias that may be absent."""
    return out if bias is None else out + bias


def rows(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs a network on rows `[M, C]`, as PyG does, whatever the dimensions of x."""
    return module(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
