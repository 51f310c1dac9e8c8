"""Message passing over typed edges: operators on relations, and the residual layer around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import Aggregation
from torch_geometric.nn.conv.hetero_conv import group
from torch_geometric.nn.module_dict import ModuleDict
from torch_geometric.nn.resolver import activation_resolver

from taghead.components import AnyComponent, Component, ComponentLike, as_component
from taghead.graph.edge_features import EdgeFeatures
from taghead.graph.graph_context import GraphContext
from taghead.graph.grid import Grid
from taghead.graph.learned import is_learned
from taghead.graph.relations import INTRA_FRAME, Relation
from taghead.nn.edge_features import build_edge_features, edge_features_component
from taghead.nn.feed_forward import FeedForward
from taghead.nn.layer_operators import AnyOperator
from taghead.nn.norms import LAYER_NORM, NORMS, apply_norm, norm_widths
from taghead.nn.runner import Runner
from taghead.operators import commutes_with_means, propagate
from taghead.operators.kernel import class_of, has_hooks
from taghead.operators.operator import (
    arguments_of,
    check_takes_edges,
    takes_edge_types,
)

Mode = Literal["union", "per_relation", "edge_type", "none"]
RELATION_AGGREGATIONS = ("sum", "mean", "max", "cat")


class TypedOperator(nn.Module):
    r"""A layer's operators: one per relation, or one for the union of the relations' edges.

    Per relation it follows `Modeling Relational Data with Graph Convolutional Networks
    <https://arxiv.org/abs/1703.06103>`_ in giving each edge type its own weights:

    .. math:: \mathbf{x}'_i = \sum_{r} \mathrm{conv}_r(\mathbf{x}, \mathcal{E}_r)_i

    Args:
        channels: Width of every token.
        operator: Builds an operator of given widths; or such an operator for each relation.
        relations: The relations.
        mode: `per_relation`; `union`; or `edge_type`, the union with an operator that gets each
            edge's type.
        aggr: How the relations' outputs are aggregated: as in PyG's `HeteroConv`, or by an
            aggregation of one's own.
        edge_features: The features of each edge, as a head has them; each operator has its own.
        grid: The grid of the tokens, for operators that need their degrees.
        layer: The layer's index, from 1, for operators that take it.

    Shapes:
        - **x**, **x_0** `[..., channels]`
        - **output** `[..., channels]`

    Raises:
        ValueError: If an operator cannot run in the mode, or its output has another width.
    """

    def __init__(
        self,
        channels: int,
        operator: AnyOperator | Mapping[Relation, AnyOperator],
        relations: Sequence[Relation],
        mode: Mode,
        aggr: ComponentLike = "sum",
        edge_features: ComponentLike = "none",
        grid: Grid | None = None,
        layer: int = 1,
    ) -> None:
        super().__init__()
        self.relations = tuple(relations)
        self.convs: ModuleDict | None = None
        aggr = relation_aggregation(aggr)
        self.aggr = aggr if isinstance(aggr, str) else "own"
        where = Grid(2, 1, 2) if grid is None else grid
        component = edge_features_component(edge_features)
        is_split = mode == "per_relation"
        found = [
            build_edge_features(component, where, 1 if is_split else len(self.relations))
            for _ in (self.relations if is_split else (None,))
        ]
        features = [each for each in found if each is not None]
        width, given = channels, features[0].out_channels if features else 0
        self.features = nn.ModuleList(features)  # of each operator
        if mode == "per_relation":
            width = _channels_of_a_relation(channels, len(self.relations), self.aggr)
            self.convs = ModuleDict(
                {
                    r: _of(operator, r)(
                        channels, width, _edge_width(given, [r]), GraphContext([r], where, layer)
                    )
                    for r in self.relations
                }
            )
        else:
            context = GraphContext(self.relations, where, layer, mode == "edge_type")
            edge_channels = _edge_width(given, self.relations)
            self.conv = _of(operator)(channels, channels, edge_channels, context)
            if mode == "edge_type" and not takes_edge_types(self.conv):
                name = type(self.conv).__name__
                raise ValueError(f"mode edge_type: {name} takes no edge_type; use union instead")
        if not isinstance(aggr, str):
            widths = {"in_channels": channels, "channels": channels}
            if isinstance(aggr, Component):
                widths = aggr.open_widths(widths)
            self.aggregation = aggr.build(widths)
        for conv in self.modules():
            if mode != "edge_type" and getattr(conv, "num_relations", 1) > 1:
                name = type(conv).__name__
                raise ValueError(f"mode {mode}: {name} needs edge types; use edge_type instead")
        for i, (conv, of_edges) in enumerate(self.operators_with_features()):
            of_conv = self.relations[i : i + 1] if self.convs is not None else self.relations
            if of_edges is not None:
                check_takes_edges(conv, of_edges.out_channels)
            _check_takes_weights(conv, of_conv)
            _check_width(conv, channels, width, of_conv, of_edges)
        if not isinstance(aggr, str):
            _check_aggregation(self, channels)

    def operators(self) -> list[nn.Module]:
        """The operators, in the order of the relations."""
        if self.convs is None:
            return [self.conv]
        return [self.convs[relation] for relation in self.relations]

    def operators_with_features(self) -> list[tuple[nn.Module, EdgeFeatures | None]]:
        """The operators, each with the features of its edges."""
        convs = self.operators()
        features: list[Any] = list(self.features) or [None] * len(convs)
        return list(zip(convs, features, strict=True))

    def commutes_with_means(self, grid: Grid) -> bool:
        """Whether frame means of the output depend on frame means of the input alone."""
        if self.convs is None:
            return commutes_with_means(self.conv, grid, self.relations)
        return self.aggr not in ("max", "own") and all(
            commutes_with_means(self.convs[r], grid, [r]) for r in self.relations
        )

    def forward(self, x: Tensor, x_0: Tensor, runner: Runner) -> Tensor:
        found = self.operators_with_features()
        if self.convs is None:
            ((conv, features),) = found
            return runner(conv, x, self.relations, x_0, *_given(features))
        pairs = zip(self.relations, found, strict=True)
        outputs = [runner(conv, x, [r], x_0, *_given(features)) for r, (conv, features) in pairs]
        return group(outputs, self.aggr) if self.aggr != "own" else self._aggregate(outputs)

    def _aggregate(self, outputs: Sequence[Tensor]) -> Tensor:
        """The outputs of all relations, aggregated token by token by a module."""
        stacked = torch.stack(list(outputs), dim=-2)  # [..., R, channels]
        if not isinstance(self.aggregation, Aggregation):
            return self.aggregation(stacked)
        rows = stacked.flatten(0, -2)  # [M*R, channels]
        index = torch.arange(len(rows) // len(outputs), device=rows.device)
        out = self.aggregation(rows, index.repeat_interleave(len(outputs)))
        return out.view(*outputs[0].shape[:-1], -1)


def _given(features: EdgeFeatures | None) -> tuple[EdgeFeatures, ...]:
    """The features as the last argument of a runner, which only those with features need."""
    return () if features is None else (features,)


def _edge_width(num_features: int, relations: Sequence[Relation]) -> int | None:
    """The width of `edge_attr`: the features, and the weight of learned edges if there are any."""
    return num_features + any(is_learned(r.edges) for r in relations) or None


def _check_takes_weights(conv: nn.Module, relations: Sequence[Relation]) -> None:
    names = [relation.name for relation in relations if is_learned(relation.edges)]
    if names and {"edge_weight", "edge_attr"}.isdisjoint(arguments_of(conv)[0]):
        raise ValueError(
            f"relations: {names[0]} has learned edges, whose weights {type(conv).__name__} cannot "
            f"use: it takes neither edge_weight, as GraphConv, nor edge_attr, as TransformerConv"
        )


def _of(
    operator: AnyOperator | Mapping[Relation, AnyOperator], relation: Relation | None = None
) -> AnyOperator:
    return operator[relation] if isinstance(operator, Mapping) else operator  # type: ignore[index]


def relation_aggregation(aggr: ComponentLike) -> str | AnyComponent:
    """How relations are aggregated: one of PyG's words, or a component.

    One of PyG's aggregations runs over the relations of each token; any other module takes the
    outputs as `[..., R, channels]`.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(aggr, str) and aggr in RELATION_AGGREGATIONS:
        return aggr
    if isinstance(getattr(aggr, "value", None), str) and aggr.value in RELATION_AGGREGATIONS:
        return aggr.value
    return as_component(aggr, "relation_aggr", dict.fromkeys(RELATION_AGGREGATIONS, nn.Identity))


