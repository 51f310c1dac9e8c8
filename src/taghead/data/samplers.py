"""Which clips training draws, and how often."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import WeightedRandomSampler


def class_balanced_sampler(labels: Sequence[int], balance: float = 1.0) -> WeightedRandomSampler:
    """Draws clips, with replacement, such that rare classes come more often than they are there.

    A class of n clips is drawn with a probability in proportion to `n ** (1 - balance)`, as in
    `Decoupling Representation and Classifier <https://arxiv.org/abs/1910.09217>`_; an epoch has as
    many draws as there are clips. Random numbers come from torch's global generator.

    Trained on several devices, each draws its part of an epoch: Lightning wraps the sampler.

    Args:
        labels: Class of each clip.
        balance: 0 draws all clips alike, 1 all classes alike, 1/2 lies between them.

    Raises:
        ValueError: If `balance` is not from 0 to 1.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"class_balance must be from 0 to 1 (got {balance})")
    numbers = torch.as_tensor(labels)
    weights = numbers.bincount().double() ** -balance
    return WeightedRandomSampler(weights[numbers].tolist(), len(labels))
