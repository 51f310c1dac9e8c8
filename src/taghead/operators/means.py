r"""Linear operators on frame means alone: all that a mean readout behind them sees.

A map :math:`A \otimes J + B \otimes I` takes frame means to frame means, by the T x T matrix
:math:`P A + B`; so does an operator made of such maps, linear layers and biases.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch_geometric.nn import (
    APPNP,
    ChebConv,
    ClusterGCNConv,
    GCN2Conv,
    GCNConv,
    GraphConv,
    LEConv,
    LGConv,
    Linear,
    MessagePassing,
    MixHopConv,
    SAGEConv,
    SGConv,
    SimpleConv,
    SSGConv,
    TAGConv,
)
from torch_geometric.nn.aggr import MeanAggregation, SumAggregation

from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.operators.kernel import Tokens, class_of
from taghead.operators.neighbourhood import FrameMeans
from taghead.operators.propagate import dense_way
from taghead.operators.registry import KERNELS, has_hooks

COMMUTING: frozenset[type[MessagePassing]] = frozenset(
    {
        APPNP,
        ChebConv,
        ClusterGCNConv,
        GCN2Conv,
        GCNConv,
        GraphConv,
        LEConv,
        LGConv,
        MixHopConv,
        SAGEConv,
        SGConv,
        SimpleConv,
        SSGConv,
        TAGConv,
    }
)
"""Operators that are affine in the tokens if all of their modules are."""
AFFINE = (Linear, nn.Linear, nn.ModuleList, SumAggregation, MeanAggregation)


def commutes_with_means(conv: MessagePassing, grid: Grid, relations: Sequence[Relation]) -> bool:
    """Whether frame means of an operator's output need frame means of its input alone."""
    if class_of(conv) not in COMMUTING:
        return False
    if isinstance(conv, SAGEConv) and (conv.project or conv.normalize):
        return False
    modules = [module for module in conv.modules() if module is not conv]
    if any(class_of(module) not in AFFINE or has_hooks(module) for module in modules):
        return False
    hood, _ = dense_way(conv, grid, tuple(relations))
    return hood is not None and not hood.has_windows


def propagate_means(
    conv: MessagePassing,
    means: Tensor,
    grid: Grid,
    relations: Sequence[Relation],
    means_0: Tensor | None = None,
) -> Tensor:
    """The frame means of what `propagate` gives, from the frame means of the tokens.

    Args:
        conv: An operator that commutes with frame means.
        means: The mean over each frame of the tokens.
        grid: The grid that the tokens lie on.
        relations: The edge sets.
        means_0: The frame means of what went into the first layer.

    Shapes:
        - **means**, **means_0** `[B, T, C]`
        - **output** `[B, T, C_out]`

    Raises:
        ValueError: If the operator does not commute with frame means.
    """
    if not commutes_with_means(conv, grid, relations):
        raise ValueError(f"{conv} does not commute with the mean over a frame on these relations")
    hood, _ = dense_way(conv, grid, tuple(relations))
    assert hood is not None
    of_means = FrameMeans(hood.size, hood.parts, hood.is_transposed)
    means = means.unsqueeze(2)  # [B, T, 1, C]
    means_0 = means if means_0 is None else means_0.unsqueeze(2)
    return KERNELS[class_of(conv)].run(conv, Tokens(means, means_0, None), of_means).squeeze(2)
