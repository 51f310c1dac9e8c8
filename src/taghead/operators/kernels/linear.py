"""Kernels of operators that are linear in the tokens: GCNConv, SGConv, ...; the verb `linear`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import nn as pyg

from taghead.operators.algebra import GridMatrix, inverse_root
from taghead.operators.kernel import (
    NOT_CACHED,
    SUM_OR_MEAN,
    Condition,
    Kernel,
    Tokens,
    add_bias,
    always,
    takes_mean,
)
from taghead.operators.neighbourhood import Neighbourhood


def step(adjacency: GridMatrix, normalize: bool, loops: bool, mean: bool) -> GridMatrix:
    """The matrix of one propagation; with self-loops only if normalised, as in PyG."""
    one = adjacency.normalized(loops) if normalize else adjacency
    if not mean:
        return one
    counts = adjacency.degrees() + (loops and normalize)
    return one.scale_targets(1 / np.maximum(counts, 1))


def propagated(conv: Any, x: Tensor, hood: Neighbourhood, *polynomial: Any) -> Tensor:
    """One propagation with the operator's options, or a polynomial of it.

    Operators without these options normalise and add no self-loops.
    """
    given = conv.__dict__  # a module's getattr is slow where it has no such attribute
    loops = given.get("add_self_loops", False)
    options = given.get("normalize", True), loops, takes_mean(conv)
    return hood.linear(x, step, *options, polynomial=polynomial or None)


def power(propagation: Callable, start: Any, steps: int) -> Any:
    """The power of a propagation."""
    result = start
    for _ in range(steps):
        result = propagation(result)
    return result


def personalized(propagation: Callable, start: Any, steps: int, alpha: float) -> Any:
    """APPNP's steps towards a personalised PageRank."""
    result = start
    for _ in range(steps):
        result = (1 - alpha) * propagation(result) + alpha * start
    return result


def average_of_powers(propagation: Callable, start: Any, steps: int, alpha: float) -> Any:
    """SSGConv's mean of the first powers, and the tokens themselves."""
    one, result = start, alpha * start
    for _ in range(steps):
        one = propagation(one)
        result = result + (1 - alpha) / steps * one
    return result


def scaled_laplacian(
    adjacency: GridMatrix, normalization: str | None, to_source: bool, mean: bool
) -> GridMatrix:
    """ChebConv's Laplacian, scaled to [-1, 1]; PyG normalises by the degrees of edges' sources."""
    degrees = adjacency.degrees() if to_source else adjacency.transposed.degrees()
    identity, largest = adjacency.identity, 1.0
    if normalization == "sym":
        scale = inverse_root(degrees)
        laplacian = identity - adjacency.scale_targets(scale).scale_sources(scale)
    elif normalization == "rw":
        scale_by = adjacency.scale_targets if to_source else adjacency.scale_sources
        laplacian = identity - scale_by(1 / np.maximum(degrees, 1))
    else:
        laplacian = identity.scale_targets(degrees) - adjacency
        largest = degrees.max() or 1.0
    scaled = 1 / largest * laplacian - identity
    return scaled.scale_targets(1 / (adjacency.degrees() + 1)) if mean else scaled


def cluster(adjacency: GridMatrix, diag_lambda: float, to_source: bool, mean: bool) -> GridMatrix:
    """ClusterGCNConv's mean over the neighbours and the token, whose weight is raised.

    PyG computes these weights in float32 whatever the tokens' dtype.
    """
    degrees = adjacency.transposed.degrees() if to_source else adjacency.degrees()
    inverse = np.float32(1) / (degrees + 1).astype(np.float32)
    own = inverse + np.float32(diag_lambda) * inverse
    scaled = adjacency.scale_sources(inverse) if to_source else adjacency.scale_targets(inverse)
    scaled = scaled + adjacency.identity.scale_targets(own)
    return scaled.scale_targets(1 / (adjacency.degrees() + 1)) if mean else scaled


