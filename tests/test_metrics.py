import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy

from taghead.metrics import (
    MIN_CLIPS,
    CollectedPredictions,
    Predictions,
    accuracies,
    class_accuracy,
    intervals,
    long_tail_groups,
    wilson_interval,
)


def predictions_of(predicted: list[int], labels: list[int], num_classes: int) -> Predictions:
    return Predictions(
        np.arange(len(labels)), np.array(labels), np.eye(num_classes, dtype=np.float32)[predicted]
    )


def random_predictions(num_clips: int, num_classes: int, seed: int = 0) -> Predictions:
    """Of classes of very different numbers of clips."""
    rng = np.random.default_rng(seed)
    label = (num_classes * rng.random(num_clips) ** 3).astype(np.int64)
    scores = rng.random((num_clips, num_classes), np.float32)
    scores[np.arange(num_clips), label] += 0.5 * rng.random(num_clips, np.float32)
    return Predictions(np.arange(num_clips), label, scores / scores.sum(axis=1, keepdims=True))


def test_mca_is_the_mean_over_the_classes_present() -> None:
    found = accuracies(predictions_of([0, 0, 1, 1, 3], [0, 0, 0, 1, 1], 4).outcomes())
    # class 0: 2 of 3, class 1: 1 of 2, classes 2 and 3 are absent
    assert found["mca"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["top1"] == pytest.approx(3 / 5)


def test_a_class_that_is_only_predicted_does_not_count() -> None:
    predictions = predictions_of([0, 3], [0, 0], 4)
    macro = MulticlassAccuracy(4, average="macro")
    assert accuracies(predictions.outcomes())["mca"] == 0.5
    scores, labels = map(torch.from_numpy, (predictions.probabilities, predictions.label))
    assert macro(scores, labels) == 0.25  # the class 3 counts as 0: not the paper's number


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 200), st.integers(5, 40), st.integers(0, 1000))
def test_against_torchmetrics(num_clips: int, num_classes: int, seed: int) -> None:
    predictions = random_predictions(num_clips, num_classes, seed)
    scores, labels = map(torch.from_numpy, (predictions.probabilities, predictions.label))
    found = accuracies(predictions.outcomes())
    for top in (1, 5):
        micro = MulticlassAccuracy(num_classes, top_k=top, average="micro")
        assert found[f"top{top}"] == pytest.approx(micro(scores, labels).item())
        by_class = MulticlassAccuracy(num_classes, top_k=top, average=None)(scores, labels).numpy()
        present = np.bincount(predictions.label, minlength=num_classes) > 0
        exact = class_accuracy(predictions.outcomes(), top)  # type: ignore[arg-type]
        assert exact[present] == pytest.approx(by_class[present])
        assert np.isnan(exact[~present]).all()


def test_top5_of_three_classes_is_all() -> None:
    assert accuracies(random_predictions(9, 3).outcomes())["top5"] == 1


def test_equal_probabilities_rank_the_first_class_first() -> None:
    predictions = Predictions(np.arange(2), np.array([1, 3]), np.full((2, 4), 0.25))
    assert predictions.ranking().tolist() == [[0, 1, 2, 3]] * 2
    assert predictions.rank().tolist() == [2, 4]


def test_without_a_clip_an_accuracy_is_no_number() -> None:
    found = accuracies(np.zeros((4, 3), np.int64))
    assert all(np.isnan(value) for value in found.values())


def test_predictions_are_collected_over_batches_each_clip_once() -> None:
    whole = random_predictions(23, 6)
    order = np.random.default_rng(1).permutation(23)
    collected = CollectedPredictions()
    for batch in np.array_split(np.concatenate([order, order[:3]]), 4):
        collected.update(*(torch.from_numpy(field[batch]) for field in whole))
    for found, wanted in zip(collected.compute(), whole, strict=True):
        assert np.array_equal(found, wanted)
    collected.reset()
    collected.update(*(torch.from_numpy(field[4:5]) for field in whole))
    assert collected.compute().probabilities.shape == (1, 6)


def test_head_medium_and_tail() -> None:
    counts = [500, 101, 100, 20, 19, 0]
    found = long_tail_groups(counts)
    assert {name: members.nonzero()[0].tolist() for name, members in found.items()} == {
        "head": [0, 1],
        "medium": [2, 3],
        "tail": [4, 5],
    }
    found = long_tail_groups(counts, head_above=200, tail_below=101)
    assert {name: members.sum() for name, members in found.items()} == {
        "head": 1,
        "medium": 1,
        "tail": 4,
    }
    with pytest.raises(ValueError, match=r"tail_below must be from 0 to head_above \+ 1 = 51"):
        long_tail_groups(counts, head_above=50, tail_below=60)