@torch.no_grad()
def _check_aggregation(convs: TypedOperator, channels: int) -> None:
    """Runs an aggregation of relations on four tokens to check its output."""
    module, name = convs.aggregation, type(convs.aggregation).__name__
    was_training = module.training
    module.eval()
    try:
        out = convs._aggregate([torch.zeros(1, 4, channels)] * len(convs.relations))
    except Exception as error:
        raise ValueError(f"relation_aggr: {name} does not run: {error}") from error
    finally:
        module.train(was_training)
    if out.shape != (1, 4, channels):
        raise ValueError(
            f"relation_aggr: {name} must give {channels} channels (got {out.size(-1)})"
        )


def _channels_of_a_relation(channels: int, num_relations: int, aggr: str) -> int:
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
    conv: nn.Module,
    in_channels: int,
    out_channels: int,
    relations: Sequence[Relation],
    features: EdgeFeatures | None,
) -> None:
    """Runs an operator on four tokens to check that it works and how wide its output is."""
    name, was_training = type(conv).__name__, conv.training
    x = torch.zeros(1, 4, in_channels)
    if x.is_meta:  # only the shapes of its weights are asked for
        return
    try:
        same = [r if is_learned(r.edges) else INTRA_FRAME for r in relations]
        out = propagate(conv.eval(), x, Grid(2, 1, 2), same, edge_features=features or "none")
    except Exception as error:
        reason = str(error) or repr(error)
        raise ValueError(f"{name} does not run on a grid of tokens: {reason}") from error
    finally:
        conv.train(was_training)
    if not isinstance(out, Tensor) or out.shape[:-1] != x.shape[:-1]:
        shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"{name} must give one row for each token (got {shape})")
    if out.size(-1) != out_channels:
        raise ValueError(f"{name} must give {out_channels} channels (got {out.size(-1)})")


