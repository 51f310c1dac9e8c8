"""Gradient checkpointing: activations computed again in the backward pass, in place of kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from taghead.training.optim import NEARLY_ALL


def recompute_activations(network: nn.Module) -> None:
    """Lets each block of a network keep its input alone, and compute the rest again for gradients.

    Follows `Training Deep Nets with Sublinear Memory Cost <https://arxiv.org/abs/1604.06174>`_, by
    `torch.utils.checkpoint`. Outputs, gradients and the statistics of batch norms are the same as
    without it: the second pass does not count for the statistics. Names in the state dict stay.

    Args:
        network: The network; its blocks get a class of their own, made from the one they have.
    """
    for block in blocks(network):
        cls = type(block)
        block.__class__ = type(cls.__name__, (_Recomputed, cls), {"__module__": cls.__module__})


def blocks(network: nn.Module) -> list[nn.Module]:
    """The parts of a network that are computed again one at a time, such as residual blocks."""
    return _blocks(network, _size(network))


def _blocks(module: nn.Module, total: int) -> list[nn.Module]:
    children = [child for child in module.children() if _size(child)]
    is_container = isinstance(module, nn.Sequential | nn.ModuleList) or any(
        _size(child) > NEARLY_ALL * _size(module) for child in children
    )
    # single layers are no blocks: what is around them is one
    parts = [child for child in children if any(True for _ in child.children())]
    if parts and (is_container or _size(module) > total / 2):
        return [block for part in parts for block in _blocks(part, total)]
    return [module]


class _Recomputed(nn.Module):
    """A block whose activations are not kept in training."""

    def forward(self, *args: Any, **options: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*args, **options)
        contexts = partial(_contexts, self)
        return checkpoint(
            super().forward, *args, use_reentrant=False, context_fn=contexts, **options
        )


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """For the first pass and for the second."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms count in copies of their running statistics, which are then dropped."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    for norm, buffers in kept:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in kept:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
