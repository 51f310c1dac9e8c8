import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassAccuracy

from taghead.metrics import (
    CollectedPredictions,
    Predictions,
    accuracies,
    bootstrap,
    class_accuracy,
    long_tail_groups,
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


def resampled(predictions: Predictions, groups: dict, num_resamples: int) -> dict[str, np.ndarray]:
    """The bootstrap done plainly: clips are drawn, one resample after another."""
    rng, rank = np.random.default_rng(3), predictions.rank()
    rows = []
    for _ in range(num_resamples):
        drawn = rng.integers(len(rank), size=len(rank))
        label, places = predictions.label[drawn], rank[drawn]
        hits = [np.mean(places[label == k] == 1) for k in np.unique(label)]
        of_group = {
            name: np.mean([hit for k, hit in zip(np.unique(label), hits, strict=True) if has[k]])
            for name, has in groups.items()
        }
        overall = {"top1": np.mean(places == 1), "top5": np.mean(places <= 5), "mca": np.mean(hits)}
        rows.append({**overall, **of_group})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def test_intervals_are_those_of_drawing_clips() -> None:
    predictions = random_predictions(150, 12)
    counts = np.bincount(predictions.label, minlength=12)
    groups = long_tail_groups(10 * counts, head_above=150, tail_below=60)
    assert all(counts[members].any() for members in groups.values())
    found = bootstrap(predictions.outcomes(), groups, num_resamples=4000)
    for name, values in resampled(predictions, groups, 4000).items():
        low, high = np.quantile(values, [0.025, 0.975])
        width = high - low
        assert width > 0.03
        assert found[name] == pytest.approx((low, high), abs=0.1 * width), name


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Over many tests of a model that is right in 70% of the clips."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        hits = rng.random(200) < 0.7
        outcomes = np.array([[hits.sum(), 0, 0], [0, 0, (~hits).sum()]])
        low, high = bootstrap(outcomes, num_resamples=300, confidence=0.9)["top1"]
        held.append(low <= 0.7 <= high)
    assert 0.84 < np.mean(held) < 0.95


def test_intervals_follow_seed_and_confidence() -> None:
    outcomes = random_predictions(100, 5).outcomes()
    found = bootstrap(outcomes, num_resamples=500, seed=1)
    assert found == bootstrap(outcomes, num_resamples=500, seed=1)
    assert found != bootstrap(outcomes, num_resamples=500, seed=2)
    narrow = bootstrap(outcomes, num_resamples=500, seed=1, confidence=0.5)
    for name, (low, high) in narrow.items():
        assert found[name][0] <= low <= accuracies(outcomes)[name] <= high <= found[name][1]


def test_intervals_without_chance() -> None:
    always = np.array([[7, 0, 0], [3, 0, 0], [0, 0, 0]])
    groups = {"head": np.array([True, False, False]), "tail": np.array([False, False, True])}
    found = bootstrap(always, groups)
    assert found["top1"] == found["mca"] == found["head"] == (1, 1)
    assert np.isnan(found["tail"]).all()
    with pytest.raises(ValueError, match=r"num_resamples must be a positive integer \(got 0\)"):
        bootstrap(always, num_resamples=0)
    with pytest.raises(ValueError, match=r"confidence must lie between 0 and 1 \(got 95\)"):
        bootstrap(always, confidence=95)
