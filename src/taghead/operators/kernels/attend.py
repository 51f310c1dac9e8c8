"""Kernels of attention operators: GATConv, TransformerConv, ...; the verb `attend`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import nn as pyg
from torch_geometric.nn import aggr
from torch_geometric.typing import OptTensor
from torch_geometric.utils import softmax

from taghead.operators.kernel import (
    LINEAR_EDGES,
    NOT_CACHED,
    SUM_OR_MEAN,
    Attend,
    Attention,
    Condition,
    EdgeAttr,
    Kernel,
    Tokens,
    add_bias,
    check_edge_attr,
    takes_mean,
)
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.pairwise import leaky_scores
from taghead.operators.parts import LOOP
from taghead.operators.reduce import SlotMessages, reduce


def heads_of(x: Tensor, heads: int) -> Tensor:
    """`[B, T, P, H*C]` -> `[B, T, H, P, C]`."""
    return x.unflatten(-1, (heads, -1)).transpose(2, 3)


def join_heads(conv: Any, out: Tensor) -> Tensor:
    """`[B, T, H, P, C]` -> the heads' concatenation or mean, `[B, T, P, ...]`."""
    return out.transpose(2, 3).flatten(-2) if conv.concat else out.mean(2)


def attend(conv: Any, attention: Attention, dropout: float = 0.0) -> Tensor:
    """The weighted sum or mean of the neighbours' values, `[B, T, H, P, C]`."""
    hood, weights, values, edges = attention
    weights = F.dropout(weights, dropout, conv.training)
    out = hood.mix(weights, values)
    if edges is not None:
        features, matrix = edges
        out = out + hood.mix_edges(weights, features) @ matrix.transpose(-1, -2)
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


def by_head(linear: Any, heads: int) -> Tensor:
    """The weight of a projection of edge features to heads, `[H, C, D]`."""
    return linear.weight.unflatten(0, (heads, -1))


def edges_with_loops(hood: Neighbourhood, edge_attr: EdgeAttr, fill: Any) -> list[Tensor]:
    """Each part's edge features, `[T or 1, P or 1, K or 1, D]`.

    Self-loops, if any, must be the last part; `fill` is PyG's `fill_value`, their features: a
    number, a tensor, or the aggregation of the token's incoming edges' features, which PyG takes
    even where the flow is from target to source.
    """
    if not hood.parts or hood.parts[-1].relation != LOOP:
        return edge_attr.by_part(hood)
    edges = hood.without_self_loops
    found = edge_attr.by_part(edges)
    row = edge_attr.like.new_ones(1, 1, 1, edge_attr.width)
    if isinstance(fill, str):
        incoming = edges.transposed if edges.is_transposed else edges
        loops = _aggregated(FILLS[fill], incoming, edge_attr).unsqueeze(2)
    elif isinstance(fill, Tensor):
        loops = fill.to(row).expand_as(row)
    else:
        loops = row if fill is None else row * fill
    return [*found, loops]


def _aggregated(module: aggr.Aggregation, hood: Neighbourhood, edge_attr: EdgeAttr) -> Tensor:
    """The aggregation of each token's incoming edges' features, `[T, P, D]`."""
    pairs = zip(hood.parts, edge_attr.by_part(hood), strict=True)
    sizes = [(*hood.shape, part.num_slots, edge_attr.width) for part, _ in pairs]
    if not sizes:
        return edge_attr.like.new_full((1, 1, edge_attr.width), float(module is FILLS["mul"]))
    features = [e.expand(size) for e, size in zip(edge_attr.by_part(hood), sizes, strict=True)]
    values, absent = torch.cat(features, dim=2), hood.absent(edge_attr.like).unsqueeze(-1)
    if module is FILLS["mul"]:
        return values.masked_fill(absent, 1.0).prod(2)
    return reduce(module, SlotMessages(values, absent))


