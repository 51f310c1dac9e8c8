"""Kernels of operators with nonlinear functions of target and source; the verb `pairwise`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _BatchNorm
from torch_geometric import nn as pyg
from torch_geometric.nn.norm import BatchNorm

from taghead.operators.algebra import add_up, zeros_from
from taghead.operators.kernel import (
    LINEAR,
    SUM_OR_MEAN,
    Condition,
    Kernel,
    Tokens,
    add_bias,
    apply_rowwise,
    are_linear,
    check_edge_attr,
    class_of,
    split_linear,
    takes_mean,
)
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.pairwise import PAIRWISE, gated_sum, reduce_edges, reduce_pairs
from taghead.operators.parts import FramePart
from taghead.operators.reduce import Messages, reduce


def edge(conv: pyg.EdgeConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    """The first layer is split by target and source: W1 x_i + W2 (x_j - x_i)."""
    x = tokens.x
    first, *rest = steps_of(conv.nn) or []
    of_target, of_difference = split_linear(first, x.size(-1), x.size(-1))
    sources = of_difference(x)
    targets = of_target(x) - sources
    if not rest:
        return reduce(conv.aggr_module, Messages.uniform(hood, sources, targets))
    last: Any = None
    if SUM_OR_MEAN.test(conv) and are_linear(rest[-1]):
        last = rest.pop()
    out = reduce_pairs(
        hood,
        conv.aggr_module,
        lambda target, source: run_steps(rest, target + source),
        [[targets]] * len(hood.parts),
        [[sources]] * len(hood.parts),
        like=run_steps(rest, sources),
    )
    if last is None:
        return out
    degrees = hood.degrees(out)  # the last layer's outputs are summed as its inputs and biases
    count = degrees.present if takes_mean(conv) else degrees.number
    return add_bias(out @ last.weight.t(), None if last.bias is None else count * last.bias)


def film(conv: pyg.FiLMConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x, activate = tokens.x, conv.act or nn.Identity()
    beta, gamma = apply_rowwise(conv.film_skip, x).split(conv.out_channels, dim=-1)
    out = activate(gamma * conv.lin_skip(x) + beta)
    for index, (lin, modulation) in enumerate(zip(conv.lins, conv.films, strict=True)):
        edges = hood if conv.num_relations <= 1 else hood.of_relation(index)
        if edges.parts:
            beta, gamma = apply_rowwise(modulation, x).split(conv.out_channels, dim=-1)
            out = out + _modulated(conv, edges, lin(x), beta, gamma)
    return out


def _modulated(
    conv: pyg.FiLMConv, hood: Neighbourhood, x: Tensor, beta: Tensor, gamma: Tensor
) -> Tensor:
    if conv.act is None and SUM_OR_MEAN.test(conv):
        product = gamma * reduce(conv.aggr_module, Messages.uniform(hood, x))
        return product + reduce(conv.aggr_module, Messages.uniform(hood, zeros_from(x), beta))
    activate = conv.act or nn.Identity()
    return reduce_pairs(
        hood,
        conv.aggr_module,
        lambda gamma, beta, x: activate(gamma * x + beta),
        [[gamma, beta]] * len(hood.parts),
        [[x]] * len(hood.parts),
        like=x,
    )


def res_gated(conv: pyg.ResGatedGraphConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    check_edge_attr(conv, conv.edge_dim is not None, tokens.edge_attr)
    out = _gated(conv, tokens, hood)
    if conv.root_weight:
        out = out + conv.lin_skip(tokens.x)
    return add_bias(out, conv.bias)


def _gated(conv: pyg.ResGatedGraphConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    gate: Callable[[Tensor], Tensor] = conv.act
    layers = conv.lin_key, conv.lin_query, conv.lin_value
    if tokens.edge_attr is None or not hood.parts:
        width = 0 if tokens.edge_attr is None else tokens.edge_attr.width
        nodes = [split_linear(lin, tokens.x.size(-1), width)[0](tokens.x) for lin in layers]
        return _gated_by_part(conv, hood, *([x] * max(len(hood.parts), 1) for x in nodes))
    split = [split_linear(lin, tokens.x.size(-1), tokens.edge_attr.width) for lin in layers]
    key, query, value = (of_token(tokens.x) for of_token, _ in split)
    if tokens.edge_attr.rows is not None:
        rows = [of_edge(tokens.edge_attr.rows) for _, of_edge in split]
        relations = [part.relation for part in hood.parts]
        parts = [
            [x + e[i] for i in relations] for x, e in zip((key, query, value), rows, strict=True)
        ]
        return _gated_by_part(conv, hood, *parts)
    hood = hood.framed
    edges = [[of_edge(e) for _, of_edge in split] for e in tokens.edge_attr.by_part(hood)]
    return reduce_edges(
        hood,
        conv.aggr_module,
        lambda k, q, v, of_gate, of_value: gate(k + q + of_gate) * (v + of_value),
        [key],
        [query, value],
        [[of_key + of_query, of_value] for of_key, of_query, of_value in edges],
    )


def _gated_by_part(
    conv: pyg.ResGatedGraphConv,
    hood: Neighbourhood,
    keys: list[Tensor],
    queries: list[Tensor],
    values: list[Tensor],
) -> Tensor:
    gate: Callable[[Tensor], Tensor] = conv.act
    if class_of(gate) is not nn.Sigmoid or not SUM_OR_MEAN.test(conv) or takes_mean(conv):
        return reduce_pairs(
            hood,
            conv.aggr_module,
            lambda k, q, v: gate(k + q) * v,
            [[k] for k in keys],
            [[q, v] for q, v in zip(queries, values, strict=True)],
            like=values[0],
        )
    terms = [
        gated_sum(k, q, v)
        if isinstance(part, FramePart)
        else torch.sigmoid(k + part.source(q)) * part.source(v)
        for part, k, q, v in zip(hood.parts, keys, queries, values, strict=False)
    ]
    return add_up(terms) if terms else zeros_from(values[0])


Step = Callable[[Tensor], Tensor]
MIXING = ("Softmax", "Softmax2d", "LogSoftmax", "Softmin", "MultiheadAttention", "GLU")
ACTIVATIONS = [getattr(activation, name) for name in activation.__all__ if name not in MIXING]
ROWWISE_CLASSES = (*LINEAR, *ACTIVATIONS, nn.Identity, nn.Dropout, nn.LayerNorm)


def steps_of(network: Any) -> list[Step] | None:
    """The layers of a network that acts on each row by itself; None for other networks.

    A batch norm does so only in evaluation. Inactive dropout is left out.
    """
    if class_of(network) in (nn.Sequential, pyg.MLP):
        modules = network if class_of(network) is nn.Sequential else _modules_of(network)
        found = [steps_of(module) for module in modules]
        return None if None in found else [step for steps in found for step in steps or []]
    if isinstance(network, (BatchNorm, _BatchNorm)):
        return None if network.training else [partial(apply_rowwise, network)]
    if class_of(network) not in ROWWISE_CLASSES:
        return None
    is_active = not isinstance(network, nn.Dropout) or (network.training and network.p > 0)
    return [network] if is_active and not isinstance(network, nn.Identity) else []


def _modules_of(mlp: pyg.MLP) -> list[nn.Module]:
    """The modules of PyG's MLP, in order; its activation comes before or after the norm."""
    found: list[nn.Module] = []
    dropouts = [nn.Dropout(p).train(mlp.training) for p in mlp.dropout]
    for lin, norm, dropout in zip(mlp.lins, mlp.norms, dropouts, strict=False):
        act = [] if mlp.act is None else [mlp.act]
        found += [lin, *([*act, norm] if mlp.act_first else [norm, *act]), dropout]
    return [*found, mlp.lins[-1], dropouts[-1]] if mlp.plain_last else found


def run_steps(steps: Sequence[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x


def begins_linear(network: Any) -> bool:
    """Whether a network acts on each row by itself and begins with a linear layer."""
    steps = steps_of(network) or []
    return bool(steps) and are_linear(steps[0])


ROWWISE = Condition(
    "nn is a Linear, or a Sequential or MLP that begins with one and acts on each row by itself "
    "(a batch norm does so in evaluation)",
    lambda conv: begins_linear(conv.nn),
)
LINEAR_PROJECTIONS = Condition(
    "lin_key, lin_query and lin_value are Linear",
    lambda conv: are_linear(conv.lin_key, conv.lin_query, conv.lin_value),
)

KERNELS: dict[type[pyg.MessagePassing], Kernel] = {
    pyg.EdgeConv: Kernel(edge, (PAIRWISE, ROWWISE), network_inputs=2),
    pyg.FiLMConv: Kernel(film, (PAIRWISE,)),
    pyg.ResGatedGraphConv: Kernel(res_gated, (PAIRWISE, LINEAR_PROJECTIONS), edge_attr=True),
}
