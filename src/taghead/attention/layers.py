"""What one layer attended to, operator by operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from taghead.attention.weights import EdgeWeights
from taghead.graph.relations import Relation


@dataclass(frozen=True)
class OperatorAttention:
    """What one operator of a layer attended to.

    Args:
        name: The operator's class.
        relations: The relations whose edges it ran on, together.
        edges: Its weights.
        added: The length of what its edges add to each token's output, `[B, N]`.
        is_transposed: Whether messages run from target to source.
    """

    name: str
    relations: tuple[Relation, ...]
    edges: EdgeWeights
    added: Tensor
    is_transposed: bool = False


@dataclass(frozen=True)
class LayerAttention:
    """What a message-passing layer attended to.

    Args:
        operators: One for each relation, or one for all.
        is_residual: Whether the layer's input is added to its output.
    """

    operators: tuple[OperatorAttention, ...]
    is_residual: bool


class Weighed(NamedTuple):
    """The weights of one relation's edges in one layer.

    Shapes:
        - **source**, **target** `[E]`: where messages come from and where they arrive
        - **alpha** `[B, E, heads]`
    """

    source: Tensor
    target: Tensor
    alpha: Tensor
