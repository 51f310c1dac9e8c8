"""GeneralConv: any of its messages, with attention or without."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GeneralConv, MessagePassing

from taghead.operators.aggregation import Messages, reduce, reducible
from taghead.operators.attentive import attend, heads_of, scored
from taghead.operators.edge_features import check_edge_attr
from taghead.operators.kernel import SUM_OR_MEAN, Attention, Kernel, Rule, Tokens, takes_mean
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.parts import Part
from taghead.operators.recipes import inverse, present


class Features(NamedTuple):
    """What a message is the sum of.

    Shapes:
        - **source**, **target** `[B, T, H, P, C]`; no target if messages are directed
        - **edge** `[R, H, 1, C]`, if there are edge features
    """

    source: Tensor
    target: Tensor | None
    edge: Tensor | None


def general(conv: GeneralConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    check_edge_attr(conv, conv.in_edge_channels is not None, tokens.edge_attr)
    if conv.attention:
        out = attend(conv, general_attention(conv, tokens, hood.framed)).mean(2)
        target = _features(conv, tokens).target
        if target is not None:  # every message holds it, and a token's weights sum to 1
            out = out + target.mean(2) * hood.per_token(share if takes_mean(conv) else present, out)
    else:
        out = reduce(conv.aggr_module, _messages(conv, tokens, hood))
        out = out.unflatten(-1, (conv.heads, -1)).mean(-2)
    out = out + conv.lin_self(tokens.x)
    return F.normalize(out, p=2.0, dim=-1) if conv.normalize_l2 else out


def _messages(conv: GeneralConv, tokens: Tokens, hood: Neighbourhood) -> Messages:
    x = conv.lin_msg(tokens.x)
    targets = None if conv.directed_msg else conv.lin_msg_i(tokens.x)
    if tokens.edge_attr is None:
        return Messages.alike(hood, x, targets)
    edges = conv.lin_edge(tokens.edge_attr)
    return Messages.by_relation(hood, lambda place: x + edges[place], targets)


def _features(conv: GeneralConv, tokens: Tokens) -> Features:
    source = heads_of(conv.lin_msg(tokens.x), conv.heads)
    target = None if conv.directed_msg else heads_of(conv.lin_msg_i(tokens.x), conv.heads)
    if tokens.edge_attr is None:
        return Features(source, target, None)
    edge = conv.lin_edge(tokens.edge_attr).unflatten(-1, (conv.heads, 1, -1))
    return Features(source, target, edge)


def share(degrees: np.ndarray) -> np.ndarray:
    """1 over the number of edges, 0 where there is none."""
    return present(degrees) * inverse(degrees)


def general_attention(conv: GeneralConv, tokens: Tokens, hood: Neighbourhood) -> Attention:
    """The weights, and what the messages hold of the sources and edges."""
    features = _features(conv, tokens)
    score = _dot_product if conv.attention_type == "dot_product" else _additive
    scores = [F.leaky_relu(score(conv, part, features), 0.2) for part in hood.parts]
    if features.edge is None:
        values = [features.source] * max(len(hood.parts), 1)
    else:
        values = [features.source + features.edge[part.relation] for part in hood.parts]
    return scored(hood, values or [features.source], scores)


def _additive(conv: GeneralConv, part: Part, features: Features) -> Tensor:
    source, target, edge = features
    att = conv.att_msg.transpose(0, 1)  # [H, 1, C]
    of_source = (source * att).sum(-1)
    of_target = torch.zeros_like(of_source) if target is None else (target * att).sum(-1)
    if edge is not None:
        of_target = of_target + (edge[part.relation] * att).sum(-1)
    return part.add(of_target, of_source)


def _dot_product(conv: GeneralConv, part: Part, features: Features) -> Tensor:
    r"""The message from j to i times the one from i to j, their terms sorted by whom they need.

    With source features m, target features n and edge features e it is

    .. math::
        (\mathbf{m}_j + \mathbf{n}_i + \mathbf{e})^{\top}
        (\mathbf{m}_i + \mathbf{n}_j + \mathbf{e})
    """
    source, target, edge = features
    one_way = source if target is None else torch.cat([source, target], dim=-1)
    score = part.dot(one_way, one_way)
    if target is not None:
        own = (source * target).sum(-1)
        score = score + part.add(own, own)
    if edge is not None:
        term = edge[part.relation]
        along = ((source if target is None else source + target) * term).sum(-1)
        score = score + part.add(along, along) + (term * term).sum(-1, keepdim=True)
    return score / conv.scaler


KERNELS: dict[type[MessagePassing], Kernel] = {
    GeneralConv: Kernel(
        general,
        (
            Rule(
                f"{SUM_OR_MEAN.says}; without attention also max, min, var or std",
                lambda conv: (
                    SUM_OR_MEAN.holds(conv)
                    if conv.attention
                    else reducible(conv.aggr_module, with_targets=True)
                ),
            ),
        ),
        edge_attr=True,
    ),
}
