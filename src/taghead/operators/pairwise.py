"""The verb `pairwise`: nonlinear functions of target and source, for all pairs of a frame.

The plain form needs a tensor `[B, T, P, P, C]`. In eager mode the functions here avoid it; under
compilation they use the plain form, which a compiler fuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch_geometric.nn import aggr

from taghead.operators.algebra import add_up, zeros_from
from taghead.operators.kernel import Condition, class_of
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.parts import FramePart, Part
from taghead.operators.reduce import SHIFTABLE

CHUNK = 2**20  # elements of a pairwise tensor in memory at a time
Pair = Callable[..., Tensor]
"""A message from the features of its target and those of its source, row by row."""

PAIRWISE = Condition(
    "aggr is sum, mean, max or min", lambda conv: class_of(conv.aggr_module) in SHIFTABLE
)


def leaky_scores(part: Part, targets: Tensor, sources: Tensor, att: Tensor, slope: float) -> Tensor:
    r"""GATv2's scores :math:`\sum_c a_c \, \mathrm{LeakyReLU}(z_c)`, `z` a target plus a source.

    As LeakyReLU is a multiple of z plus a multiple of its absolute value, they are a sum of inner
    products and of two L1 distances, between the features scaled by the positive and by the
    negative part of a.

    Shapes:
        - **targets**, **sources** `[B, T, H, P, C]`, **att** `[H, 1, C]`
        - **output** `[B, T, H, P, K]`
    """
    if not isinstance(part, FramePart):
        z = F.leaky_relu(targets + part.source(sources), slope)
        return (z * att).sum(-1, keepdim=True)
    if torch.compiler.is_compiling():
        z = F.leaky_relu(targets.unsqueeze(-2) + sources.unsqueeze(-3), slope)
        return (z * att.unsqueeze(-2)).sum(-1)
    linear = part.add((targets * att).sum(-1), (sources * att).sum(-1))
    positive, negative = att.relu(), (-att).relu()
    distance = torch.cdist(targets * positive, -sources * positive, p=1.0)
    distance = distance - torch.cdist(targets * negative, -sources * negative, p=1.0)
    return (1 + slope) / 2 * linear + (1 - slope) / 2 * distance


def reduce_pairs(
    hood: Neighbourhood,
    module: Any,
    function: Pair,
    targets: Sequence[Sequence[Tensor]],
    sources: Sequence[Sequence[Tensor]],
    like: Tensor,
) -> Tensor:
    """Aggregates a function of every pair of neighbours; tokens without an edge get 0.

    Args:
        hood: The edges.
        module: One of the aggregations that `PAIRWISE` names.
        function: The message.
        targets: Its first arguments, for each part, `[B, T, P, C]`.
        sources: Its other arguments, for each part, `[B, T, P, C]`.
        like: Has the output's shape, for a neighbourhood without parts, `[B, T, P, C_out]`.
    """
    kind = class_of(module)
    if not hood.parts:
        return zeros_from(like)
    if kind is aggr.MinAggregation:
        largest_negative = aggr.MaxAggregation(), lambda *x: -function(*x)
        return -reduce_pairs(hood, *largest_negative, targets, sources, like)
    largest = kind is aggr.MaxAggregation
    terms = []
    for part, of_target, of_source in zip(hood.parts, targets, sources, strict=True):
        if isinstance(part, FramePart):
            terms.append(_reduce_frames(part, largest, function, of_target, of_source))
        else:
            message = function(*of_target, *map(part.source, of_source))
            terms.append(part.hide(message, -math.inf if largest else 0.0))
    if largest:
        out = torch.stack(terms).amax(0) if len(terms) > 1 else terms[0]
        return out if hood.reaches_all else out.masked_fill(out.isneginf(), 0.0)
    out = add_up(terms)
    return out if kind is aggr.SumAggregation else out * hood.degrees(out).inverse


def _reduce_frames(
    part: FramePart,
    largest: bool,
    function: Pair,
    targets: Sequence[Tensor],
    sources: Sequence[Tensor],
) -> Tensor:
    """Reduces over each frame's pairs, a few frames at a time; recomputed in the backward pass."""
    num_targets = len(targets)

    def reduce(*features: Tensor) -> Tensor:
        pairs = [x.unsqueeze(2) for x in features[:num_targets]]
        pairs += [x.unsqueeze(1) for x in features[num_targets:]]
        message = function(*pairs)  # [frames, P, P, C]
        hidden = -math.inf if largest else 0.0
        message = part.hide(message.movedim(-1, 1), hidden)
        return (message.amax(-1) if largest else message.sum(-1)).movedim(1, -1)

    frames = [x.flatten(0, 1) for x in (*targets, *sources)]
    shape = frames[0].shape
    count = max(1, CHUNK // (shape[1] * shape[1] * shape[2]))
    if torch.compiler.is_compiling() or count >= shape[0]:
        return reduce(*frames).unflatten(0, targets[0].shape[:2])
    chunks = zip(*(x.split(count) for x in frames), strict=True)
    if torch.is_grad_enabled():
        out = [checkpoint(reduce, *chunk, use_reentrant=False) for chunk in chunks]
    else:
        out = [reduce(*chunk) for chunk in chunks]
    return torch.cat(out).unflatten(0, targets[0].shape[:2])


def gated_sum(keys: Tensor, queries: Tensor, values: Tensor) -> Tensor:
    r"""Each token's gated sum over the others of its frame.

    .. math:: \sum_{j \neq i} \sigma(\mathbf{k}_i + \mathbf{q}_j) \, \mathbf{v}_j

    Shapes:
        - **keys**, **queries**, **values**, **output** `[B, T, P, C]`
    """
    if torch.compiler.is_compiling():
        return _gated_pairs(keys, queries, values)
    frames = (x.flatten(0, 1) for x in (keys, queries, values))
    return _GatedSum.apply(*frames).unflatten(0, keys.shape[:2])


class _GatedSum(torch.autograd.Function):
    """The gated sums of frames `[F, P, C]`, one frame at a time, forward and backward."""

    @staticmethod
    def forward(keys: Tensor, queries: Tensor, values: Tensor) -> Tensor:
        out = torch.empty_like(keys)
        gates = _frame_buffer(keys)
        for frame, (k, q, v) in enumerate(zip(keys, queries, values, strict=True)):
            torch.add(k.unsqueeze(1), q.unsqueeze(0), out=gates).sigmoid_()
            torch.sum(gates.mul_(v), 1, out=out[frame])
        return out.sub_(torch.sigmoid(keys + queries).mul_(values))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        keys, queries, values = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            out = _gated_pairs(keys, queries, values)
            return torch.autograd.grad(out, (keys, queries, values), grad, create_graph=True)
        return _GatedSum.by_frame(grad, keys, queries, values)

    @staticmethod
    def by_frame(grad: Tensor, keys: Tensor, queries: Tensor, values: Tensor) -> tuple[Tensor, ...]:
        gradients = tuple(torch.empty_like(keys) for _ in range(3))
        gates, products = _frame_buffer(keys), _frame_buffer(keys)
        for frame, (g, k, q, v) in enumerate(zip(grad, keys, queries, values, strict=True)):
            of_key, of_query, of_value = (gradient[frame] for gradient in gradients)
            torch.add(k.unsqueeze(1), q.unsqueeze(0), out=gates).sigmoid_()
            torch.mul(gates, g.unsqueeze(1), out=products)
            torch.sum(products, 0, out=of_value)
            products.mul_(gates.neg_().add_(1)).mul_(v)
            torch.sum(products, 1, out=of_key)
            torch.sum(products, 0, out=of_query)
        gates = torch.sigmoid(keys + queries)
        own = gates * (1 - gates) * values * grad
        for gradient, surplus in zip(gradients, (own, own, gates * grad), strict=True):
            gradient.sub_(surplus)
        return gradients

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *inputs: Tensor) -> tuple[Tensor, int]:
        size = info.batch_size
        batched = [
            x.unsqueeze(0).expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(inputs, in_dims, strict=True)
        ]
        out = _GatedSum.apply(*(x.flatten(0, 1) for x in batched))
        return out.unflatten(0, (size, -1)), 0


def _frame_buffer(x: Tensor) -> Tensor:
    """An empty tensor for all pairs of one frame, `[P, P, C]`."""
    return x.new_empty(x.shape[1], *x.shape[1:])


def _gated_pairs(keys: Tensor, queries: Tensor, values: Tensor) -> Tensor:
    """The gated sums in their plain form, for tensors `[..., P, C]`."""
    gates = torch.sigmoid(keys.unsqueeze(-2) + queries.unsqueeze(-3))
    return (gates * values.unsqueeze(-3)).sum(-2) - torch.sigmoid(keys + queries) * values
