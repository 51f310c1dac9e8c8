"""Parameter groups with layer-wise learning-rate decay, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

NEARLY_ALL = 0.9  # fraction of a network's parameters
NamedParameters = Iterable[tuple[str, nn.Parameter]]


def parameter_groups(
    module: nn.Module, rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trained parameters of a module, in groups for an optimizer.

    Weight decay applies to matrices and kernels, not to biases, norms and positions. The learning
    rate decays from each stage of the network to the one before it: early stages have the most
    general filters and change least.

    Args:
        module: A backbone or a head.
        rate: The learning rate of its last stage.
        weight_decay: Weight decay.
        layer_decay: A stage's learning rate as a fraction of the next one's; 1 for equal rates.
    """
    stages = depth_stages(module) if layer_decay != 1 else [list(module.named_parameters())]
    groups = []
    for i, stage in enumerate(stages):
        stage_rate = rate * layer_decay ** (len(stages) - 1 - i)
        groups += _with_and_without_decay(stage, stage_rate, weight_decay)
    return groups


def clean_name(name: str) -> str:
    """A parameter's name without FSDP's prefixes."""
    return name.replace("_fsdp_wrapped_module.", "")


def depth_stages(module: nn.Module, prefix: str = "") -> list[list[tuple[str, nn.Parameter]]]:
    """A network's parameters in stages, from its input to its output.

    Stages are the children with parameters, in their order, such as a stem and four layers. A child
    with nearly all parameters, such as a wrapped network or a Transformer's list of blocks, is
    replaced by its own stages. Parameters outside the children, such as positions, belong to the
    first stage.

    Args:
        module: The network.
        prefix: Prefix of the parameters' names.
    """
    own = [(prefix + name, p) for name, p in module.named_parameters(recurse=False)]
    total = num_parameters(module)
    stages: list[list[tuple[str, nn.Parameter]]] = []
    for name, child in module.named_children():
        if num_parameters(child) > NEARLY_ALL * total:
            stages += depth_stages(child, f"{prefix}{name}.")
        elif num_parameters(child):
            stages.append(list(child.named_parameters(f"{prefix}{name}")))
    stages = stages or [[]]
    stages[0] = own + stages[0]
    return stages


def num_parameters(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _with_and_without_decay(
    parameters: NamedParameters, rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in parameters:
        if parameter.requires_grad:
            is_plain = parameter.dim() < 2 or name.startswith("positions")
            (plain if is_plain else decayed).append(parameter)
    return [
        {"params": decayed, "lr": rate, "weight_decay": weight_decay},
        {"params": plain, "lr": rate, "weight_decay": 0.0},
    ]


def warmup_cosine(warmup: float, num_steps: int, step: int) -> float:
    """Learning rate at a step as a fraction of the highest: linear warmup, then a cosine to 0.

    Args:
        warmup: Fraction of all steps that are warmup.
        num_steps: Number of all steps.
        step: The step, from 0.
    """
    rising = warmup * num_steps
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = min(1.0, (step - rising) / max(1.0, num_steps - rising))
    return (1 + math.cos(math.pi * progress)) / 2
