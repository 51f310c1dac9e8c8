"""Message-passing operators on a grid: one function, through which every operator runs.

It holds the algebra of a grid, the verbs on a neighbourhood and the kernels of PyG's operators; it
imports `taghead.graph`.
"""

from taghead.graph.edge_features import EdgeFeatures, offsets
from taghead.operators.kernels import supports
from taghead.operators.operator import Operator, OperatorFactory, as_operator
from taghead.operators.propagate import (
    Engine,
    attention_weights,
    commutes_with_means,
    propagate,
    propagate_means,
    run,
    without_some,
)

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
