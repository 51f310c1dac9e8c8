"""Tensors that depend on sizes alone: computed once, in float64, and kept.

A kept tensor must not come from a trace (it would be symbolic) nor from inference mode (no backward
pass could use it). So the cache is bypassed while tracing, and filled outside inference mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Recipe = Callable[..., tuple[np.ndarray | None, ...]]
"""Arrays from plain values: sizes, options, tuples of them."""


@torch.compiler.assume_constant_result
def constants(
    recipe: Recipe, arguments: tuple, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor | None, ...]:
    """A recipe's arrays as tensors; boolean arrays keep their type.

    Args:
        recipe: A function at module level.
        arguments: Its arguments: hashable and plain, so that a compiler can hold them.
        dtype: The type of the numbers.
        device: Where the tensors live.
    """
    if torch.compiler.is_exporting() or not _is_real(device):
        return _tensors(recipe, arguments, dtype, device)
    return _kept(recipe, arguments, dtype, device)


def _is_real(device: torch.device) -> bool:
    """Whether a new tensor holds numbers: under a fake or tracing mode it does not."""
    return type(torch.empty(0, device=device)) is Tensor


@lru_cache(maxsize=1024)
def _kept(
    recipe: Recipe, arguments: tuple, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor | None, ...]:
    with torch.inference_mode(False):
        return _tensors(recipe, arguments, dtype, device)


def _tensors(
    recipe: Recipe, arguments: tuple, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor | None, ...]:
    arrays = _arrays(recipe, arguments)
    return tuple(
        None
        if array is None
        else torch.tensor(array, dtype=None if array.dtype == bool else dtype, device=device)
        for array in arrays
    )


@lru_cache(maxsize=1024)
def _arrays(recipe: Recipe, arguments: tuple) -> tuple[np.ndarray | None, ...]:
    return recipe(*arguments)
