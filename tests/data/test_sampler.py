import numpy as np
import pytest
from torch.utils.data import Dataset

from taghead.data.sampler import EpochSampler, LateLoader
from taghead.data.seeding import SampleKey

COUNTS = np.array([640, 160, 40, 10])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), COUNTS)).tolist()


def epoch(sampler: EpochSampler, number: int) -> list[SampleKey]:
    sampler.set_epoch(number)
    return list(sampler)


def clips(draws: list[SampleKey]) -> list[int]:
    return [draw.index for draw in draws]


def shares(drawn: list[int]) -> np.ndarray:
    return np.bincount([LABELS[i] for i in drawn], minlength=4) / len(drawn)


@pytest.mark.parametrize("balance", [1e-9, 0.5, 1.0])
def test_classes_are_drawn_by_their_tempered_numbers(balance: float) -> None:
    sampler = EpochSampler(LABELS, balance=balance)
    drawn = [index for i in range(30) for index in clips(epoch(sampler, i))]
    assert len(sampler) == 850
    wanted = COUNTS ** (1 - balance) / (COUNTS ** (1 - balance)).sum()
    assert np.abs(shares(drawn) - wanted).max() < 5 * 0.5 / len(drawn) ** 0.5


def test_clips_of_a_class_are_drawn_alike() -> None:
    sampler = EpochSampler(LABELS, balance=1.0)
    times = np.bincount([i for e in range(400) for i in clips(epoch(sampler, e))], minlength=850)
    for label in range(4):
        of_class = times[np.array(LABELS) == label]
        mean = 400 * 850 / 4 / len(of_class)
        assert (np.abs(of_class - mean) < 6 * mean**0.5).all()


def test_without_balance_an_epoch_has_every_clip_once_in_an_order_of_its_own() -> None:
    orders = [clips(epoch(EpochSampler(LABELS, seed=3), i)) for i in range(5)]
    assert all(sorted(order) == list(range(850)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_seed_and_epoch_decide_and_nothing_else(balance: float) -> None:
    sampler = EpochSampler(LABELS, seed=1, balance=balance)
    first = epoch(sampler, 7)
    epoch(sampler, 2)
    assert epoch(sampler, 7) == first == epoch(EpochSampler(LABELS, 1, balance), 7)
    assert epoch(EpochSampler(LABELS, 2, balance), 7) != first
    seeds = {draw.seed for i in range(4) for draw in epoch(sampler, i)}
    assert len(seeds) == 4 * 850  # augmentation is never drawn the same way twice


@pytest.mark.parametrize("num_clips", [9, 10, 1])
def test_processes_share_an_epoch_and_begin_it_where_it_was_left(num_clips: int) -> None:
    whole = epoch(EpochSampler([0] * num_clips, seed=4), 3)
    parts = [EpochSampler([0] * num_clips, 4, num_replicas=2, rank=rank) for rank in range(2)]
    drawn = [epoch(part, 3) for part in parts]
    assert len(drawn[0]) == len(drawn[1]) == len(parts[0])
    together = [draw for pair in zip(*drawn, strict=True) for draw in pair]
    assert clips(together[:num_clips]) == clips(whole)
    assert clips(together[num_clips:]) == clips(whole)[: len(together) - num_clips]
    for done in range(len(drawn[1]) + 1):
        rest = EpochSampler([0] * num_clips, 4, num_replicas=2, rank=1, done=lambda: done)  # noqa: B023
        assert epoch(rest, 3) == drawn[1][done:]


@pytest.mark.parametrize("balance", [-0.1, 1.5])
def test_balance_is_a_part(balance: float) -> None:
    with pytest.raises(ValueError, match=rf"class_balance must be from 0 to 1 \(got {balance}\)"):
        EpochSampler(LABELS, balance=balance)


class Indices(Dataset):
    def __getitem__(self, key: SampleKey) -> int:
        return key.index

    def __len__(self) -> int:
        return 6


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_begins_an_epoch_at_its_first_batch(num_workers: int) -> None:
    sampler = EpochSampler([0] * 6)
    loader = LateLoader(
        Indices(), sampler=sampler, num_workers=num_workers, persistent_workers=num_workers > 0
    )
    for number in (5, 6):
        batches = iter(loader)
        sampler.set_epoch(number)
        assert [int(batch) for batch in batches] == clips(epoch(sampler, number))
