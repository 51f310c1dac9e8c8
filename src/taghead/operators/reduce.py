"""The verb `reduce`: PyG's aggregations of messages that depend on the source alone.

A message may also depend on its edge's relation, and have a term that depends on the target alone:

.. math:: \\mathbf{y}_i = \\mathrm{aggr}_{j \\to i} (\\mathbf{u}_i + \\mathbf{v}^{r(j, i)}_j)

None of these needs a tensor with a row for every edge.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import aggr

from taghead.operators.algebra import GridMatrix, add_up
from taghead.operators.kernel import Condition, class_of
from taghead.operators.neighbourhood import Degrees, Neighbourhood
from taghead.operators.parts import FramePart, Part

SHIFTABLE = (aggr.SumAggregation, aggr.MeanAggregation, aggr.MaxAggregation, aggr.MinAggregation)
SPREAD = (aggr.VarAggregation, aggr.StdAggregation)
WEIGHTED = (aggr.SoftmaxAggregation, aggr.PowerMeanAggregation)


@dataclass(frozen=True)
class Messages:
    """Messages to every token: groups of edges, each with its sources' values.

    Args:
        hood: All edges.
        groups: A partition of the edges, and the sources' values on each, `[B, T, P, C]`.
        targets: The term of the target, added to every message, `[B, T, P, C]`.
    """

    hood: Neighbourhood
    groups: tuple[tuple[Neighbourhood, Tensor], ...]
    targets: Tensor | None = None

    @classmethod
    def uniform(
        cls, hood: Neighbourhood, values: Tensor, targets: Tensor | None = None
    ) -> Messages:
        """Messages that do not depend on the relation."""
        return cls(hood, ((hood, values),), targets)

    @classmethod
    def by_relation(
        cls, hood: Neighbourhood, values: Callable[[int], Tensor], targets: Tensor | None = None
    ) -> Messages:
        """Messages whose values are a function of the relation's index."""
        indices = hood.relations or [0]
        return cls(hood, tuple((hood.of_relation(i), values(i)) for i in indices), targets)

    def map(self, function: Callable[[Tensor], Tensor]) -> Messages:
        """Messages with a function applied to the sources' values, without targets."""
        return Messages(self.hood, tuple((hood, function(x)) for hood, x in self.groups))

    def parts(self) -> Iterable[tuple[Part, Tensor]]:
        return ((part, values) for hood, values in self.groups for part in hood.parts)

    def sum(self) -> Tensor:
        return add_up(hood.linear(x) for hood, x in self.groups)

    def mean(self) -> Tensor:
        if len(self.groups) == 1:
            return self.hood.linear(self.groups[0][1], GridMatrix.mean)
        total = self.sum()
        return total * self.hood.degrees(total).inverse

    def maximum(self) -> Tensor:
        return maximum(self)

    def softmax_sum(self, t: Tensor | float, detach: bool) -> Tensor:
        return softmax_sum(self, t, detach)

    def degrees(self, like: Tensor) -> Degrees:
        return self.hood.degrees(like)


@dataclass(frozen=True)
class SlotMessages:
    """Messages in explicit form, for those that depend on target, source and edge.

    Args:
        values: The messages, `[F, P, K, C]`, with a slot for each possible neighbour.
        absent: The slots without an edge, `[F, P, K, 1]`.
    """

    values: Tensor
    absent: Tensor
    targets = None

    def map(self, function: Callable[[Tensor], Tensor]) -> SlotMessages:
        return SlotMessages(function(self.values), self.absent)

    def sum(self) -> Tensor:
        return self.values.masked_fill(self.absent, 0.0).sum(-2)

    def mean(self) -> Tensor:
        return self.sum() * self.degrees(self.values).inverse

    def maximum(self) -> Tensor:
        largest = self.values.masked_fill(self.absent, -math.inf).amax(-2)
        return largest.masked_fill(self.absent.all(-2), 0.0)

    def softmax_sum(self, t: Tensor | float, detach: bool) -> Tensor:
        scores = (self.values * t).masked_fill(self.absent, torch.finfo(self.values.dtype).min)
        weights = (scores.detach() if detach else scores).softmax(-2)
        return (weights * self.values).masked_fill(self.absent, 0.0).sum(-2)

    def degrees(self, like: Tensor) -> Degrees:
        number = (~self.absent).sum(-2).to(like)
        inverse_root = number.clamp(min=1).rsqrt() * (number > 0)
        return Degrees(number, (number > 0).to(like), 1 / number.clamp(min=1), inverse_root)


