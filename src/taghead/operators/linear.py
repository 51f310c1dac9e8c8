"""Operators that are linear in the tokens: one pair of matrices, one application."""

from __future__ import annotations

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


def power(adjacency: LinearMap, steps: int, loops: bool, mean: bool) -> LinearMap:
    """Recipe: several normalised propagations."""
    one = step(adjacency, True, loops, mean)
    result = adjacency.identity
    for _ in range(steps):
        result = one @ result
    return result


def plain_power(adjacency: LinearMap, steps: int, mean: bool) -> LinearMap:
    """Recipe: several propagations without normalisation."""
    one = step(adjacency, False, False, mean)
    result = adjacency.identity
    for _ in range(steps):
        result = one @ result
    return result


def personalised(
    adjacency: LinearMap, steps: int, alpha: float, normalize: bool, loops: bool, mean: bool
) -> LinearMap:
    """Recipe: APPNP's steps towards a personalised PageRank."""
    one, result = step(adjacency, normalize, loops, mean), adjacency.identity
    for _ in range(steps):
        result = (1 - alpha) * (one @ result) + alpha * adjacency.identity
    return result


def average_of_powers(
    adjacency: LinearMap, steps: int, alpha: float, loops: bool, mean: bool
) -> LinearMap:
    """Recipe: SSGConv's mean of the first powers, and the tokens themselves."""
    one, result = adjacency.identity, alpha * adjacency.identity
    for _ in range(steps):
        one = step(adjacency, True, loops, mean) @ one
        result = result + (1 - alpha) / steps * one
    return result


def chebyshev(
    adjacency: LinearMap, order: int, normalization: str | None, to_source: bool, mean: bool
) -> LinearMap:
    """Recipe: a Chebyshev polynomial of the scaled Laplacian."""
    degrees = adjacency.degrees()
    at_least_1 = np.maximum(degrees, 1)
    identity = adjacency.identity
    if normalization == "sym":
        laplacian, largest = identity - adjacency.gcn(add_self_loops=False), 1.0
    elif normalization == "rw":
        scale = adjacency.scale_targets if to_source else adjacency.scale_sources
        laplacian, largest = identity - scale(1 / at_least_1), 1.0
    else:
        laplacian = identity.scale_targets(degrees) - adjacency
        largest = degrees.max() or 1.0
    scaled = 1 / largest * laplacian - identity
    if mean:
        scaled = scaled.scale_targets(1 / (degrees + 1))
    before, result = scaled, identity  # T_{-1} = T_1
    for _ in range(order):
        before, result = result, 2.0 * (scaled @ result) - before
    return result


def cluster(adjacency: LinearMap, diag_lambda: float, to_source: bool, mean: bool) -> LinearMap:
    """Recipe: ClusterGCNConv's mean over the neighbours and, with more weight, the token.

    PyG computes these weights in float32 whatever the tokens' type.
    """
    inverse = np.float32(1) / (adjacency.degrees() + 1).astype(np.float32)
    own = inverse + np.float32(diag_lambda) * inverse
    scaled = adjacency.scale_sources(inverse) if to_source else adjacency.scale_targets(inverse)
    scaled = scaled + adjacency.identity.scale_targets(own)
    return scaled.scale_targets(1 / (adjacency.degrees() + 1)) if mean else scaled


def appnp(conv: APPNP, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.K, conv.alpha, conv.normalize, conv.add_self_loops, takes_mean(conv))
    return hood.linear(tokens.x, personalised, *options)


def gcn(conv: GCNConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.normalize, conv.add_self_loops, takes_mean(conv))
    return plus(hood.linear(conv.lin(tokens.x), step, *options), conv.bias)


def sg(conv: SGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.K, conv.add_self_loops, takes_mean(conv))
    return conv.lin(hood.linear(tokens.x, power, *options))


def ssg(conv: SSGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.K, conv.alpha, conv.add_self_loops, takes_mean(conv))
    return conv.lin(hood.linear(tokens.x, average_of_powers, *options))


def tag(conv: TAGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    out = conv.lins[0](tokens.x)
    for steps, lin in enumerate(conv.lins[1:], start=1):
        if conv.normalize:
            x = hood.linear(tokens.x, power, steps, False, takes_mean(conv))
        else:
            x = hood.linear(tokens.x, plain_power, steps, takes_mean(conv))
        out = out + lin(x)
    return plus(out, conv.bias)


def cheb(conv: ChebConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.normalization, conv.flow == "target_to_source", takes_mean(conv))
    out = conv.lins[0](tokens.x)
    for order, lin in enumerate(conv.lins[1:], start=1):
        out = out + lin(hood.linear(tokens.x, chebyshev, order, *options))
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
    outputs = []
    for steps in conv.powers:
        x = hood.linear(tokens.x, power, steps, conv.add_self_loops, takes_mean(conv))
        outputs.append(conv.lins[steps](x))
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
