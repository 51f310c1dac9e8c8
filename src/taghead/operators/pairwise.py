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
from taghead.operators.kernel import Condition, EdgeAttr, class_of
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.parts import FramePart, Part
from taghead.operators.reduce import SHIFTABLE, Messages, SlotMessages, reduce

CHUNK = 2**20  # elements of a pairwise tensor in memory at a time
Pair = Callable[..., Tensor]
"""A message from the features of its target and those of its source, row by row."""

PAIRWISE = Condition(
    "aggr is sum, mean, max or min", lambda conv: class_of(conv.aggr_module) in SHIFTABLE
)


def leaky_scores(
    part: Part,
    targets: Tensor,
    sources: Tensor,
    att: Tensor,
    slope: float,
    edges: Tensor | None = None,
) -> Tensor:
    r"""GATv2's scores :math:`\sum_c a_c \, \mathrm{LeakyReLU}(z_c)`, `z` a target plus a source.

    As LeakyReLU is a multiple of z plus a multiple of its absolute value, they are a sum of inner
    products and of two L1 distances, between the features scaled by the positive and by the
    negative part of a. With a term of each pair of positions, the pairs are computed, a few frames
    at a time.

    Shapes:
        - **targets**, **sources** `[B, T, H, P, C]`, **att** `[H, 1, C]`
        - **edges** `[H, P, P, C]`, a term of z, for parts of a frame alone
        - **output** `[B, T, H, P, K]`
    """
    if not isinstance(part, FramePart):
        z = F.leaky_relu(targets + part.source(sources), slope)
        return (z * att).sum(-1, keepdim=True)
    if edges is not None:
        return _pair_scores(targets, sources, edges, att, slope)
    if torch.compiler.is_compiling():
        z = F.leaky_relu(targets.unsqueeze(-2) + sources.unsqueeze(-3), slope)
        return (z * att.unsqueeze(-2)).sum(-1)
    linear = part.add((targets * att).sum(-1), (sources * att).sum(-1))
    positive, negative = att.relu(), (-att).relu()
    distance = torch.cdist(targets * positive, -sources * positive, p=1.0)
    distance = distance - torch.cdist(targets * negative, -sources * negative, p=1.0)
    return (1 + slope) / 2 * linear + (1 - slope) / 2 * distance


def _pair_scores(
    targets: Tensor, sources: Tensor, edges: Tensor, att: Tensor, slope: float
) -> Tensor:
    frames = targets.flatten(0, 1), sources.flatten(0, 1)
    given = *frames, edges.to(targets), att.squeeze(-2).to(targets), slope
    function: Any = _plain_scores if torch.compiler.is_compiling() else _PairScores.apply
    return function(*given).unflatten(0, targets.shape[:2])


def _plain_scores(
    targets: Tensor, sources: Tensor, edges: Tensor, att: Tensor, slope: float
) -> Tensor:
    """The scores of frames `[F, H, P, C]`, edges `[H, P, P, C]` and att `[H, C]`: `[F, H, P, P]`"""
    z = edges + sources.unsqueeze(-3) + targets.unsqueeze(-2)
    return (F.leaky_relu(z, slope) * att[:, None, None]).sum(-1)


class _PairScores(torch.autograd.Function):
    """`_plain_scores`, one frame at a time, forward and backward."""

    @staticmethod
    def forward(
        targets: Tensor, sources: Tensor, edges: Tensor, att: Tensor, slope: float
    ) -> Tensor:
        z, edges = (
            torch.empty_like(edges, memory_format=torch.contiguous_format),
            edges.contiguous(),
        )
        out = targets.new_empty(*targets.shape[:3], targets.size(2))
        for frame, (t, s) in enumerate(zip(targets, sources, strict=True)):
            torch.add(edges, s.unsqueeze(1), out=z).add_(t.unsqueeze(2))
            F.leaky_relu_(z, slope)
            out[frame] = torch.bmm(z.flatten(1, 2), att.unsqueeze(-1)).view_as(out[frame])
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.slope = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        targets, sources, edges, att = tensors = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            out = _plain_scores(targets, sources, edges, att, ctx.slope)
            return *torch.autograd.grad(out, tensors, grad, create_graph=True), None
        return *_PairScores.by_frame(grad, targets, sources, edges, att, ctx.slope), None

    @staticmethod
    def by_frame(
        grad: Tensor, targets: Tensor, sources: Tensor, edges: Tensor, att: Tensor, slope: float
    ) -> tuple[Tensor, ...]:
        """The gradients; z is a sum, so that of att needs no pairs beside the others' sums."""
        z, edges = (
            torch.empty_like(edges, memory_format=torch.contiguous_format),
            edges.contiguous(),
        )
        of_edge, steps = torch.zeros_like(z), torch.empty_like(z)
        of_target, of_source = torch.empty_like(targets), torch.empty_like(sources)
        for frame, (g, t, s) in enumerate(zip(grad, targets, sources, strict=True)):
            torch.add(edges, s.unsqueeze(1), out=z).add_(t.unsqueeze(2))
            torch.heaviside(z, z.new_zeros(()), out=steps).mul_(g.unsqueeze(-1))
            torch.sum(steps, 2, out=of_target[frame])
            torch.sum(steps, 1, out=of_source[frame])
            of_edge.add_(steps)
        # the derivative is slope + (1 - slope) * step
        for found, total in (
            (of_target, grad.sum(3)),
            (of_source, grad.sum(2)),
            (of_edge, grad.sum(0)),
        ):
            found.mul_(1 - slope).add_(slope * total.unsqueeze(-1))
        of_att = (of_target * targets).sum((0, 2)) + (of_source * sources).sum((0, 2))
        of_att += (of_edge * edges).sum((1, 2))
        scale = att.unsqueeze(1)
        return of_target * scale, of_source * scale, of_edge * scale.unsqueeze(1), of_att


