"""Kernels of operators that aggregate messages of sources: SAGEConv, ...; the verb `reduce`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric import nn as pyg

from taghead.operators.kernel import (
    Condition,
    EdgeAttr,
    Kernel,
    Tokens,
    always,
    apply_rowwise,
    are_linear,
    check_edge_attr,
    split_linear,
)
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.pairwise import reduce_with_edges
from taghead.operators.reduce import REDUCIBLE, REDUCIBLE_WITH_TARGETS, Messages, reduce


def simple(conv: pyg.SimpleConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    if conv.combine_root == "self_loop":
        hood = hood.with_self_loops()
    out = reduce(conv.aggr_module, Messages.uniform(hood, tokens.x))
    if conv.combine_root == "sum":
        return out + tokens.x
    return torch.cat([tokens.x, out], dim=-1) if conv.combine_root == "cat" else out


def sage(conv: pyg.SAGEConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = conv.lin(tokens.x).relu() if conv.project else tokens.x
    out = conv.lin_l(reduce(conv.aggr_module, Messages.uniform(hood, x)))
    if conv.root_weight:
        out = out + conv.lin_r(tokens.x)
    return F.normalize(out, p=2.0, dim=-1) if conv.normalize else out


def graph(conv: pyg.GraphConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    out = reduce(conv.aggr_module, Messages.uniform(hood, tokens.x))
    return conv.lin_rel(out) + conv.lin_root(tokens.x)


def le(conv: pyg.LEConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = tokens.x
    messages = Messages.uniform(hood, conv.lin1(x), targets=-conv.lin2(x))
    return reduce(conv.aggr_module, messages) + conv.lin3(x)


def gin(conv: pyg.GINConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    out = reduce(conv.aggr_module, Messages.uniform(hood, tokens.x))
    return apply_rowwise(conv.nn, out + (1 + conv.eps) * tokens.x)


def gine(conv: pyg.GINEConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    check_edge_attr(conv, True, tokens.edge_attr)
    assert tokens.edge_attr is not None
    out = reduce_with_edges(
        hood,
        conv.aggr_module,
        lambda source, edge: (source + edge).relu(),
        tokens.x,
        tokens.edge_attr,
        conv.lin or nn.Identity(),
    )
    return apply_rowwise(conv.nn, out + (1 + conv.eps) * tokens.x)


def gated_graph(conv: pyg.GatedGraphConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = F.pad(tokens.x, [0, conv.out_channels - tokens.x.size(-1)])
    for weight in conv.weight:
        out = reduce(conv.aggr_module, Messages.uniform(hood, x @ weight))
        x = conv.rnn(out.flatten(0, 2), x.flatten(0, 2)).unflatten(0, x.shape[:3])
    return x


def pna(conv: pyg.PNAConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    check_edge_attr(conv, conv.edge_dim is not None, tokens.edge_attr)
    x = tokens.x.unflatten(-1, (conv.towers if conv.divide_input else 1, conv.F_in))
    x = x.expand(*x.shape[:3], conv.towers, -1)
    outputs = []
    for tower, (before, after) in enumerate(zip(conv.pre_nns, conv.post_nns, strict=True)):
        own = x[..., tower, :]
        out = _pna_tower(conv, before[0], own, tokens.edge_attr, hood)
        outputs.append(after(torch.cat([own, out], dim=-1)))
    return conv.lin(torch.cat(outputs, dim=-1))


def _pna_tower(
    conv: pyg.PNAConv, linear: Any, x: Tensor, edge_attr: EdgeAttr | None, hood: Neighbourhood
) -> Tensor:
    if edge_attr is None:
        of_target, of_source = split_linear(linear, conv.F_in, conv.F_in)
        return reduce(conv.aggr_module, Messages.uniform(hood, of_source(x), of_target(x)))
    of_target, of_source, of_edge = split_linear(linear, *[conv.F_in] * 3)
    return reduce_with_edges(
        hood,
        conv.aggr_module,
        torch.add,
        of_source(x),
        edge_attr,
        lambda features: of_edge(conv.edge_encoder(features)),
        of_target(x),
    )


def gen(conv: pyg.GENConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = conv.lin_src(tokens.x) if hasattr(conv, "lin_src") else tokens.x
    if tokens.edge_attr is None:
        out = reduce(conv.aggr_module, Messages.uniform(hood, x.relu() + conv.eps))
    else:
        out = reduce_with_edges(
            hood,
            conv.aggr_module,
            lambda source, edge: (source + edge).relu() + conv.eps,
            x,
            tokens.edge_attr,
            getattr(conv, "lin_edge", nn.Identity()),
        )
    if hasattr(conv, "lin_aggr_out"):
        out = conv.lin_aggr_out(out)
    if hasattr(conv, "msg_norm"):
        out = conv.msg_norm(tokens.x, out)
    root = conv.lin_dst(tokens.x) if hasattr(conv, "lin_dst") else tokens.x
    return apply_rowwise(conv.mlp, out + root)


ONE_PRE_LAYER = Condition(
    "pre_layers is 1 and Linear",
    lambda conv: all(len(pre) == 1 and are_linear(*pre) for pre in conv.pre_nns),
)


def _is_plain_sage(conv: pyg.SAGEConv) -> bool:
    return not (conv.project or conv.normalize)


KERNELS: dict[type[pyg.MessagePassing], Kernel] = {
    pyg.SimpleConv: Kernel(simple, (REDUCIBLE,), affine=always),
    pyg.SAGEConv: Kernel(sage, (REDUCIBLE,), affine=_is_plain_sage),
    pyg.GraphConv: Kernel(graph, (REDUCIBLE,), affine=always),
    pyg.LEConv: Kernel(le, (REDUCIBLE_WITH_TARGETS,), affine=always),
    pyg.GINConv: Kernel(gin, (REDUCIBLE,), network_inputs=1),
    pyg.GINEConv: Kernel(gine, (REDUCIBLE,), edge_attr=True, network_inputs=1),
    pyg.GatedGraphConv: Kernel(gated_graph, (REDUCIBLE,)),
    pyg.PNAConv: Kernel(pna, (REDUCIBLE_WITH_TARGETS, ONE_PRE_LAYER), edge_attr=True),
    pyg.GENConv: Kernel(gen, (REDUCIBLE,), edge_attr=True),
}