def reduce(module: aggr.Aggregation, messages: Messages | SlotMessages) -> Tensor:
    """Aggregates messages as PyG's module would, `[B, T, P, C_out]`; 0 where there is no edge."""
    if isinstance(module, aggr.DegreeScalerAggregation):
        return _scaled(module, messages)
    if isinstance(module, aggr.MultiAggregation):
        outputs = [reduce(one, messages) for one in module.aggrs]
        combined = module.combine([out.flatten(0, -2) for out in outputs])
        return combined.unflatten(0, outputs[0].shape[:-1])
    if isinstance(module, WEIGHTED):
        return _weighted(module, messages)
    if isinstance(module, SPREAD):
        return _spread(module, messages)
    if isinstance(module, aggr.SumAggregation):
        out = messages.sum()
    elif isinstance(module, aggr.MeanAggregation):
        out = messages.mean()
    elif isinstance(module, aggr.MaxAggregation):
        out = messages.maximum()
    else:
        out = -messages.map(torch.neg).maximum()
    if messages.targets is None:
        return out
    degrees = messages.degrees(out)
    is_sum = isinstance(module, aggr.SumAggregation)
    return out + messages.targets * (degrees.number if is_sum else degrees.present)


def reducible(module: Any, with_targets: bool = False) -> bool:
    """Whether `reduce` has an aggregation, for messages with or without a target's term."""
    kind = class_of(module)
    if kind is aggr.MultiAggregation:
        return all(reducible(one, with_targets) for one in module.aggrs)
    if kind is aggr.DegreeScalerAggregation:
        return reducible(module.aggr, with_targets)
    if kind in SPREAD and with_targets:
        return not (module if kind is aggr.VarAggregation else module.var_aggr).semi_grad
    return kind in SHIFTABLE + SPREAD or (kind in WEIGHTED and not with_targets)


SIMPLE = "sum, mean, max, min, var, std"
REDUCIBLE = Condition(
    f"aggr is of {SIMPLE}, softmax, powermean, or several of them",
    lambda conv: reducible(conv.aggr_module),
)
REDUCIBLE_WITH_TARGETS = Condition(
    f"aggr is of {SIMPLE}, or several of them",
    lambda conv: reducible(conv.aggr_module, with_targets=True),
)


def maximum(messages: Messages) -> Tensor:
    """The largest message, 0 where there is none; equal ones share the gradient, as in PyG."""
    found = [_largest(part, values) for part, values in messages.parts()]
    if not found:
        return messages.sum()
    value = functools.reduce(torch.maximum, [largest for largest, _, _ in found])
    if not torch.is_grad_enabled():
        return value if messages.hood.reaches_all else value.masked_fill(value.isneginf(), 0.0)
    zero = value.new_zeros(())
    total = add_up(torch.where(largest == value, sums, zero) for largest, sums, _ in found)
    count = add_up(torch.where(largest == value, number, zero) for largest, _, number in found)
    return total / count.clamp(min=1)


