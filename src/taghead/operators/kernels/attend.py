"""Kernels of attention operators: GATConv, TransformerConv, ...; the verb `attend`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import nn as pyg

from taghead.operators.kernel import (
    NOT_CACHED,
    SUM_OR_MEAN,
    Attend,
    Attention,
    Condition,
    Kernel,
    Tokens,
    add_bias,
    check_edge_attr,
    takes_mean,
)
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.pairwise import leaky_scores
from taghead.operators.parts import LOOP


def heads_of(x: Tensor, heads: int) -> Tensor:
    """`[B, T, P, H*C]` -> `[B, T, H, P, C]`."""
    return x.unflatten(-1, (heads, -1)).transpose(2, 3)


def join_heads(conv: Any, out: Tensor) -> Tensor:
    """`[B, T, H, P, C]` -> the heads' concatenation or mean, `[B, T, P, ...]`."""
    return out.transpose(2, 3).flatten(-2) if conv.concat else out.mean(2)


def attend(conv: Any, attention: Attention, dropout: float = 0.0) -> Tensor:
    """The weighted sum or mean of the neighbours' values, `[B, T, H, P, C]`."""
    hood, weights, values = attention
    out = hood.mix(F.dropout(weights, dropout, conv.training), values)
    return out * hood.degrees(out).inverse if takes_mean(conv) else out


def scored(
    hood: Neighbourhood, values: Tensor | Sequence[Tensor], scores: Sequence[Tensor]
) -> Attention:
    """Attention with the softmax of each part's scores."""
    return Attention(hood, hood.softmax(scores, values), values)


def with_loops(conv: Any, tokens: Tokens, hood: Neighbourhood) -> Neighbourhood:
    if not conv.add_self_loops:
        return hood
    return hood.with_self_loops(apart=tokens.edge_attr is not None)


def edge_terms(conv: Any, hood: Neighbourhood, tokens: Tokens, fill: Any = None) -> list[Tensor]:
    """Each part's edge features as the operator projects them, `[T or 1, H, P or 1, C]`.

    Self-loops, if any, must be a part of their own; `fill` is PyG's `fill_value`, their features: a
    number, a tensor, or the aggregation of the token's incoming edges' features.
    """
    assert tokens.edge_attr is not None
    features = [
        _loop_features(hood, tokens.edge_attr, fill)
        if part.relation == LOOP
        else tokens.edge_attr[part.relation].view(1, 1, -1)
        for part in hood.parts
    ]
    return [conv.lin_edge(e).unflatten(-1, (conv.heads, -1)).transpose(1, 2) for e in features]


def _loop_features(hood: Neighbourhood, edge_attr: Tensor, fill: Any) -> Tensor:
    """The features of each token's self-loop, `[T, P or 1, D]`, or of all, `[1, 1, D]`.

    PyG aggregates incoming edges even where the flow is from target to source.
    """
    row = edge_attr[:1].unsqueeze(0)
    if fill is None:
        return torch.ones_like(row)
    if isinstance(fill, (int, float)):
        return torch.full_like(row, fill)
    if isinstance(fill, Tensor):
        return fill.to(edge_attr).expand_as(row)
    edges = hood.transposed if hood.is_transposed else hood
    return FILLS[fill](edges.degrees_by_relation(len(edge_attr), edge_attr), edge_attr)


def _largest(counts: Tensor, edge_attr: Tensor) -> Tensor:
    edges = edge_attr.expand(*counts.shape[:2], -1, -1)
    largest = edges.masked_fill((counts == 0).unsqueeze(-1), -torch.inf).amax(-2)
    return largest.masked_fill(largest.isneginf(), 0.0)


FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.matmul,
    "add": torch.matmul,
    "mean": lambda counts, e: counts @ e / counts.sum(-1, keepdim=True).clamp(min=1),
    "max": _largest,
    "min": lambda counts, e: -_largest(counts, -e),
    "mul": lambda counts, e: (e ** counts.unsqueeze(-1)).prod(-2),
}


