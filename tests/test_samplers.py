import numpy as np
import pytest
import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

from taghead.data.samplers import class_balanced_sampler

COUNTS = np.array([640, 160, 40, 10])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS)).tolist()


def shares(drawn: list[int]) -> np.ndarray:
    return np.bincount([LABELS[i] for i in drawn], minlength=4) / len(drawn)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_are_drawn_by_their_tempered_numbers(balance: float) -> None:
    sampler = class_balanced_sampler(LABELS, balance)
    drawn = [index for _ in range(30) for index in sampler]
    assert len(sampler) == 850
    wanted = COUNTS ** (1 - balance) / (COUNTS ** (1 - balance)).sum()
    assert np.abs(shares(drawn) - wanted).max() < 5 * 0.5 / len(drawn) ** 0.5


def test_clips_of_a_class_are_drawn_alike() -> None:
    sampler = class_balanced_sampler(LABELS)
    drawn = np.bincount([index for _ in range(400) for index in sampler], minlength=850)
    for label in range(4):
        of_class = drawn[np.array(LABELS) == label]
        mean = 400 * 850 / 4 / len(of_class)
        assert (np.abs(of_class - mean) < 6 * mean**0.5).all()


def test_the_global_seed_decides() -> None:
    sampler = class_balanced_sampler(LABELS)

    def draw(seed: int) -> list[int]:
        torch.manual_seed(seed)
        return list(sampler)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize("same_seed", [True, False])
def test_several_processes_share_an_epoch(same_seed: bool) -> None:
    """As Lightning wraps the sampler; processes need not have drawn the same numbers."""
    parts = []
    for rank in range(2):
        sampler = DistributedSamplerWrapper(
            class_balanced_sampler(LABELS), num_replicas=2, rank=rank, shuffle=True
        )
        drawn = []
        for epoch in range(30):
            torch.manual_seed(epoch if same_seed else 2 * epoch + rank)
            sampler.set_epoch(epoch)
            drawn += list(sampler)
        assert len(drawn) == 30 * 425
        assert np.abs(shares(drawn) - 0.25).max() < 5 * 0.5 / len(drawn) ** 0.5
        parts.append(drawn)
    assert parts[0] != parts[1]


@pytest.mark.parametrize("balance", [-0.1, 1.5])
def test_balance_is_a_part(balance: float) -> None:
    with pytest.raises(ValueError, match=rf"class_balance must be from 0 to 1 \(got {balance}\)"):
        class_balanced_sampler(LABELS, balance)
