"""Tensors that depend on sizes alone: computed once, in float64, and kept.

A kept tensor must not come from a trace (it would be symbolic) nor from inference mode (no backward
pass could use it). So the cache is bypassed while tracing, and filled outside inference mode.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def keep(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keeps what a function of sizes and a last argument, the device, returns.

    Args:
        maxsize: How many results are kept.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @lru_cache(maxsize)
        def kept(*args: P.args, **kwargs: P.kwargs) -> R:
            with torch.inference_mode(False):
                return function(*args, **kwargs)

        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling() or not _is_real(args[-1]):
                return function(*args, **kwargs)
            return kept(*args, **kwargs)  # type: ignore[arg-type]

        return wrapper

    return decorate


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
    return _tensors(recipe, arguments, dtype, device)


@keep(maxsize=1024)
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


def _is_real(device: Any) -> bool:
    """Whether a new tensor holds numbers: under a fake or tracing mode it does not."""
    return type(torch.empty(0, device=device)) is Tensor


@lru_cache(maxsize=1024)
def _arrays(recipe: Recipe, arguments: tuple) -> tuple[np.ndarray | None, ...]:
    return recipe(*arguments)