def test_accuracies_of_groups_are_means_over_their_classes_with_clips() -> None:
    predictions = predictions_of([0, 0, 0, 1, 0, 2, 2], [0, 0, 0, 1, 1, 2, 3], 5)
    groups = long_tail_groups([300, 50, 30, 5, 1])
    found = accuracies(predictions.outcomes(), groups)
    assert found["head"] == 1
    assert found["medium"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["tail"] == 0  # of class 3; class 4 has no clip
    assert found["mca"] == pytest.approx((1 + 1 / 2 + 1 + 0) / 4)


def test_wilson_against_known_intervals() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3
    known = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611)}
    known[1, 29] = (0.0061, 0.1718)
    for (hits, num_clips), interval in known.items():
        assert wilson_interval(hits, num_clips) == pytest.approx(interval, abs=5e-5)
    assert wilson_interval(12, 12) == pytest.approx((0.7575, 1), abs=1e-4)  # not [1, 1]
    assert wilson_interval(0, 0) is None


def resampled(predictions: Predictions, members: np.ndarray, num_resamples: int) -> np.ndarray:
    """Deviations of the MCA, drawn plainly: class after class, clip after clip."""
    rng, z = np.random.default_rng(3), 1.959964
    hit, found = predictions.rank() == 1, []
    for _ in range(num_resamples):
        by_class = []
        for k in np.unique(predictions.label[members[predictions.label]]):
            own = hit[predictions.label == k]
            rate = (own.sum() + z**2 / 2) / (len(own) + z**2)
            by_class.append(np.mean([rng.random() < rate for _ in own]) - rate)
        found.append(np.mean(by_class))
    return np.array(found)


def test_intervals_are_those_of_drawing_clips_of_each_class() -> None:
    predictions = random_predictions(150, 12)
    counts = np.bincount(predictions.label, minlength=12)
    groups = long_tail_groups(10 * counts, head_above=150, tail_below=60)
    assert all(counts[members].sum() >= MIN_CLIPS for members in groups.values())
    found = intervals(predictions.outcomes(), groups, num_resamples=4000)
    accuracy = accuracies(predictions.outcomes(), groups)
    for name, members in {"mca": np.full(12, True), **groups}.items():
        deviations = resampled(predictions, members, 1000)
        low, high = accuracy[name] + np.quantile(deviations, [0.025, 0.975])
        width = high - low
        assert width > 0.03
        assert found[name] == pytest.approx((low, high), abs=0.1 * width), name


@pytest.mark.parametrize("num_clips", [[200], [1] * 60, [2, 2, 2, 2, 2, 2], [30, 5, 1]])
def test_an_interval_holds_the_truth_as_often_as_it_says(num_clips: list[int]) -> None:
    """Over many tests of a model that is right in 70% of the clips, of few or many a class."""
    rng, held = np.random.default_rng(0), {"top1": [], "mca": []}
    for _ in range(300):
        hits = rng.binomial(num_clips, 0.7)
        outcomes = np.stack([hits, 0 * hits, np.array(num_clips) - hits], axis=1)
        found = intervals(outcomes, num_resamples=300, confidence=0.9)
        for name, has in held.items():
            low, high = found[name]
            has.append(low <= 0.7 <= high)
    # of 12 clips only few proportions are possible
    assert 0.84 < np.mean(held["top1"]) < (0.95 if len(num_clips) == 1 else 0.98)
    assert np.mean(held["mca"]) > 0.84


def test_intervals_follow_seed_and_confidence() -> None:
    outcomes = random_predictions(100, 5).outcomes()
    found = intervals(outcomes, num_resamples=500, seed=1)
    assert found == intervals(outcomes, num_resamples=500, seed=1)
    assert found != intervals(outcomes, num_resamples=500, seed=2)
    narrow = intervals(outcomes, num_resamples=500, seed=1, confidence=0.5)
    for name, (low, high) in narrow.items():
        assert found[name][0] <= low <= accuracies(outcomes)[name] <= high <= found[name][1]


def test_clips_that_are_all_right_leave_a_doubt() -> None:
    always = np.array([[9, 0, 0], [3, 0, 0], [0, 0, 0]])
    groups = {"head": np.array([True, False, False]), "tail": np.array([False, False, True])}
    found = intervals(always, groups)
    assert found["top1"] == found["top5"] == pytest.approx((0.7575, 1), abs=1e-4)
    assert found["mca"][0] < 0.9
    assert found["mca"][1] == 1
    assert found["head"] is found["tail"] is None  # of 9 clips, and of none
    assert intervals(0 * always)["top1"] is None
    with pytest.raises(ValueError, match=r"num_resamples must be a positive integer \(got 0\)"):
        intervals(always, num_resamples=0)
    with pytest.raises(ValueError, match=r"confidence must lie between 0 and 1 \(got 95\)"):
        intervals(always, confidence=95)
