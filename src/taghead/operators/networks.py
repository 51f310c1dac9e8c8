"""The networks inside an operator, as a sequence of steps that treat every row alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _BatchNorm
from torch_geometric.nn import MLP
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.norm import BatchNorm

from taghead.operators.kernel import Rule, class_of

Step = Callable[[Tensor], Tensor]
LINEAR = (nn.Linear, Linear)
BY_ROW = (
    *LINEAR,
    nn.Identity,
    nn.Dropout,
    nn.LayerNorm,
    *(
        getattr(activation, name)
        for name in activation.__all__
        if "oftmax" not in name
        and "oftmin" not in name
        and name not in ("MultiheadAttention", "GLU")
    ),
)


def steps_of(network: Any) -> list[Step] | None:
    """The steps of a network that treats every row alike, as it is set now; None for others.

    A batch norm does so in evaluation alone. Dropout that drops nothing is left out.
    """
    if isinstance(network, nn.Sequential):
        found = [steps_of(module) for module in network]
        return None if None in found else [step for steps in found for step in steps or []]
    if class_of(network) is MLP:
        return _steps_of_mlp(network)
    if isinstance(network, (BatchNorm, _BatchNorm)):
        return None if network.training else [partial(_flat, network)]
    if class_of(network) not in BY_ROW:
        return None
    if isinstance(network, nn.Identity) or (
        isinstance(network, nn.Dropout) and not _drops(network)
    ):
        return []
    return [network]


def _drops(dropout: nn.Dropout) -> bool:
    return dropout.training and dropout.p > 0


def _flat(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


def _steps_of_mlp(mlp: MLP) -> list[Step] | None:
    """PyG's MLP; its activation stands before or after the norm."""
    sequence: list[nn.Module] = []
    dropouts = [nn.Dropout(p).train(mlp.training) for p in mlp.dropout]
    for lin, norm, dropout in zip(mlp.lins, mlp.norms, dropouts, strict=False):
        middle = (
            [norm] if mlp.act is None else [mlp.act, norm] if mlp.act_first else [norm, mlp.act]
        )
        sequence += [lin, *middle, dropout]
    if mlp.plain_last:
        sequence += [mlp.lins[-1], dropouts[-1]]
    found = [steps_of(module) for module in sequence]
    return None if None in found else [step for steps in found for step in steps or []]


def run_steps(steps: Sequence[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x


def begins_linear(network: Any) -> bool:
    """Whether a network treats every row alike, beginning with a linear layer."""
    steps = steps_of(network) or []
    return len(steps) > 0 and isinstance(steps[0], LINEAR)


ROWWISE = Rule(
    "nn is a Linear, or a Sequential or MLP that begins with one and treats every row alike "
    "(a batch norm does so in evaluation)",
    lambda conv: begins_linear(conv.nn),
)


def split_linear(linear: Any, *inputs: int) -> list[Step]:
    """A linear layer of concatenated inputs, as one function of each; the first adds the bias.

    Args:
        linear: The layer.
        inputs: The widths of its inputs.
    """
    weights = linear.weight.split(inputs, dim=-1)
    biases = [linear.bias] + [None] * (len(inputs) - 1)
    return [
        partial(F.linear, weight=weight, bias=bias)
        for weight, bias in zip(weights, biases, strict=True)
    ]


def after_sum(linear: Any, total: Tensor, counts: Tensor) -> Tensor:
    """A linear layer's outputs summed, from its inputs summed and their number."""
    out = torch.matmul(total, linear.weight.t())
    return out if linear.bias is None else out + counts * linear.bias
