"""Kernels of operators that combine verbs: GeneralConv, and those with weights per relation."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import nn as pyg

from taghead.operators.algebra import add_up, zeros_from
from taghead.operators.kernel import (
    SUM_OR_MEAN,
    Attention,
    Condition,
    EdgeAttr,
    Kernel,
    Tokens,
    add_bias,
    are_linear,
    check_edge_attr,
    takes_mean,
)
from taghead.operators.kernels.attend import attend, by_head, heads_of, scored
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.pairwise import reduce_with_edges
from taghead.operators.parts import Part
from taghead.operators.reduce import REDUCIBLE, Messages, reduce, reducible


def rgcn(conv: pyg.RGCNConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    weights = conv.weight
    if conv.num_bases is not None:
        weights = torch.einsum("rb,bio->rio", conv.comp, weights)
    terms = []
    for index in known_relations(conv, hood):
        messages = Messages.uniform(hood.of_relation(index), tokens.x)
        terms.append(transformed(reduce(conv.aggr_module, messages), weights[index]))
    if conv.root is not None:
        terms.append(tokens.x @ conv.root)
    terms = terms or [zeros_from(transformed(tokens.x, weights[0]))]
    return add_bias(add_up(terms), conv.bias)


def known_relations(conv: pyg.RGCNConv | pyg.RGATConv, hood: Neighbourhood) -> list[int]:
    """The indices of the relations that have edges; the operator must have weights for all.

    Raises:
        ValueError: If it does not.
    """
    found = hood.relations
    if found and found[-1] >= conv.num_relations:
        raise ValueError(
            f"{conv}: num_relations must be at least the number of relations given, "
            f"{found[-1] + 1} (got {conv.num_relations})"
        )
    return found


def transformed(x: Tensor, weight: Tensor) -> Tensor:
    """Applies a matrix `[C, C_out]`, or blocks of a block-diagonal one, `[K, C/K, C_out/K]`."""
    if weight.dim() == 2:
        return x @ weight
    blocks = x.unflatten(-1, weight.shape[:2]).unsqueeze(-2)  # [..., K, 1, C/K]
    return (blocks @ weight).flatten(-3)


def rgat_values(conv: pyg.RGATConv, x: Tensor, hood: Neighbourhood) -> dict[int, Tensor]:
    """The tokens transformed by each relation's weights, `[B, T, P, H*C]`."""
    shared = conv.num_bases is not None
    weights = torch.einsum("rb,bio->rio", conv.att, conv.basis) if shared else conv.weight
    return {i: transformed(x, weights[i]) for i in known_relations(conv, hood) or [0]}


