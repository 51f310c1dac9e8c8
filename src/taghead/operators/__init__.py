"""Message-passing operators on a grid: one function, through which every operator runs."""

from taghead.operators.factory import Operator, OperatorFactory, as_operator
from taghead.operators.propagate import propagate, run

__all__ = ["Operator", "OperatorFactory", "as_operator", "propagate", "run"]
