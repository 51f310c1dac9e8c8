"""Operators that are linear in the tokens: one pair of matrices, one application."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import (
    APPNP,
    ARMAConv,
    ChebConv,
    ClusterGCNConv,
    GCN2Conv,
    GCNConv,
    LEConv,
    LGConv,
    MessagePassing,
    MixHopConv,
    SGConv,
    SimpleConv,
    SSGConv,
    TAGConv,
)

from taghead.operators.aggregation import (
    REDUCIBLE,
    REDUCIBLE_WITH_TARGETS,
    Messages,
    reduce,
)
from taghead.operators.kernel import NOT_CACHED, SUM_OR_MEAN, Kernel, Rule, Tokens, plus, takes_mean
from taghead.operators.linear_map import LinearMap
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.recipes import Polynomial

NO_EDGE_DROPOUT = Rule(
    "dropout is 0 in training", lambda conv: conv.dropout == 0 or not conv.training
)


def step(adjacency: LinearMap, normalize: bool, loops: bool, mean: bool) -> LinearMap:
    """Recipe: one propagation; with self-loops only if normalised, as in PyG."""
    one = adjacency.gcn(loops) if normalize else adjacency
    if not mean:
        return one
    counts = adjacency.degrees() + (loops and normalize)
    return one.scale_targets(1 / np.maximum(counts, 1))


def power(propagation: Polynomial, start: Any, steps: int) -> Any:
    """Polynomial: several propagations."""
    result = start
    for _ in range(steps):
        result = propagation(result)
    return result


def personalised(propagation: Polynomial, start: Any, steps: int, alpha: float) -> Any:
    """Polynomial: APPNP's steps towards a personalised PageRank."""
    result = start
    for _ in range(steps):
        result = (1 - alpha) * propagation(result) + alpha * start
    return result


def average_of_powers(propagation: Polynomial, start: Any, steps: int, alpha: float) -> Any:
    """Polynomial: SSGConv's mean of the first powers, and the tokens themselves."""
    one, result = start, alpha * start
    for _ in range(steps):
        one = propagation(one)
        result = result + (1 - alpha) / steps * one
    return result


def scaled_laplacian(
    adjacency: LinearMap, normalization: str | None, to_source: bool, mean: bool
) -> LinearMap:
    """Recipe: ChebConv's Laplacian, scaled to [-1, 1]; PyG takes the degrees of edges' sources."""
    degrees = adjacency.degrees() if to_source else adjacency.source_degrees()
    identity = adjacency.identity
    if normalization == "sym":
        scale = np.where(degrees > 0, degrees, np.inf) ** -0.5
        laplacian = identity - adjacency.scale_targets(scale).scale_sources(scale)
        largest = 1.0
    elif normalization == "rw":
        scale_by = adjacency.scale_targets if to_source else adjacency.scale_sources
        laplacian, largest = identity - scale_by(1 / np.maximum(degrees, 1)), 1.0
    else:
        laplacian = identity.scale_targets(degrees) - adjacency
        largest = degrees.max() or 1.0
    scaled = 1 / largest * laplacian - identity
    return scaled.scale_targets(1 / (adjacency.degrees() + 1)) if mean else scaled


def cluster(adjacency: LinearMap, diag_lambda: float, to_source: bool, mean: bool) -> LinearMap:
    """Recipe: ClusterGCNConv's mean over the neighbours and, with more weight, the token.

    PyG computes these weights in float32 whatever the tokens' type.
    """
    degrees = adjacency.source_degrees() if to_source else adjacency.degrees()
    inverse = np.float32(1) / (degrees + 1).astype(np.float32)
    own = inverse + np.float32(diag_lambda) * inverse
    scaled = adjacency.scale_sources(inverse) if to_source else adjacency.scale_targets(inverse)
    scaled = scaled + adjacency.identity.scale_targets(own)
    return scaled.scale_targets(1 / (adjacency.degrees() + 1)) if mean else scaled


def appnp(conv: APPNP, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.normalize, conv.add_self_loops, takes_mean(conv))
    return hood.steps(tokens.x, personalised, (conv.K, conv.alpha), step, *options)


def gcn(conv: GCNConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.normalize, conv.add_self_loops, takes_mean(conv))
    return plus(hood.linear(conv.lin(tokens.x), step, *options), conv.bias)