def rgat_attention(conv: pyg.RGATConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    """One weight for each of a head's dimensions, `[B, T, H*D, P, K]`."""
    if tokens.edge_attr is not None:
        check_edge_attr(conv, conv.lin_edge is not None, tokens.edge_attr)
    of_relation = rgat_values(conv, tokens.x, hood)
    values = {
        index: heads_of(x, conv.heads).repeat_interleave(conv.dim, dim=2)
        for index, x in of_relation.items()
    }
    scores, is_additive = [], conv.attention_mode == "additive-self-attention"
    edges = [] if tokens.edge_attr is None else tokens.edge_attr.by_part(hood)
    for i, part in enumerate(hood.parts):
        x = of_relation[part.relation]
        query, key = (x @ conv.q).movedim(-1, 2), (x @ conv.k).movedim(-1, 2)
        score = (
            part.add(query, key)
            if is_additive
            else part.dot(query.unsqueeze(-1), key.unsqueeze(-1))
        )
        if edges:
            edge = (conv.lin_edge(edges[i]) @ conv.e).movedim(-1, 1)  # [1, H*D, P or 1, K or 1]
            score = score + edge if is_additive else score * edge
        scores.append(F.leaky_relu(score, conv.negative_slope) if is_additive else score)
    of_parts = [values[part.relation] for part in hood.parts] or list(values.values())
    return Attention(hood, _softmax(conv, hood, scores, of_parts), of_parts)


def _softmax(
    conv: pyg.RGATConv, hood: Neighbourhood, scores: list[Tensor], values: list[Tensor]
) -> Tensor:
    if conv.attention_mechanism == "across-relation" or not scores:
        return hood.softmax(scores, values)
    weights = list(scores)
    for index in hood.relations:
        edges = hood.of_relation(index)
        slots = [i for i, part in enumerate(hood.parts) if part.relation == index]
        found = edges.softmax([scores[i] for i in slots], values)
        split = found.split([part.num_slots for part in edges.parts], dim=-1)
        for i, weight in zip(slots, split, strict=True):
            weights[i] = weight
    return torch.cat(weights, dim=-1)


def rgat(conv: pyg.RGATConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    attention = rgat_attention(conv, tokens, hood.framed)
    weights = attention.weights
    if conv.mod == "f-additive":
        weights = torch.where(weights > 0, weights + 1, weights)
    elif conv.mod == "f-scaled":
        weights = weights * hood.degrees(weights).number
    dropout = 0.0 if conv.mod in ("additive", "scaled", "f-additive", "f-scaled") else conv.dropout
    out = attend(conv, attention._replace(weights=weights), dropout)
    if conv.mod == "additive":
        values = rgat_values(conv, tokens.x, hood)
        total = reduce(conv.aggr_module, Messages.by_relation(hood, lambda index: values[index]))
        total = heads_of(total, conv.heads).repeat_interleave(conv.dim, dim=2)
        out = out + conv.w * total
    elif conv.mod == "scaled":
        degree = hood.degrees(out).number  # [T, 1, P or 1, 1]
        hidden = (degree @ conv.l1 + conv.b1).relu()
        out = out * (hidden @ conv.l2 + conv.b2)
    return add_bias(_join_heads(conv, out), conv.bias)


def _join_heads(conv: pyg.RGATConv, out: Tensor) -> Tensor:
    """`[B, T, H*D, P, C]` -> `[B, T, P, H*D*C]`, or `[B, T, P, D*C]` with averaged heads."""
    if not conv.concat:
        out = out.unflatten(2, (conv.heads, conv.dim)).mean(2)
    return out.transpose(2, 3).flatten(-2)


class Features(NamedTuple):
    """The summands of a message; the bias of edges' projection is part of the source's.

    Shapes:
        - **source**, **target** `[B, T, H, P, C]`; no target if messages are directed
        - **edges** `[1, P or 1, K or 1, D]` for each part, and their projection `[H, C, D]`
    """

    source: Tensor
    target: Tensor | None
    edges: tuple[list[Tensor], Tensor] | None


def general(conv: pyg.GeneralConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    check_edge_attr(conv, conv.in_edge_channels is not None, tokens.edge_attr)
    target = None if conv.directed_msg else conv.lin_msg_i(tokens.x)
    out = (_attended if conv.attention else _aggregated)(
        conv, conv.lin_msg(tokens.x), target, tokens.edge_attr, hood
    )
    out = out + conv.lin_self(tokens.x)
    return F.normalize(out, p=2.0, dim=-1) if conv.normalize_l2 else out


def _aggregated(
    conv: pyg.GeneralConv,
    source: Tensor,
    target: Tensor | None,
    edge_attr: EdgeAttr | None,
    hood: Neighbourhood,
) -> Tensor:
    if edge_attr is None:
        out = reduce(conv.aggr_module, Messages.uniform(hood, source, target))
    else:
        given = source, edge_attr, conv.lin_edge, target
        out = reduce_with_edges(hood, conv.aggr_module, torch.add, *given)
    return out.unflatten(-1, (conv.heads, -1)).mean(-2)


def _attended(
    conv: pyg.GeneralConv,
    source: Tensor,
    target: Tensor | None,
    edge_attr: EdgeAttr | None,
    hood: Neighbourhood,
) -> Tensor:
    framed, edges = hood.framed, None
    if edge_attr is not None and framed.parts:
        edges = edge_attr.by_part(framed), by_head(conv.lin_edge, conv.heads)
        source = add_bias(source, conv.lin_edge.bias)
    source = heads_of(source, conv.heads)
    target = None if target is None else heads_of(target, conv.heads)
    score, features = SCORES[conv.attention_type], Features(source, target, edges)
    scores = [F.leaky_relu(score(conv, i, p, features), 0.2) for i, p in enumerate(framed.parts)]
    out = attend(conv, scored(framed, source, scores)._replace(edges=edges)).mean(2)
    if target is None:
        return out
    degrees = hood.degrees(out)  # every message holds the target, and a token's weights sum to 1
    share = degrees.present * degrees.inverse if takes_mean(conv) else degrees.present
    return out + target.mean(2) * share


def _additive(conv: pyg.GeneralConv, index: int, part: Part, features: Features) -> Tensor:
    source, target, edges = features
    att = conv.att_msg.transpose(0, 1)  # [H, 1, C]
    of_source = (source * att).sum(-1)
    of_target = torch.zeros_like(of_source) if target is None else (target * att).sum(-1)
    score = part.add(of_target, of_source)
    if edges is None:
        return score
    matrix = (edges[1] * att.mT).sum(1)  # [H, D]
    return score + (edges[0][index] @ matrix.t()).movedim(-1, 1)


def _dot_product(conv: pyg.GeneralConv, index: int, part: Part, features: Features) -> Tensor:
    r"""The message from j to i times the one from i to j, expanded into terms.

    With source features m, target features n and edge features e it is

    .. math::
        (\mathbf{m}_j + \mathbf{n}_i + \mathbf{e})^{\top}
        (\mathbf{m}_i + \mathbf{n}_j + \mathbf{e})
    """
    source, target, edges = features
    one_way = source if target is None else torch.cat([source, target], dim=-1)
    score = part.dot(one_way, one_way)
    if target is not None:
        own = (source * target).sum(-1)
        score = score + part.add(own, own)
    if edges is not None:
        edge, matrix = edges[0][index], edges[1]
        along = (source if target is None else source + target) @ matrix  # [B, T, H, P, D]
        score = score + part.dot_edges(along, edge) + part.dot_edges(along, edge, of_source=True)
        projected = torch.einsum("tpkd,hcd->thpkc", edge, matrix)
        score = score + projected.square().sum(-1)
    return score / conv.scaler


SCORES = {"additive": _additive, "dot_product": _dot_product}
AGGREGATES = Condition(
    f"{SUM_OR_MEAN.text}; without attention also max, min, var or std",
    lambda conv: SUM_OR_MEAN.test(conv) if conv.attention else reducible(conv.aggr_module, True),
)

LINEAR_MESSAGES = Condition(
    "lin_edge is Linear",
    lambda conv: conv.in_edge_channels is None or are_linear(conv.lin_edge),
)

KERNELS: dict[type[pyg.MessagePassing], Kernel] = {
    pyg.RGCNConv: Kernel(rgcn, (REDUCIBLE,)),
    pyg.FastRGCNConv: Kernel(rgcn, (SUM_OR_MEAN,)),
    pyg.RGATConv: Kernel(rgat, (SUM_OR_MEAN,), edge_attr=True, attention=rgat_attention),
    pyg.GeneralConv: Kernel(general, (AGGREGATES, LINEAR_MESSAGES), edge_attr=True),
}
