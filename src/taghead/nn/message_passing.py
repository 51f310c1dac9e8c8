"""Message passing over typed edges: operators on relations, and the residual layer around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.conv.hetero_conv import group
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.resolver import activation_resolver

from taghead.graph.edge_features import edge_width
from taghead.graph.grid import Grid
from taghead.graph.relations import INTRA_FRAME, Relation
from taghead.nn.runner import Runner
from taghead.operators import EdgeFeatures, Operator, commutes_with_means, propagate
from taghead.operators.kernel import class_of, has_hooks
from taghead.operators.operator import check_takes_edges, takes_edge_types

Mode = Literal["union", "per_relation", "edge_type", "none"]
RelationAggregation = Literal["sum", "mean", "max", "cat"]


class TypedOperator(nn.Module):
    r"""A layer's operators: one per relation, or one for the union of the relations' edges.

    Per relation it follows `Modeling Relational Data with Graph Convolutional Networks
    <https://arxiv.org/abs/1703.06103>`_ in giving each edge type its own weights:

    .. math:: \mathbf{x}'_i = \sum_{r} \mathrm{conv}_r(\mathbf{x}, \mathcal{E}_r)_i

    Args:
        channels: Width of every token.
        operator: Builds an operator of given widths.
        relations: The relations.
        mode: `per_relation`; `union`; or `edge_type`, the union with an operator that gets each
            edge's type.
        aggr: How the relations' outputs are aggregated, as in PyG's `HeteroConv`.
        edge_features: The features of each edge.

    Shapes:
        - **x**, **x_0** `[..., channels]`
        - **output** `[..., channels]`

    Raises:
        ValueError: If the operator cannot run in the mode.
    """

    def __init__(
        self,
        channels: int,
        operator: Operator,
        relations: Sequence[Relation],
        mode: Mode,
        aggr: RelationAggregation = "sum",
        edge_features: EdgeFeatures = "none",
    ) -> None:
        super().__init__()
        self.relations = tuple(relations)
        self.aggr = aggr
        self.convs: ModuleDict | None = None
        width, edge_channels = channels, edge_width(edge_features)
        if mode == "per_relation":
            width = _channels_of_a_relation(channels, len(self.relations), aggr)
            self.convs = ModuleDict(
                {r: operator(channels, width, edge_channels) for r in self.relations}
            )
        else:
            self.conv = operator(channels, channels, edge_channels)
            if mode == "edge_type" and not takes_edge_types(self.conv):
                name = type(self.conv).__name__
                raise ValueError(f"mode edge_type: {name} takes no edge_type; use union instead")
        for conv in self.modules():
            if mode != "edge_type" and getattr(conv, "num_relations", 1) > 1:
                name = type(conv).__name__
                raise ValueError(f"mode {mode}: {name} needs edge types; use edge_type instead")
        for conv in self.modules():
            if isinstance(conv, MessagePassing):
                if edge_channels is not None:
                    check_takes_edges(conv)
                num_relations = 1 if self.convs else len(self.relations)
                _check_width(conv, channels, width, num_relations, edge_features)

    def commutes_with_means(self, grid: Grid) -> bool:
        """Whether frame means of the output depend on frame means of the input alone."""
        if self.convs is None:
            return commutes_with_means(self.conv, grid, self.relations)
        return self.aggr != "max" and all(
            commutes_with_means(self.convs[r], grid, [r]) for r in self.relations
        )

    def forward(self, x: Tensor, x_0: Tensor, runner: Runner) -> Tensor:
        if self.convs is None:
            return runner(self.conv, x, self.relations, x_0)
        outputs = [runner(self.convs[r], x, [r], x_0) for r in self.relations]
        return group(outputs, self.aggr)


def _channels_of_a_relation(channels: int, num_relations: int, aggr: RelationAggregation) -> int:
    if aggr != "cat":
        return channels
    if channels % num_relations:
        raise ValueError(
            f"relation_aggr cat: the number of relations must divide the width {channels} "
            f"(got {num_relations})"
        )
    return channels // num_relations


@torch.no_grad()
def _check_width(
    conv: MessagePassing,
    in_channels: int,
    out_channels: int,
    num_relations: int,
    edge_features: EdgeFeatures,
) -> None:
    """Runs an operator on four tokens to check that it works and how wide its output is."""
    name, was_training = type(conv).__name__, conv.training
    x = torch.zeros(1, 4, in_channels)
    try:
        relations = [INTRA_FRAME] * num_relations
        out = propagate(conv.eval(), x, Grid(2, 1, 2), relations, edge_features=edge_features)
    except Exception as error:
        raise ValueError(f"{name} does not run on a grid of tokens: {error}") from error
    finally:
        conv.train(was_training)
    if out.size(-1) != out_channels:
        raise ValueError(f"{name} must give {out_channels} channels (got {out.size(-1)})")


class MessagePassingLayer(nn.Module):
    r"""A message-passing layer: norm, operators, nonlinearity, dropout and residual connection.

    With `pre` norm it is

    .. math:: \mathbf{x} + \mathrm{dropout}(\sigma(\mathrm{conv}(\mathrm{norm}(\mathbf{x}))))

    and with `post` norm the LayerNorm of the sum instead. `norm=None`, `activation=None` and
    `residual=False` leave the bare operator, as in the paper.

    Args:
        channels: Width of every token.
        convs: The operators.
        norm: LayerNorm before the operators (`pre`), after the sum (`post`), or none.
        activation: The nonlinearity's name, as PyG resolves it.
        dropout: Dropout probability of the operators' output.
        residual: Whether the layer's input is added to its output.

    Shapes:
        - **x**, **x_0** `[..., channels]`
        - **output** `[..., channels]`
    """

    def __init__(
        self,
        channels: int,
        convs: TypedOperator,
        norm: Literal["pre", "post"] | None = "pre",
        activation: str | None = "gelu",
        dropout: float = 0.0,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(channels) if norm == "pre" else nn.Identity()
        self.convs = convs
        self.activation = activation_resolver(activation) if activation else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.post_norm = nn.LayerNorm(channels) if norm == "post" else nn.Identity()
        self.residual = residual

    def commutes_with_means(self, grid: Grid) -> bool:
        """Whether frame means of the output depend on frame means of the input alone."""
        between = (self.pre_norm, self.activation, self.post_norm)
        is_plain = (
            all(class_of(module) is nn.Identity for module in between)
            and not (self.training and self.dropout.p)
            and not any(has_hooks(module) for module in (self, self.convs, self.dropout, *between))
        )
        return is_plain and self.convs.commutes_with_means(grid)

    def forward(self, x: Tensor, x_0: Tensor, runner: Runner) -> Tensor:
        out = self.convs(self.pre_norm(x), x_0, runner)
        out = self.dropout(self.activation(out))
        return self.post_norm(x + out if self.residual else out)


def run_layers(
    layers: Iterable[nn.Module], x: Tensor, runner: Runner, x_0: Tensor | None = None
) -> Tensor:
    """Message passing through a sequence of layers.

    Args:
        layers: The layers.
        x: The tokens.
        runner: Runs their operators.
        x_0: The input of the first layer of all; `x` if not given.

    Shapes:
        - **x**, **x_0**, **output** `[..., channels]`
    """
    x_0 = x if x_0 is None else x_0
    for layer in layers:
        x = layer(x, x_0, runner)
    return x
