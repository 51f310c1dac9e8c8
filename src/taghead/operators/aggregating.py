"""Operators that sum, average or take the maximum of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import (
    EdgeConv,
    FiLMConv,
    GatedGraphConv,
    GENConv,
    GINConv,
    GINEConv,
    GraphConv,
    MessagePassing,
    PNAConv,
    ResGatedGraphConv,
    SAGEConv,
)
from torch_geometric.nn.aggr import MeanAggregation, SumAggregation

from taghead.operators.aggregation import (
    REDUCIBLE,
    REDUCIBLE_WITH_TARGETS,
    Messages,
    reduce,
)
from taghead.operators.edge_features import check_edge_attr
from taghead.operators.kernel import Kernel, Rule, Tokens, class_of, plus, rows, takes_mean
from taghead.operators.linear_map import zeros_from
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.networks import ROWWISE, after_sum, run_steps, split_linear, steps_of
from taghead.operators.pairs import PAIRWISE, gated_sum, reduce_pairs
from taghead.operators.parts import FramePart
from taghead.operators.recipes import number, present


def sage(conv: SAGEConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = conv.lin(tokens.x).relu() if conv.project else tokens.x
    out = conv.lin_l(reduce(conv.aggr_module, Messages.alike(hood, x)))
    if conv.root_weight:
        out = out + conv.lin_r(tokens.x)
    return F.normalize(out, p=2.0, dim=-1) if conv.normalize else out


def graph(conv: GraphConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    out = reduce(conv.aggr_module, Messages.alike(hood, tokens.x))
    return conv.lin_rel(out) + conv.lin_root(tokens.x)


def gin(conv: GINConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    out = reduce(conv.aggr_module, Messages.alike(hood, tokens.x))
    return rows(conv.nn, out + (1 + conv.eps) * tokens.x)


def gine(conv: GINEConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    check_edge_attr(conv, True, tokens.edge_attr)
    assert tokens.edge_attr is not None
    edges = tokens.edge_attr if conv.lin is None else conv.lin(tokens.edge_attr)
    messages = Messages.by_relation(hood, lambda place: (tokens.x + edges[place]).relu())
    out = reduce(conv.aggr_module, messages)
    return rows(conv.nn, out + (1 + conv.eps) * tokens.x)


def gated_graph(conv: GatedGraphConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = F.pad(tokens.x, [0, conv.out_channels - tokens.x.size(-1)])
    for weight in conv.weight:
        out = reduce(conv.aggr_module, Messages.alike(hood, x @ weight))
        x = conv.rnn(out.flatten(0, 2), x.flatten(0, 2)).unflatten(0, x.shape[:3])
    return x


def pna(conv: PNAConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = tokens.x.unflatten(-1, (conv.towers if conv.divide_input else 1, conv.F_in))
    x = x.expand(*x.shape[:3], conv.towers, -1)
    outputs = []
    for tower, (before, after) in enumerate(zip(conv.pre_nns, conv.post_nns, strict=True)):
        own = x[..., tower, :]
        out = reduce(conv.aggr_module, _pna_messages(conv, before[0], own, tokens, hood))
        outputs.append(after(torch.cat([own, out], dim=-1)))
    return conv.lin(torch.cat(outputs, dim=-1))


def _pna_messages(
    conv: PNAConv, linear: Any, x: Tensor, tokens: Tokens, hood: Neighbourhood
) -> Messages:
    check_edge_attr(conv, conv.edge_dim is not None, tokens.edge_attr)
    if tokens.edge_attr is None:
        of_target, of_source = split_linear(linear, conv.F_in, conv.F_in)
        return Messages.alike(hood, of_source(x), of_target(x))
    of_target, of_source, of_edge = split_linear(linear, *[conv.F_in] * 3)
    sources, edges = of_source(x), of_edge(conv.edge_encoder(tokens.edge_attr))
    return Messages.by_relation(hood, lambda place: sources + edges[place], of_target(x))


def gen(conv: GENConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = conv.lin_src(tokens.x) if hasattr(conv, "lin_src") else tokens.x
    edges = tokens.edge_attr
    if edges is None:
        messages = Messages.alike(hood, x.relu() + conv.eps)
    else:
        edges = conv.lin_edge(edges) if hasattr(conv, "lin_edge") else edges
        messages = Messages.by_relation(hood, lambda i: (x + edges[i]).relu() + conv.eps)
    out = reduce(conv.aggr_module, messages)
    if hasattr(conv, "lin_aggr_out"):
        out = conv.lin_aggr_out(out)
    if hasattr(conv, "msg_norm"):
        out = conv.msg_norm(tokens.x, out)
    root = conv.lin_dst(tokens.x) if hasattr(conv, "lin_dst") else tokens.x
    return rows(conv.mlp, out + root)


def edge(conv: EdgeConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    """The first layer acts on target and source apart: W1 x_i + W2 (x_j - x_i)."""
    x = tokens.x
    first, *rest = steps_of(conv.nn) or []
    of_target, of_difference = split_linear(first, x.size(-1), x.size(-1))
    sources = of_difference(x)
    targets = of_target(x) - sources
    if not rest:
        return reduce(conv.aggr_module, Messages.alike(hood, sources, targets))
    last: Any = None
    if class_of(conv.aggr_module) in (SumAggregation, MeanAggregation) and _is_linear(rest[-1]):
        last = rest.pop()
    copies = len(hood.parts)
    out = reduce_pairs(
        hood,
        conv.aggr_module,
        lambda target, source: run_steps(rest, target + source),
        [[targets]] * copies,
        [[sources]] * copies,
        like=run_steps(rest, sources),
    )
    if last is None:
        return out
    return after_sum(last, out, hood.per_token(present if takes_mean(conv) else number, out))


def _is_linear(step: Any) -> bool:
    return hasattr(step, "weight") and type(step).__name__ == "Linear"


def film(conv: FiLMConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x, activate = tokens.x, conv.act or (lambda out: out)
    beta, gamma = rows(conv.film_skip, x).split(conv.out_channels, dim=-1)
    out = activate(gamma * conv.lin_skip(x) + beta)
    for place, (lin, modulation) in enumerate(zip(conv.lins, conv.films, strict=True)):
        edges = hood if conv.num_relations <= 1 else hood.of_relation(place)
        if edges.parts:
            beta, gamma = rows(modulation, x).split(conv.out_channels, dim=-1)
            out = out + _modulated(conv, edges, lin(x), beta, gamma)
    return out


def _modulated(
    conv: FiLMConv, hood: Neighbourhood, x: Tensor, beta: Tensor, gamma: Tensor
) -> Tensor:
    if conv.act is None and class_of(conv.aggr_module) in (SumAggregation, MeanAggregation):
        product = gamma * reduce(conv.aggr_module, Messages.alike(hood, x))
        return product + reduce(conv.aggr_module, Messages.alike(hood, zeros_from(x), beta))
    activate = conv.act or (lambda out: out)
    copies = len(hood.parts)
    return reduce_pairs(
        hood,
        conv.aggr_module,
        lambda gamma, beta, x: activate(gamma * x + beta),
        [[gamma, beta]] * copies,
        [[x]] * copies,
        like=x,
    )


def res_gated(conv: ResGatedGraphConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    check_edge_attr(conv, conv.edge_dim is not None, tokens.edge_attr)
    projections = conv.lin_key, conv.lin_query, conv.lin_value
    key, query, value = (_projected(lin, tokens, hood) for lin in projections)
    out = _gated(conv, hood, key, query, value)
    if conv.root_weight:
        out = out + conv.lin_skip(tokens.x)
    return plus(out, conv.bias)


def _projected(linear: Any, tokens: Tokens, hood: Neighbourhood) -> list[Tensor]:
    """A projection of tokens and edge features, for each part; one if there is no part."""
    if tokens.edge_attr is None:
        return [linear(tokens.x)] * max(len(hood.parts), 1)
    of_token, of_edge = split_linear(linear, tokens.x.size(-1), tokens.edge_attr.size(-1))
    x, edges = of_token(tokens.x), of_edge(tokens.edge_attr)
    return [x + edges[part.relation] for part in hood.parts] or [x]


def _gated(
    conv: ResGatedGraphConv,
    hood: Neighbourhood,
    keys: list[Tensor],
    queries: list[Tensor],
    values: list[Tensor],
) -> Tensor:
    gate: Callable[[Tensor], Tensor] = conv.act
    if class_of(gate) is not torch.nn.Sigmoid or class_of(conv.aggr_module) is not SumAggregation:
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
    return sum(terms[1:], start=terms[0]) if terms else zeros_from(values[0])


KERNELS: dict[type[MessagePassing], Kernel] = {
    SAGEConv: Kernel(sage, (REDUCIBLE,)),
    GraphConv: Kernel(graph, (REDUCIBLE,)),
    GINConv: Kernel(gin, (REDUCIBLE,)),
    GINEConv: Kernel(gine, (REDUCIBLE,), edge_attr=True),
    GatedGraphConv: Kernel(gated_graph, (REDUCIBLE,)),
    PNAConv: Kernel(
        pna,
        (
            REDUCIBLE_WITH_TARGETS,
            Rule("pre_layers is 1", lambda conv: len(conv.pre_nns[0]) == 1),
        ),
        edge_attr=True,
    ),
    GENConv: Kernel(gen, (REDUCIBLE,), edge_attr=True),
    EdgeConv: Kernel(edge, (PAIRWISE, ROWWISE)),
    FiLMConv: Kernel(film, (PAIRWISE,)),
    ResGatedGraphConv: Kernel(res_gated, (PAIRWISE,), edge_attr=True),
}