def _largest(part: Part, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every target: the largest value, the sum of its ties, and their number.

    Only the sum has a gradient. Without gradients only the first is computed.
    """
    values = x.detach()
    if not isinstance(part, FramePart):
        return part.source(values, outside=-math.inf), part.source(x), x.new_ones(())
    if not torch.is_grad_enabled():
        largest = values.amax(2, True).expand_as(x) if part.loops else _largest_other(values)
        return largest, largest, x.new_ones(())
    first = values.amax(2, keepdim=True)
    is_first = values == first
    count = is_first.sum(2, keepdim=True)
    if part.loops:
        sums = x.masked_fill(~is_first, 0.0).sum(2, keepdim=True)
        return first.expand_as(x), sums.expand_as(x), count.to(x).expand_as(x)
    # a token that alone has the largest value gets the second largest
    rest = values.masked_fill(is_first, -math.inf)
    second = rest.amax(2, keepdim=True)
    alone = is_first & (count == 1)
    top = x.masked_fill(~is_first, 0.0)
    is_second = (rest == second) & ~is_first
    below = x.masked_fill(~is_second, 0.0)
    sums = torch.where(alone, below.sum(2, keepdim=True), top.sum(2, keepdim=True) - top)
    numbers = torch.where(alone, is_second.sum(2, keepdim=True), count - is_first.long())
    return torch.where(alone, second, first), sums, numbers.to(x)


def _largest_other(x: Tensor) -> Tensor:
    """The largest value of the frame's other positions; x is `[B, T, P, C]`."""
    first, index = x.max(2, keepdim=True)
    second = x.scatter(2, index, -math.inf).amax(2, keepdim=True)
    return first.expand_as(x).scatter(2, index, second)


def _spread(
    module: aggr.VarAggregation | aggr.StdAggregation, messages: Messages | SlotMessages
) -> Tensor:
    variance = module if isinstance(module, aggr.VarAggregation) else module.var_aggr
    mean = messages.mean()
    with torch.set_grad_enabled(torch.is_grad_enabled() and not variance.semi_grad):
        mean_of_squares = messages.map(torch.square).mean()
    out = mean_of_squares - mean * mean
    if variance is module:
        return out
    least = math.sqrt(1e-5)
    out = out.clamp(min=1e-5).sqrt()
    return out.masked_fill(out <= least, 0.0)


def _weighted(
    module: aggr.SoftmaxAggregation | aggr.PowerMeanAggregation, messages: Messages | SlotMessages
) -> Tensor:
    if isinstance(module, aggr.SoftmaxAggregation):
        return messages.softmax_sum(module.t, not module.learn and module.semi_grad)
    power, limits = module.p, {"min": module.min_value, "max": module.max_value}
    if isinstance(power, (int, float)) and power == 1:
        return messages.mean()
    mean = messages.map(lambda x: x.clamp(**limits).pow(power)).mean()
    return mean.clamp(**limits).pow(1.0 / power)


def softmax_sum(messages: Messages, t: Tensor | float, detach: bool) -> Tensor:
    """The sum of the messages weighted by their softmax, of temperature 1/t, in each channel.

    The exponentials of a frame are summed once. Each part scales them by its largest value; for a
    token that alone has its frame's largest value they are scaled by the second largest, so that
    the sum without the token itself keeps its precision. With `detach`, weights have no gradient.
    """
    terms = []
    for part, values in messages.parts():
        scores = values if isinstance(t, (int, float)) and t == 1 else values * t
        terms.append(_exponentials(part, scores.detach() if detach else scores, values))
    if not terms:
        return messages.sum()
    largest = functools.reduce(torch.maximum, [value for value, _, _ in terms])
    largest = largest.masked_fill(largest.isneginf(), 0.0)
    scales = [(value - largest).exp() for value, _, _ in terms]
    total = add_up(scale * sums for scale, (_, _, sums) in zip(scales, terms, strict=True))
    norm = add_up(scale * weights for scale, (_, weights, _) in zip(scales, terms, strict=True))
    return total / (norm + 1e-16)


def _exponentials(part: Part, scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every target: a scale, the sum of exp(score - scale), and of that times the value."""
    least, fixed = -math.inf, scores.detach()
    if not isinstance(part, FramePart):
        weights = part.source((scores - fixed).exp())
        return part.source(fixed, outside=least), weights, weights * part.source(values)
    first = fixed.amax(2, keepdim=True)
    weights = (scores - first).exp()
    sums = weights.sum(2, keepdim=True), (weights * values).sum(2, keepdim=True)
    if part.loops:
        norm, total = sums
        return first.expand_as(scores), norm.expand_as(values), total.expand_as(values)
    is_first = fixed == first
    alone = is_first & (is_first.sum(2, keepdim=True) == 1)
    second = fixed.masked_fill(alone, least).amax(2, keepdim=True)
    lower = (scores.masked_fill(alone, least) - second).exp()
    return (
        torch.where(alone, second, first),
        torch.where(alone, lower.sum(2, keepdim=True), sums[0] - weights),
        torch.where(alone, (lower * values).sum(2, keepdim=True), sums[1] - weights * values),
    )


def _scaled(module: aggr.DegreeScalerAggregation, messages: Messages | SlotMessages) -> Tensor:
    out = reduce(module.aggr, messages)
    degree = messages.degrees(out).number
    at_least_1 = degree.clamp(min=1)
    scaled = {
        "identity": lambda: out,
        "amplification": lambda: out * ((degree + 1).log() / module.avg_deg_log),
        "attenuation": lambda: out * (module.avg_deg_log / (at_least_1 + 1).log()),
        "linear": lambda: out * (degree / module.avg_deg_lin),
        "inverse_linear": lambda: out * (module.avg_deg_lin / at_least_1),
    }
    return torch.cat([scaled[name]() for name in module.scaler], dim=-1)
