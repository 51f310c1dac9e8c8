"""Sampler of training clips: their order in an epoch, and class balance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from taghead.data.seeding import SampleKey, derived_seed


class EpochSampler(DistributedSampler):
    """Samples an epoch's clips in an order that only the seed and the epoch's number decide.

    An epoch can therefore be begun in its middle, as a resumed training does. Each sample has a
    seed of its own for the clip's augmentation, whichever worker reads it. An epoch follows the
    one before, unless `set_epoch` says which one it is.

    With several devices, each takes every `num_replicas`-th sample; where an epoch does not divide
    evenly, its first samples are repeated.

    Args:
        labels: Class of each clip.
        seed: Seed of all orders.
        balance: How far classes of different numbers of clips are evened out. 0 draws every clip
            once. Above it, clips are drawn with replacement, a class of n clips with a probability
            in proportion to `n ** (1 - balance)`, as in `Decoupling Representation and Classifier
            <https://arxiv.org/abs/1910.09217>`_: 1 draws all classes equally often.
        num_replicas: On how many devices training runs.
        rank: Which of them this is.
        done: Called when an epoch begins: how many samples of it this device has had already.

    Raises:
        ValueError: If `balance` is not from 0 to 1.
    """

    def __init__(
        self,
        labels: Sequence[int],
        seed: int = 0,
        balance: float = 0.0,
        num_replicas: int = 1,
        rank: int = 0,
        done: Callable[[], int] = lambda: 0,
    ) -> None:
        if not 0 <= balance <= 1:
            raise ValueError(f"class_balance must be from 0 to 1 (got {balance})")
        super().__init__(range(len(labels)), num_replicas, rank, seed=seed)  # type: ignore[arg-type]
        self.weights = class_weights(labels, balance) if balance else None
        self.done = done

    def __iter__(self) -> Iterator[SampleKey]:
        order = self._order().tolist()
        order += [order[i % len(order)] for i in range(self.total_size - len(order))]
        first = self.rank + self.done() * self.num_replicas
        epoch, self.epoch = self.epoch, self.epoch + 1
        for position in range(first, self.total_size, self.num_replicas):
            yield SampleKey(order[position], derived_seed(self.seed, epoch, position))

    def _order(self) -> Tensor:
        """The whole epoch's clips `[M]`."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, self.epoch))
        num_clips = len(self.dataset)  # type: ignore[arg-type]
        if self.weights is None:
            return torch.randperm(num_clips, generator=generator)
        return torch.multinomial(self.weights, num_clips, replacement=True, generator=generator)


class LateLoader(DataLoader):
    """A data loader that starts its workers at the first batch, not when it gives an iterator.

    Lightning asks for one before the sampler has the epoch's number, and before it knows how much
    of a resumed epoch is done; workers would begin to read the wrong clips. It takes a loader with
    a state for one that can be resumed within an epoch; the sampler's `done` does that here.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """There is nothing to load."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


def class_weights(labels: Sequence[int], balance: float) -> Tensor:
    """How probable each clip is to be drawn `[M]`, up to a factor: `n ** -balance`.

    Args:
        labels: Class of each clip.
        balance: 0 draws all clips equally often, 1 all classes, 1/2 lies between them.
    """
    numbers = torch.as_tensor(labels)
    return numbers.bincount().double()[numbers] ** -balance