FILLS: dict[str, aggr.Aggregation] = {
    "sum": aggr.SumAggregation(),
    "add": aggr.SumAggregation(),
    "mean": aggr.MeanAggregation(),
    "max": aggr.MaxAggregation(),
    "min": aggr.MinAggregation(),
    "mul": aggr.MulAggregation(),
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
        features = edges_with_loops(hood, tokens.edge_attr, conv.fill_value)
        matrix = (by_head(conv.lin_edge, conv.heads) * conv.att_edge.transpose(0, 1).mT).sum(1)
        of_edge = [(e @ matrix.t()).movedim(-1, 1) for e in features]  # [T or 1, H, P, K]
        scores = [score + e for score, e in zip(scores, of_edge, strict=True)]
    scores = [F.leaky_relu(score, conv.negative_slope) for score in scores]
    return scored(hood, sources, scores)


def gatv2_attention(conv: pyg.GATv2Conv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    if tokens.edge_attr is not None:
        check_edge_attr(conv, conv.lin_edge is not None, tokens.edge_attr)
    hood = with_loops(conv, tokens, hood)
    sources = heads_of(conv.lin_l(tokens.x), conv.heads)
    targets = sources if conv.share_weights else heads_of(conv.lin_r(tokens.x), conv.heads)
    att = conv.att.transpose(0, 1)  # [H, 1, C]
    terms: list[Tensor | None] = [None] * len(hood.parts)
    of_targets = [targets] * len(hood.parts)
    if tokens.edge_attr is not None:
        features = edges_with_loops(hood, tokens.edge_attr, conv.fill_value)
        for i, edges in enumerate(features):  # [T or 1, H, P or 1, K or 1, C]
            term = conv.lin_edge(edges).unflatten(-1, (conv.heads, -1)).movedim(-2, 1)
            if edges.size(2) > 1:
                terms[i] = term[0]
            else:
                of_targets[i] = targets + term.squeeze(-2)
    scores = [
        leaky_scores(part, target, sources, att, conv.negative_slope, term)
        for part, target, term in zip(hood.parts, of_targets, terms, strict=True)
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


class BiasedTransformerConv(pyg.TransformerConv):
    r"""TransformerConv with edge features in its scores alone: a relative-position bias.

    As in `Swin Transformer <https://arxiv.org/abs/2103.14030>`_, with one number for each head:

    .. math::
        \alpha_{ij} = \mathrm{softmax}_j(\mathbf{q}_i^{\top} \mathbf{k}_j / \sqrt{d}
        + \mathbf{W} \mathbf{e}_{ij})

    The arguments are those of PyG's TransformerConv.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        beta: bool = False,
        dropout: float = 0.0,
        edge_dim: int | None = None,
        bias: bool = True,
        root_weight: bool = True,
        **kwargs: Any,
    ) -> None:
        options = heads, concat, beta, dropout, edge_dim, bias, root_weight
        super().__init__(in_channels, out_channels, *options, **kwargs)
        if edge_dim is not None:
            self.lin_edge = pyg.Linear(edge_dim, heads, bias=False)

    def message(
        self,
        query_i: Tensor,
        key_j: Tensor,
        value_j: Tensor,
        edge_attr: OptTensor,
        index: Tensor,
        ptr: OptTensor,
        size_i: int | None,
    ) -> Tensor:
        alpha = (query_i * key_j).sum(-1) / math.sqrt(self.out_channels)
        if edge_attr is not None:
            alpha = alpha + self.lin_edge(edge_attr)
        alpha = self._alpha = softmax(alpha, index, ptr, size_i)
        alpha = F.dropout(alpha, p=self.dropout, training=self.training)
        return value_j * alpha.unsqueeze(-1)


def dot_product(
    conv: pyg.TransformerConv, x: Tensor, hood: Neighbourhood
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Queries, each part's scores, and values."""
    query = heads_of(conv.lin_query(x) / math.sqrt(conv.out_channels), conv.heads)
    key = heads_of(conv.lin_key(x), conv.heads)
    value = heads_of(conv.lin_value(x), conv.heads)
    return query, [part.dot(query, key) for part in hood.parts], value


def transformer_attention(
    conv: pyg.TransformerConv, tokens: Tokens, hood: Neighbourhood
) -> Attention:
    check_edge_attr(conv, conv.lin_edge is not None, tokens.edge_attr)
    query, scores, value = dot_product(conv, tokens.x, hood)
    if tokens.edge_attr is None or not hood.parts:
        return scored(hood, value, scores)
    # q (k + W e) = q k + (W^T q) e: no tensor has a row of C features for every edge
    features, matrix = tokens.edge_attr.by_part(hood), by_head(conv.lin_edge, conv.heads)
    of_edge = query @ matrix  # [B, T, H, P, D]
    triples = zip(hood.parts, scores, features, strict=True)
    scores = [score + part.dot_edges(of_edge, e) for part, score, e in triples]
    return scored(hood, value, scores)._replace(edges=(features, matrix))


def biased_attention(conv: BiasedTransformerConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    check_edge_attr(conv, conv.lin_edge is not None, tokens.edge_attr)
    _, scores, value = dot_product(conv, tokens.x, hood)
    if tokens.edge_attr is not None:
        pairs = zip(scores, tokens.edge_attr.by_part(hood), strict=True)
        scores = [score + conv.lin_edge(e).movedim(-1, 1) for score, e in pairs]
    return scored(hood, value, scores)


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
    hood, weights, *_ = fa_coefficients(conv, tokens, hood)
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
    pyg.GATConv: _kernel(gat_attention, gat_finish, LINEAR_EDGES, edge_attr=True),
    pyg.GATv2Conv: _kernel(gatv2_attention, gat_finish, edge_attr=True),
    pyg.TransformerConv: _kernel(
        transformer_attention, transformer_finish, LINEAR_EDGES, edge_attr=True
    ),
    BiasedTransformerConv: _kernel(biased_attention, transformer_finish, edge_attr=True),
    pyg.SuperGATConv: _kernel(super_gat_attention, gat_finish, IN_EVALUATION),
    pyg.AGNNConv: _kernel(agnn_attention, lambda conv, out, tokens: out.squeeze(2), dropout=False),
    pyg.FAConv: _kernel(
        fa_attention,
        lambda conv, out, tokens: out.squeeze(2) + conv.eps * tokens.x_0,
        *(NOT_CACHED, NORMALIZED),
        shown_attention=fa_coefficients,
    ),
}
