"""Random numbers that depend on what they are drawn for, and on nothing that was drawn before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Draw:
    """A clip that training draws: its index, and the seed of its augmentation."""

    index: int
    seed: int


def derived_seed(*numbers: int) -> int:
    """One seed of several numbers, below 2**63; any change in them gives an unrelated one."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def index_and_randomness(key: int | Draw) -> tuple[int, AbstractContextManager[None]]:
    """The index that a dataset is asked for, and a context in which its random numbers come.

    Args:
        key: A plain index takes random numbers as they come; a draw brings its own.
    """
    if isinstance(key, Draw):
        return key.index, seeded(key.seed)
    return key, nullcontext()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch on the CPU, numpy and Python from a seed; then again as before."""
    with torch.random.fork_rng(devices=[]):
        before = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            torch.default_generator.manual_seed(seed)
            _seed_others(seed)
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


def seed_all(seed: int) -> None:
    """Seeds the generators of torch, on all devices, of numpy and of Python."""
    torch.manual_seed(seed)
    _seed_others(seed)


def _seed_others(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002, transforms of users draw from it
