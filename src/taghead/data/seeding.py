"""Seeding: random numbers of a sample that do not depend on the order in which samples are read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class SampleKey:
    """A sample of an epoch: the index of its clip, and the seed of its augmentation."""

    index: int
    seed: int


def derived_seed(*numbers: int) -> int:
    """One seed from several numbers, below 2**63; other numbers give an unrelated seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def index_and_randomness(key: int | SampleKey) -> tuple[int, AbstractContextManager[None]]:
    """The index that a dataset is asked for, and a context that seeds its random numbers.

    Args:
        key: An index, which takes random numbers from the generators as they are, or a sample key,
            which has a seed.
    """
    if isinstance(key, SampleKey):
        return key.index, seeded(key.seed)
    return key, nullcontext()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds torch on the CPU, numpy and Python within a context; restores their states after it."""
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