def appnp(conv: pyg.APPNP, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    return propagated(conv, tokens.x, hood, personalized, conv.K, conv.alpha)


def gcn(conv: pyg.GCNConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    return add_bias(propagated(conv, conv.lin(tokens.x), hood), conv.bias)


def sg(conv: pyg.SGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    return conv.lin(propagated(conv, tokens.x, hood, power, conv.K))


def ssg(conv: pyg.SSGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    return conv.lin(propagated(conv, tokens.x, hood, average_of_powers, conv.K, conv.alpha))


def tag(conv: pyg.TAGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    x, out = tokens.x, conv.lins[0](tokens.x)
    for lin in conv.lins[1:]:
        x = propagated(conv, x, hood)
        out = out + lin(x)
    return add_bias(out, conv.bias)


def cheb(conv: pyg.ChebConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.normalization, conv.flow == "target_to_source", takes_mean(conv))
    before, x, out = None, tokens.x, conv.lins[0](tokens.x)
    for lin in conv.lins[1:]:
        after = hood.linear(x, scaled_laplacian, *options)
        before, x = x, after if before is None else 2 * after - before
        out = out + lin(x)
    return add_bias(out, conv.bias)


def arma(conv: pyg.ARMAConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    size = tokens.x.shape[1:3]
    x = tokens.x.flatten(1, 2).unsqueeze(1)  # [B, 1, N, C], then one for each stack
    out = x
    for layer in range(conv.num_layers):
        index = 0 if conv.shared_weights else layer
        before = conv.init_weight if layer == 0 else conv.weight[max(index - 1, 0)]
        out = (out @ before).unflatten(2, size)
        out = propagated(conv, out, hood).flatten(2, 3)
        root = F.dropout(x, conv.dropout, conv.training)
        out = out + root @ conv.root_weight[index]
        out = add_bias(out, None if conv.bias is None else conv.bias[index])
        out = out if conv.act is None else conv.act(out)
    return out.mean(1).unflatten(1, size)


def mix_hop(conv: pyg.MixHopConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    hops = [tokens.x]
    for _ in range(max(conv.powers)):
        hops.append(propagated(conv, hops[-1], hood))
    outputs = [conv.lins[steps](hops[steps]) for steps in conv.powers]
    return add_bias(torch.cat(outputs, dim=-1), conv.bias)


def lg(conv: pyg.LGConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    return propagated(conv, tokens.x, hood)


def cluster_gcn(conv: pyg.ClusterGCNConv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    options = (conv.diag_lambda, conv.flow == "target_to_source", takes_mean(conv))
    out = hood.linear(tokens.x, cluster, *options)
    return conv.lin_out(out) + conv.lin_root(tokens.x)


def gcn2(conv: pyg.GCN2Conv, tokens: Tokens, hood: Neighbourhood) -> Tensor:
    def identity_mapping(x: Tensor, weight: Tensor) -> Tensor:
        return (1 - conv.beta) * x + conv.beta * (x @ weight)

    x = (1 - conv.alpha) * propagated(conv, tokens.x, hood)
    x_0 = conv.alpha * tokens.x_0
    if conv.weight2 is None:
        return identity_mapping(x + x_0, conv.weight1)
    return identity_mapping(x, conv.weight1) + identity_mapping(x_0, conv.weight2)


NO_EDGE_DROPOUT = Condition(
    "dropout is 0 in training", lambda conv: conv.dropout == 0 or not conv.training
)
HAS_LOOPS = Condition("add_self_loops is True", lambda conv: conv.add_self_loops)

KERNELS: dict[type[pyg.MessagePassing], Kernel] = {
    pyg.APPNP: Kernel(appnp, (SUM_OR_MEAN, NOT_CACHED, NO_EDGE_DROPOUT), affine=always),
    pyg.GCNConv: Kernel(gcn, (SUM_OR_MEAN, NOT_CACHED), affine=always),
    pyg.SGConv: Kernel(sg, (SUM_OR_MEAN, NOT_CACHED), affine=always),
    pyg.SSGConv: Kernel(ssg, (SUM_OR_MEAN, NOT_CACHED), affine=always),
    pyg.TAGConv: Kernel(tag, (SUM_OR_MEAN,), affine=always),
    pyg.ChebConv: Kernel(cheb, (SUM_OR_MEAN,), affine=always),
    pyg.ARMAConv: Kernel(arma, (SUM_OR_MEAN,)),
    pyg.MixHopConv: Kernel(mix_hop, (SUM_OR_MEAN,), affine=always),
    pyg.LGConv: Kernel(lg, (SUM_OR_MEAN,), affine=always),
    pyg.ClusterGCNConv: Kernel(cluster_gcn, (SUM_OR_MEAN, HAS_LOOPS), affine=always),
    pyg.GCN2Conv: Kernel(gcn2, (SUM_OR_MEAN, NOT_CACHED), affine=always),
}
