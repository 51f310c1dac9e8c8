"""Message-passing operators on a grid: one function, through which every operator runs."""

from taghead.operators.factory import Operator, OperatorFactory, as_operator
from taghead.operators.means import commutes_with_means, propagate_means
from taghead.operators.offsets import EdgeFeatures, offsets
from taghead.operators.propagate import Engine, attention_weights, propagate, run, without_some
from taghead.operators.registry import supports

__all__ = [
    "EdgeFeatures",
    "Engine",
    "Operator",
    "OperatorFactory",
    "as_operator",
    "attention_weights",
    "commutes_with_means",
    "offsets",
    "propagate",
    "propagate_means",
    "run",
    "supports",
    "without_some",
]