def gat_attention(conv: pyg.GATConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    if conv.lin_edge is None:
        tokens = tokens._replace(edge_attr=None)
    hood = with_loops(conv, tokens, hood)
    if conv.lin is None:
        sources = heads_of(conv.lin_src(tokens.x), conv.heads)
        targets = heads_of(conv.lin_dst(tokens.x), conv.heads)
    else:
        sources = targets = heads_of(conv.lin(tokens.x), conv.heads)
    of_source = (sources * conv.att_src.unsqueeze(2)).sum(-1)  # [B, T, H, P]
    of_target = (targets * conv.att_dst.unsqueeze(2)).sum(-1)
    scores = [part.add(of_target, of_source) for part in hood.parts]
    if tokens.edge_attr is not None:
        terms = edge_terms(conv, hood, tokens, conv.fill_value)
        of_edge = [(e * conv.att_edge.unsqueeze(2)).sum(-1, keepdim=True) for e in terms]
        scores = [score + e for score, e in zip(scores, of_edge, strict=True)]
    scores = [F.leaky_relu(score, conv.negative_slope) for score in scores]
    return scored(hood, sources, scores)


def gatv2_attention(conv: pyg.GATv2Conv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    if tokens.edge_attr is not None:
        check_edge_attr(conv, conv.lin_edge is not None, tokens.edge_attr)
    hood = with_loops(conv, tokens, hood)
    sources = heads_of(conv.lin_l(tokens.x), conv.heads)
    targets = sources if conv.share_weights else heads_of(conv.lin_r(tokens.x), conv.heads)
    of_targets = [targets] * len(hood.parts)
    if tokens.edge_attr is not None:
        of_targets = [targets + e for e in edge_terms(conv, hood, tokens, conv.fill_value)]
    att = conv.att.transpose(0, 1)  # [H, 1, C]
    scores = [
        leaky_scores(part, target, sources, att, conv.negative_slope)
        for part, target in zip(hood.parts, of_targets, strict=True)
    ]
    return scored(hood, sources, scores)


def gat_finish(conv: Any, out: Tensor, tokens: Tokens) -> Tensor:
    out = join_heads(conv, out)
    if getattr(conv, "res", None) is not None:
        out = out + conv.res(tokens.x)
    return add_bias(out, conv.bias)


def super_gat_attention(conv: pyg.SuperGATConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    hood = with_loops(conv, tokens, hood)
    x = heads_of(conv.lin(tokens.x), conv.heads)
    scores = [part.dot(x, x) for part in hood.parts]
    if conv.attention_type == "MX":
        of_source = (x * conv.att_l.unsqueeze(2)).sum(-1)
        of_target = (x * conv.att_r.unsqueeze(2)).sum(-1)
        sums = [part.add(of_target, of_source) for part in hood.parts]
        scores = [total * dot.sigmoid() for total, dot in zip(sums, scores, strict=True)]
    else:
        scores = [dot / math.sqrt(conv.out_channels) for dot in scores]
    scores = [F.leaky_relu(score, conv.negative_slope) for score in scores]
    return scored(hood, x, scores)


def transformer_attention(
    conv: pyg.TransformerConv, tokens: Tokens, hood: Neighbourhood
) -> Attention:
    check_edge_attr(conv, conv.lin_edge is not None, tokens.edge_attr)
    query = heads_of(conv.lin_query(tokens.x) / math.sqrt(conv.out_channels), conv.heads)
    key = heads_of(conv.lin_key(tokens.x), conv.heads)
    value = heads_of(conv.lin_value(tokens.x), conv.heads)
    values: Tensor | list[Tensor] = value
    scores = [part.dot(query, key) for part in hood.parts]
    if tokens.edge_attr is not None and hood.parts:
        terms = edge_terms(conv, hood, tokens)
        of_edge = [(query * e).sum(-1, keepdim=True) for e in terms]
        scores = [score + e for score, e in zip(scores, of_edge, strict=True)]
        values = [value + e for e in terms]
    return scored(hood, values, scores)


def transformer_finish(conv: pyg.TransformerConv, out: Tensor, tokens: Tokens) -> Tensor:
    out = join_heads(conv, out)
    if not conv.root_weight:
        return out
    root = conv.lin_skip(tokens.x)
    if conv.lin_beta is None:
        return out + root
    beta = conv.lin_beta(torch.cat([out, root, out - root], dim=-1)).sigmoid()
    return beta * root + (1 - beta) * out


def agnn_attention(conv: pyg.AGNNConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    hood = with_loops(conv, tokens, hood)
    x = tokens.x.unsqueeze(2)
    direction = F.normalize(x, p=2.0, dim=-1)
    scores = [part.dot(conv.beta * direction, direction) for part in hood.parts]
    return scored(hood, x, scores)


def fa_coefficients(conv: pyg.FAConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    """Its weights before degree normalisation, from -1 to 1: those that PyG returns."""
    hood = with_loops(conv, tokens, hood)
    of_source, of_target = conv.att_l(tokens.x), conv.att_r(tokens.x)
    scores = [
        part.hide(part.add(*(a.movedim(-1, 2) for a in (of_target, of_source))).tanh(), 0.0)
        for part in hood.parts
    ]
    x = tokens.x.unsqueeze(2)
    weights = torch.cat(scores, dim=-1) if scores else x[..., :0]
    return Attention(hood, weights, x)


def fa_attention(conv: pyg.FAConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    hood, weights, _ = fa_coefficients(conv, tokens, hood)
    scale = hood.degrees(weights).inverse_root  # [T, 1, P or 1, 1]
    return Attention(hood, weights * scale, tokens.x.unsqueeze(2) * scale)


def _kernel(
    attention: Attend,
    finish: Callable[[Any, Tensor, Tokens], Tensor],
    *conditions: Condition,
    dropout: bool = True,
    edge_attr: bool = False,
    shown_attention: Attend | None = None,
) -> Kernel:
    def run(conv: Any, tokens: Tokens, hood: Neighbourhood) -> Tensor:
        found = attention(conv, tokens, hood.framed)
        return finish(conv, attend(conv, found, conv.dropout if dropout else 0.0), tokens)

    return Kernel(run, (SUM_OR_MEAN, *conditions), edge_attr, attention, shown_attention)


IN_EVALUATION = Condition(
    "it is in evaluation (training samples edges)", lambda conv: not conv.training
)
NORMALIZED = Condition("normalize is True", lambda conv: conv.normalize)

KERNELS: dict[type[pyg.MessagePassing], Kernel] = {
    pyg.GATConv: _kernel(gat_attention, gat_finish, edge_attr=True),
    pyg.GATv2Conv: _kernel(gatv2_attention, gat_finish, edge_attr=True),
    pyg.TransformerConv: _kernel(transformer_attention, transformer_finish, edge_attr=True),
    pyg.SuperGATConv: _kernel(super_gat_attention, gat_finish, IN_EVALUATION),
    pyg.AGNNConv: _kernel(agnn_attention, lambda conv, out, tokens: out.squeeze(2), dropout=False),
    pyg.FAConv: _kernel(
        fa_attention,
        lambda conv, out, tokens: out.squeeze(2) + conv.eps * tokens.x_0,
        *(NOT_CACHED, NORMALIZED),
        shown_attention=fa_coefficients,
    ),
}
