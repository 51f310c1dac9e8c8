"""Groups of parameters with learning rates of their own, and how the rates rise and fall."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

NEARLY_ALL = 0.9  # of a network's parameters, by number
NamedParameters = Iterable[tuple[str, nn.Parameter]]


def parameter_groups(
    module: nn.Module, rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The trained parameters of a module, in groups for an optimizer.

    Matrices and kernels have weight decay; biases, norms and positions have none. The learning
    rate falls from each stage of the network to the one before it, so that early stages, whose
    filters are the most general, change least.

    Args:
        module: A backbone or a head.
        rate: The learning rate of its last stage.
        weight_decay: Weight decay.
        layer_decay: A stage's learning rate as a part of the next one's; 1 gives all the same.
    """
    stages = depth_stages(module) if layer_decay != 1 else [list(module.named_parameters())]
    groups = []
    for number, stage in enumerate(stages):
        stage_rate = rate * layer_decay ** (len(stages) - 1 - number)
        groups += _with_and_without_decay(stage, stage_rate, weight_decay)
    return groups


def clean_name(name: str) -> str:
    """A parameter's name without what FSDP puts into it."""
    return name.replace("_fsdp_wrapped_module.", "")


def depth_stages(module: nn.Module, prefix: str = "") -> list[list[tuple[str, nn.Parameter]]]:
    """A network's parameters in stages, from its input to its output.

    A module around a network is opened; the stages are then the children with parameters, in the
    order in which they stand, such as a stem and four layers. A child that holds nearly all, such
    as a Transformer's list of blocks, is opened as well. Parameters beside the children, such as
    positions, are of the first stage.

    Args:
        module: The network.
        prefix: What the parameters' names begin with.
    """
    own = [(prefix + name, p) for name, p in module.named_parameters(recurse=False)]
    total = _size(module)
    stages: list[list[tuple[str, nn.Parameter]]] = []
    for name, child in module.named_children():
        if _size(child) > NEARLY_ALL * total:
            stages += depth_stages(child, f"{prefix}{name}.")
        elif _size(child):
            stages.append(list(child.named_parameters(f"{prefix}{name}")))
    stages = stages or [[]]
    stages[0] = own + stages[0]
    return stages


def _size(module: nn.Module) -> int:
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
    """The learning rate at a step, as a part of the highest: up a line, down a cosine to 0.

    Args:
        warmup: Part of all steps that rise.
        num_steps: Steps in all.
        step: The step, from 0.
    """
    rising = warmup * num_steps
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = min(1.0, (step - rising) / max(1.0, num_steps - rising))
    return (1 + math.cos(math.pi * progress)) / 2