def sg(conv: SGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (True, conv.add_self_loops, takes_mean(conv))
    return conv.lin(hood.steps(tokens.x, power, (conv.K,), step, *options))


def ssg(conv: SSGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (True, conv.add_self_loops, takes_mean(conv))
    return conv.lin(hood.steps(tokens.x, average_of_powers, (conv.K, conv.alpha), step, *options))


def tag(conv: TAGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x, out = tokens.x, conv.lins[0](tokens.x)
    for lin in conv.lins[1:]:
        x = hood.linear(x, step, conv.normalize, False, takes_mean(conv))
        out = out + lin(x)
    return plus(out, conv.bias)


def cheb(conv: ChebConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.normalization, conv.flow == "target_to_source", takes_mean(conv))
    before, x, out = None, tokens.x, conv.lins[0](tokens.x)
    for lin in conv.lins[1:]:
        after = hood.linear(x, scaled_laplacian, *options)
        before, x = x, after if before is None else 2 * after - before
        out = out + lin(x)
    return plus(out, conv.bias)


def arma(conv: ARMAConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    size = tokens.x.shape[1:3]
    x = tokens.x.flatten(1, 2).unsqueeze(1)  # [B, 1, N, C], then one for each stack
    out = x
    for layer in range(conv.num_layers):
        place = 0 if conv.shared_weights else layer
        before = conv.init_weight if layer == 0 else conv.weight[max(place - 1, 0)]
        out = (out @ before).unflatten(2, size)
        out = hood.linear(out, step, True, False, takes_mean(conv)).flatten(2, 3)
        root = F.dropout(x, conv.dropout, conv.training)
        out = out + root @ conv.root_weight[place]
        out = plus(out, None if conv.bias is None else conv.bias[place])
        out = out if conv.act is None else conv.act(out)
    return out.mean(1).unflatten(1, size)


def mix_hop(conv: MixHopConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    hops = [tokens.x]
    for _ in range(max(conv.powers)):
        hops.append(hood.linear(hops[-1], step, True, conv.add_self_loops, takes_mean(conv)))
    outputs = [conv.lins[steps](hops[steps]) for steps in conv.powers]
    return plus(torch.cat(outputs, dim=-1), conv.bias)


def lg(conv: LGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    return hood.linear(tokens.x, step, conv.normalize, False, takes_mean(conv))


def simple(conv: SimpleConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    if conv.combine_root == "self_loop":
        hood = hood.with_self_loops()
    out = reduce(conv.aggr_module, Messages.alike(hood, tokens.x))
    if conv.combine_root == "sum":
        return out + tokens.x
    return torch.cat([tokens.x, out], dim=-1) if conv.combine_root == "cat" else out


def cluster_gcn(conv: ClusterGCNConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.diag_lambda, conv.flow == "target_to_source", takes_mean(conv))
    out = hood.linear(tokens.x, cluster, *options)
    return conv.lin_out(out) + conv.lin_root(tokens.x)


def gcn2(conv: GCN2Conv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.normalize, conv.add_self_loops, takes_mean(conv))
    x = (1 - conv.alpha) * hood.linear(tokens.x, step, *options)
    x_0 = conv.alpha * tokens.x_0
    if conv.weight2 is None:
        return _identity_mapping(x + x_0, conv.weight1, conv.beta)
    return _identity_mapping(x, conv.weight1, conv.beta) + _identity_mapping(
        x_0, conv.weight2, conv.beta
    )


def _identity_mapping(x: Tensor, weight: Tensor, beta: float) -> Tensor:
    return (1 - beta) * x + beta * (x @ weight)


def le(conv: LEConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x = tokens.x
    messages = Messages.alike(hood, conv.lin1(x), targets=-conv.lin2(x))
    return reduce(conv.aggr_module, messages) + conv.lin3(x)


LINEAR = (SUM_OR_MEAN,)
KERNELS: dict[type[MessagePassing], Kernel] = {
    APPNP: Kernel(appnp, (*LINEAR, NOT_CACHED, NO_EDGE_DROPOUT)),
    GCNConv: Kernel(gcn, (*LINEAR, NOT_CACHED)),
    SGConv: Kernel(sg, (*LINEAR, NOT_CACHED)),
    SSGConv: Kernel(ssg, (*LINEAR, NOT_CACHED)),
    TAGConv: Kernel(tag, LINEAR),
    ChebConv: Kernel(cheb, LINEAR),
    ARMAConv: Kernel(arma, LINEAR),
    MixHopConv: Kernel(mix_hop, LINEAR),
    LGConv: Kernel(lg, LINEAR),
    SimpleConv: Kernel(simple, (REDUCIBLE,)),
    ClusterGCNConv: Kernel(
        cluster_gcn, (*LINEAR, Rule("add_self_loops is True", lambda conv: conv.add_self_loops))
    ),
    GCN2Conv: Kernel(gcn2, (*LINEAR, NOT_CACHED)),
    LEConv: Kernel(le, (REDUCIBLE_WITH_TARGETS,)),
}
