"""Message-passing operators on a grid: `propagate` runs them, densely where it can.

It holds the algebra of a grid, the verbs on a neighbourhood (linear, reduce, attend, pairwise) and
the kernels of PyG's operators; it imports `taghead.graph`.
"""

from taghead.graph.edge_features import EdgeFeatures as EdgeFeatures
from taghead.graph.edge_features import EdgeFeaturesLike as EdgeFeaturesLike
from taghead.graph.edge_features import offsets as offsets
from taghead.operators.kernels import supports as supports
from taghead.operators.kernels.attend import BiasedTransformerConv as BiasedTransformerConv
from taghead.operators.operator import Operator as Operator
from taghead.operators.operator import OperatorFactory as OperatorFactory
from taghead.operators.operator import as_operator as as_operator
from taghead.operators.propagate import Engine as Engine
from taghead.operators.propagate import attention_weights as attention_weights
from taghead.operators.propagate import commutes_with_means as commutes_with_means
from taghead.operators.propagate import drop_edges as drop_edges
from taghead.operators.propagate import propagate as propagate
from taghead.operators.propagate import propagate_means as propagate_means
from taghead.operators.propagate import run_operator as run_operator
from taghead.operators.propagate import with_learned_weights as with_learned_weights
