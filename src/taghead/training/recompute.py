"""Activation checkpointing: activations are recomputed in the backward pass, not stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from taghead.training.optim import NEARLY_ALL, num_parameters


def recompute_activations(network: nn.Module) -> None:
    """Makes each block of a network store only its input, and recompute the rest for gradients.

    Follows `Training Deep Nets with Sublinear Memory Cost <https://arxiv.org/abs/1604.06174>`_, by
    `torch.utils.checkpoint`. Outputs, gradients and batch norm statistics are the same as without
    it: the recomputation does not update the statistics. Keys of the state dict stay.

    Args:
        network: The network; the class of each block is replaced by a subclass.
    """
    for block in blocks(network):
        cls = type(block)
        block.__class__ = type(cls.__name__, (_Recomputed, cls), {"__module__": cls.__module__})


def blocks(network: nn.Module) -> list[nn.Module]:
    """The parts of a network that are recomputed one at a time, such as residual blocks."""
    return _blocks(network, num_parameters(network))


def _blocks(module: nn.Module, total: int) -> list[nn.Module]:
    children = [child for child in module.children() if num_parameters(child)]
    is_container = isinstance(module, nn.Sequential | nn.ModuleList) or any(
        num_parameters(child) > NEARLY_ALL * num_parameters(module) for child in children
    )
    # a single layer is no block: its parent is
    parts = [child for child in children if any(True for _ in child.children())]
    if parts and (is_container or num_parameters(module) > total / 2):
        return [block for part in parts for block in _blocks(part, total)]
    return [module]


class _Recomputed(nn.Module):
    """A block whose activations are not stored in training."""

    def forward(self, *args: Any, **options: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(*args, **options)
        contexts = partial(_contexts, self)
        return checkpoint(
            super().forward, *args, use_reentrant=False, context_fn=contexts, **options
        )


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """Contexts of the first pass and of the recomputation."""
    return nullcontext(), _frozen_statistics(block)


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norms update copies of their running statistics, which are then discarded."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    saved = [(norm, dict(norm.named_buffers(recurse=False))) for norm in norms]
    for norm, buffers in saved:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in saved:
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