def _in_chunks(function: Callable[..., Tensor], frames: Sequence[Tensor], size: int) -> Tensor:
    """Runs a function of frames `[F, ...]`, a few at a time; recomputed in the backward pass.

    Args:
        function: Of the frames' indices and their tensors.
        frames: The tensors.
        size: Elements of a frame's largest tensor in the function.
    """
    num_frames = frames[0].size(0)  # len() would fix it in an exported program
    index, count = torch.arange(num_frames, device=frames[0].device), max(1, CHUNK // size)
    if torch.compiler.is_compiling() or count >= num_frames:
        return function(index, *frames)
    chunks = zip(*(x.split(count) for x in (index, *frames)), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([function(*chunk) for chunk in chunks])
    return torch.cat([checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks])


def reduce_edges(
    hood: Neighbourhood,
    module: Any,
    function: Pair,
    targets: Sequence[Tensor],
    sources: Sequence[Tensor],
    edges: Sequence[Sequence[Tensor]],
) -> Tensor:
    """Aggregates a function of target, source and edge, with a row for every slot.

    Args:
        hood: The edges, of at least one part.
        module: Any aggregation that `reduce` has.
        function: The message, row by row.
        targets: Its first arguments, `[B, T, P, C]`.
        sources: The next, `[B, T, P, C]`.
        edges: Its last arguments, `[1, P or 1, K or 1, C]` for each part.
    """
    num_targets, num_sources = len(targets), len(sources)
    is_frame = [isinstance(part, FramePart) for part in hood.parts]
    ends = list(targets)
    for part in hood.parts:
        ends += sources if isinstance(part, FramePart) else map(part.source, sources)
    absent = hood.absent(ends[0])  # [T, P, K]

    def reduce_chunk(index: Tensor, *frames: Tensor) -> Tensor:
        of_target = [x.unsqueeze(2) for x in frames[:num_targets]]
        found = []
        for i, of_edge in enumerate(edges):
            first = num_targets + i * num_sources
            rows = frames[first : first + num_sources]
            of_source = [x.unsqueeze(1 if is_frame[i] else 2) for x in rows]
            message = function(*of_target, *of_source, *of_edge)
            size = [*message.shape[:1], frames[0].size(1), hood.parts[i].num_slots, -1]
            found.append(message.expand(size))
        hidden = absent[index % len(absent)].unsqueeze(-1)
        return reduce(module, SlotMessages(torch.cat(found, dim=2), hidden))

    frames = [x.flatten(0, 1) for x in ends]
    size = absent[0].numel() * frames[-1].size(-1)
    return _in_chunks(reduce_chunk, frames, size).unflatten(0, ends[0].shape[:2])


def reduce_with_edges(
    hood: Neighbourhood,
    module: Any,
    function: Pair,
    sources: Tensor,
    edge_attr: EdgeAttr,
    project: Callable[[Tensor], Tensor],
    targets: Tensor | None = None,
) -> Tensor:
    """Aggregates a function of source and edge, plus a term of the target.

    Features that are equal on all edges of a relation need no row for every edge.

    Args:
        hood: The edges.
        module: Any aggregation that `reduce` has.
        function: The message of a source's and an edge's features, row by row.
        sources: The sources' features, `[B, T, P, C]`.
        edge_attr: The edge features.
        project: Their projection to the messages' width.
        targets: The targets' term, `[B, T, P, C]`.
    """
    if edge_attr.rows is not None:
        rows = project(edge_attr.rows)
        messages = Messages.by_relation(hood, lambda i: function(sources, rows[i]), targets)
        return reduce(module, messages)
    hood = hood.framed
    if not hood.parts:
        return reduce(module, Messages.uniform(hood, function(sources, sources), targets))
    edges = [[project(e)] for e in edge_attr.by_part(hood)]
    if targets is None:
        return reduce_edges(hood, module, function, [], [sources], edges)
    plus = [targets]
    return reduce_edges(hood, module, lambda t, s, e: t + function(s, e), plus, [sources], edges)


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

    def reduce_chunk(_: Tensor, *features: Tensor) -> Tensor:
        pairs = [x.unsqueeze(2) for x in features[:num_targets]]
        pairs += [x.unsqueeze(1) for x in features[num_targets:]]
        message = function(*pairs)  # [frames, P, P, C]
        hidden = -math.inf if largest else 0.0
        message = part.hide(message.movedim(-1, 1), hidden)
        return (message.amax(-1) if largest else message.sum(-1)).movedim(1, -1)

    frames = [x.flatten(0, 1) for x in (*targets, *sources)]
    _, num_positions, channels = frames[0].shape
    out = _in_chunks(reduce_chunk, frames, num_positions**2 * channels)
    return out.unflatten(0, targets[0].shape[:2])


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