class MessagePassingLayer(nn.Module):
    r"""A message-passing layer: norm, operators, nonlinearity, dropout and residual connection.

    With `pre` norm it is

    .. math:: \mathbf{x} + \mathrm{dropout}(\sigma(\mathrm{conv}(\mathrm{norm}(\mathbf{x}))))

    and with `post` norm the norm of the sum instead. `norm=None`, `activation=None` and
    `residual=False` leave the bare operator, as in the paper.

    Args:
        channels: Width of every token.
        convs: The operators.
        norm: A norm before the operators (`pre`), after the sum (`post`), or none.
        activation: The nonlinearity's name, as PyG resolves it.
        dropout: Dropout probability of the operators' output.
        residual: Whether the layer's input is added to its output.
        norm_layer: Which norm: `layer_norm`, one of PyG's by name, or a component.
        feed_forward: Width of a feed-forward network after them, with a norm and a residual
            connection of its own, as in a Transformer layer; 0 for none.

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
        norm_layer: ComponentLike = LAYER_NORM,
        feed_forward: int = 0,
    ) -> None:
        super().__init__()
        found = as_component(norm_layer, "graph_norm_layer", NORMS)
        widths = norm_widths(channels)
        self.pre_norm = found.build(widths) if norm == "pre" else nn.Identity()
        self.convs = convs
        self.activation = activation_resolver(activation) if activation else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.post_norm = found.build(widths) if norm == "post" else nn.Identity()
        self.residual = residual
        self.feed_forward: FeedForward | None = None
        if feed_forward:
            self.feed_forward = FeedForward(
                channels,
                feed_forward,
                found.build(widths) if norm == "pre" else nn.Identity(),
                found.build(widths) if norm == "post" else nn.Identity(),
                activation,
                dropout,
            )

    def commutes_with_means(self, grid: Grid) -> bool:
        """Whether frame means of the output depend on frame means of the input alone."""
        between = (self.pre_norm, self.activation, self.post_norm)
        is_plain = (
            self.feed_forward is None
            and all(class_of(module) is nn.Identity for module in between)
            and not (self.training and self.dropout.p)
            and not any(has_hooks(module) for module in (self, self.convs, self.dropout, *between))
        )
        return is_plain and self.convs.commutes_with_means(grid)

    def forward(self, x: Tensor, x_0: Tensor, runner: Runner) -> Tensor:
        out = self.convs(apply_norm(self.pre_norm, x, runner), x_0, runner)
        out = self.dropout(self.activation(out))
        out = apply_norm(self.post_norm, x + out if self.residual else out, runner)
        return out if self.feed_forward is None else self.feed_forward(out, runner)


def run_layers(
    layers: Iterable[nn.Module],
    x: Tensor,
    runner: Runner,
    x_0: Tensor | None = None,
    jump: nn.Module | None = None,
) -> Tensor:
    """Message passing through a sequence of layers.

    Args:
        layers: The layers.
        x: The tokens.
        runner: Runs their operators.
        x_0: The input of the first layer of all; `x` if not given.
        jump: Makes one output of those of all layers; the last one's if there is no such module.

    Shapes:
        - **x**, **x_0**, **output** `[..., channels]`
    """
    x_0 = x if x_0 is None else x_0
    outputs = []
    for layer in layers:
        x = layer(x, x_0, runner)
        outputs.append(x)
    return x if jump is None or not outputs else jump(outputs)


def auxiliary_loss(module: nn.Module) -> Tensor | None:
    """The sum of the losses that operators have of their own, after a forward pass in training.

    An operator has one if it has the method `get_attention_loss`, as SuperGATConv.

    Returns:
        A scalar; `None` if there is no such operator.
    """
    own: list[Any] = [each for each in module.modules() if has_auxiliary_loss(each)]
    losses = [each.get_attention_loss() for each in own]
    return torch.stack(losses).sum() if losses else None


def has_auxiliary_loss(module: nn.Module) -> bool:
    """Whether an operator has a loss of its own."""
    return callable(getattr(module, "get_attention_loss", None))
