"""Operators that are told each edge's relation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import FastRGCNConv, MessagePassing, RGATConv, RGCNConv

from taghead.operators.aggregation import REDUCIBLE, Messages, reduce
from taghead.operators.attentive import attend, heads_of
from taghead.operators.edge_features import check_edge_attr
from taghead.operators.kernel import SUM_OR_MEAN, Attention, Kernel, Tokens, plus
from taghead.operators.linear_map import zeros_from
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.recipes import number


def rgcn(conv: RGCNConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    weights = conv.weight
    if conv.num_bases is not None:
        weights = torch.einsum("rb,bio->rio", conv.comp, weights)
    places = known_places(conv, hood)
    terms = [
        transformed(
            reduce(conv.aggr_module, Messages.alike(hood.of_relation(place), tokens.x)),
            weights[place],
        )
        for place in places
    ]
    if conv.root is not None:
        terms.append(tokens.x @ conv.root)
    terms = terms or [zeros_from(transformed(tokens.x, weights[0]))]
    return plus(sum(terms[1:], start=terms[0]), conv.bias)


def known_places(conv: RGCNConv | RGATConv, hood: Neighbourhood) -> list[int]:
    """The places of the relations, all of which the operator must have weights for."""
    places = hood.places
    if places and places[-1] >= conv.num_relations:
        raise ValueError(
            f"{conv}: num_relations must be at least the number of relations given, "
            f"{places[-1] + 1} (got {conv.num_relations})"
        )
    return places


def transformed(x: Tensor, weight: Tensor) -> Tensor:
    """Applies a matrix `[C, C_out]`, or blocks of a block-diagonal one, `[K, C/K, C_out/K]`."""
    if weight.dim() == 2:
        return x @ weight
    blocks = x.unflatten(-1, weight.shape[:2]).unsqueeze(-2)  # [..., K, 1, C/K]
    return (blocks @ weight).flatten(-3)


def rgat_values(conv: RGATConv, x: Tensor, hood: Neighbourhood) -> dict[int, Tensor]:
    """The tokens as each relation transforms them, `[B, T, P, H*C]`."""
    if conv.num_bases is None:
        weights = conv.weight
    else:
        weights = torch.einsum("rb,bio->rio", conv.att, conv.basis)
    return {place: transformed(x, weights[place]) for place in known_places(conv, hood) or [0]}


def rgat_attention(conv: RGATConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    """One weight for each of a head's dimensions, `[B, T, H*D, P, K]`."""
    if tokens.edge_attr is not None:
        check_edge_attr(conv, conv.lin_edge is not None, tokens.edge_attr)
    of_relation = rgat_values(conv, tokens.x, hood)
    values = {
        place: heads_of(x, conv.heads).repeat_interleave(conv.dim, dim=2)
        for place, x in of_relation.items()
    }
    scores = []
    for part in hood.parts:
        x = of_relation[part.relation]
        query, key = (x @ conv.q).movedim(-1, 2), (x @ conv.k).movedim(-1, 2)
        edge = None
        if tokens.edge_attr is not None:
            row = tokens.edge_attr[part.relation]
            edge = (conv.lin_edge(row) @ conv.e).unsqueeze(-1)  # [H*D, 1]
        if conv.attention_mode == "additive-self-attention":
            query = query if edge is None else query + edge
            scores.append(F.leaky_relu(part.add(query, key), conv.negative_slope))
        else:
            query = query if edge is None else query * edge
            scores.append(part.dot(query.unsqueeze(-1), key.unsqueeze(-1)))
    of_parts = [values[part.relation] for part in hood.parts] or list(values.values())
    weights = _softmax(conv, hood, scores, of_parts[0])
    return Attention(hood, weights, of_parts)


def _softmax(conv: RGATConv, hood: Neighbourhood, scores: list[Tensor], like: Tensor) -> Tensor:
    if conv.attention_mechanism == "across-relation" or not scores:
        return hood.softmax(scores, like)
    weights = list(scores)
    for place in hood.places:
        edges = hood.of_relation(place)
        slots = [i for i, part in enumerate(hood.parts) if part.relation == place]
        found = edges.softmax([scores[i] for i in slots], like)
        split = found.split([part.num_slots for part in edges.parts], dim=-1)
        for i, weight in zip(slots, split, strict=True):
            weights[i] = weight
    return torch.cat(weights, dim=-1)


def rgat(conv: RGATConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    attention = rgat_attention(conv, tokens, hood.framed)
    weights = attention.weights
    if conv.mod == "f-additive":
        weights = torch.where(weights > 0, weights + 1, weights)
    elif conv.mod == "f-scaled":
        weights = weights * hood.per_token(number, weights)
    dropout = 0.0 if conv.mod in ("additive", "scaled", "f-additive", "f-scaled") else conv.dropout
    out = attend(conv, attention._replace(weights=weights), dropout)
    if conv.mod == "additive":
        values = rgat_values(conv, tokens.x, hood)
        total = reduce(conv.aggr_module, Messages.by_relation(hood, lambda place: values[place]))
        total = heads_of(total, conv.heads).repeat_interleave(conv.dim, dim=2)
        out = out + conv.w * total
    elif conv.mod == "scaled":
        degree = hood.per_token(number, out)  # [T, 1, P or 1, 1]
        hidden = (degree @ conv.l1 + conv.b1).relu()
        out = out * (hidden @ conv.l2 + conv.b2)
    return plus(_joined(conv, out), conv.bias)


def _joined(conv: RGATConv, out: Tensor) -> Tensor:
    """`[B, T, H*D, P, C]` -> `[B, T, P, H*D*C]`, or `[B, T, P, D*C]` with averaged heads."""
    if not conv.concat:
        out = out.unflatten(2, (conv.heads, conv.dim)).mean(2)
    return out.transpose(2, 3).flatten(-2)


KERNELS: dict[type[MessagePassing], Kernel] = {
    RGCNConv: Kernel(rgcn, (REDUCIBLE,)),
    FastRGCNConv: Kernel(rgcn, (SUM_OR_MEAN,)),
    RGATConv: Kernel(rgat, (SUM_OR_MEAN,), edge_attr=True, attention=rgat_attention),
}
