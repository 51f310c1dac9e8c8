"""Metrics of predictions: accuracies over clips and classes, with confidence intervals.

The logged accuracies and the test report are computed from the same collected predictions.
torchmetrics' own accuracies are not used: its macro accuracy counts a class without clips as 0, and
its metrics count a clip twice that a distributed sampler repeats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

MIN_CLIPS = 10
"""Clips below which a mean class accuracy has no interval."""


class Predictions(NamedTuple):
    """Predictions for a split's clips, each clip once, sorted by index.

    Shapes:
        - **clip_index** `[M]`, index of the clip in its split
        - **label** `[M]`
        - **probabilities** `[M, K]`
    """

    clip_index: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray

    def ranking(self) -> np.ndarray:
        """The classes of each clip `[M, K]`, the most probable first; ties by class index."""
        return np.argsort(-self.probabilities, axis=1, kind="stable")

    def rank(self) -> np.ndarray:
        """The rank of each clip's own class `[M]`, from 1."""
        return (self.ranking() == self.label[:, None]).argmax(axis=1) + 1

    def outcomes(self) -> np.ndarray:
        """Number of clips of each class with rank 1, 2 to 5, and above 5, `[K, 3]`."""
        column = np.searchsorted([1, 5], self.rank())
        num_classes = self.probabilities.shape[1]
        cells = np.bincount(3 * self.label + column, minlength=3 * num_classes)
        return cells.reshape(num_classes, 3)


class CollectedPredictions(Metric):
    """Metric that collects predictions over batches and ranks.

    A clip counts once, also if it is repeated, as distributed samplers do to give all ranks the
    same number of batches.

    Shapes:
        - **clip_index** `[B]`, **label** `[B]`, **probabilities** `[B, K]`
        - **output** :class:`Predictions`
    """

    full_state_update = False
    clip_index: list[Tensor]
    label: list[Tensor]
    probabilities: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in Predictions._fields:
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, clip_index: Tensor, label: Tensor, probabilities: Tensor) -> None:
        self.clip_index.append(clip_index)
        self.label.append(label)
        self.probabilities.append(probabilities)

    def compute(self) -> Predictions:
        clip_index, label, probabilities = (
            dim_zero_cat(getattr(self, name)).cpu().numpy() for name in Predictions._fields
        )
        clip_index, first = np.unique(clip_index, return_index=True)
        return Predictions(clip_index, label[first], probabilities[first])


class ClipMean(Metric):
    """Mean of a value of each clip, over batches and ranks.

    A repeated clip counts once, as in :class:`CollectedPredictions`; torchmetrics' `MeanMetric`
    would count it twice.

    Shapes:
        - **clip_index** `[B]`, **value** `[B]`
        - **output** a float
    """

    full_state_update = False
    clip_index: list[Tensor]
    value: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("clip_index", "value"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, clip_index: Tensor, value: Tensor) -> None:
        self.clip_index.append(clip_index)
        self.value.append(value)

    def compute(self) -> float:
        _, first = np.unique(dim_zero_cat(self.clip_index).cpu().numpy(), return_index=True)
        return float(dim_zero_cat(self.value).cpu().numpy()[first].mean(dtype=np.float64))


def long_tail_groups(
    num_train: Sequence[int], head_above: int = 100, tail_below: int = 20
) -> dict[str, np.ndarray]:
    """Head, medium and tail classes by their numbers of training clips.

    The default thresholds are those of `Large-Scale Long-Tailed Recognition in an Open World
    <https://arxiv.org/abs/1904.05160>`_.

    Args:
        num_train: Training clips of each class.
        head_above: Head classes have more.
        tail_below: Tail classes have fewer.

    Shapes:
        - **output** `[K]`, bool, each

    Raises:
        ValueError: If a class would be both head and tail.
    """
    if not 0 <= tail_below <= head_above + 1:
        raise ValueError(
            f"tail_below must be from 0 to head_above + 1 = {head_above + 1} (got {tail_below})"
        )
    counts = np.asarray(num_train)
    head, tail = counts > head_above, counts < tail_below
    return {"head": head, "medium": ~head & ~tail, "tail": tail}


def accuracies(
    outcomes: np.ndarray, groups: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Top-1, Top-5, mean class accuracy (MCA), and the MCA within groups of classes.

    The MCA is the mean of Top-1 over the classes that have clips. A class without clips does not
    count, even if it was predicted; torchmetrics' macro accuracy counts it as 0. An accuracy over
    no clips is NaN.

    Args:
        outcomes: :meth:`Predictions.outcomes` of one test, or of several stacked.
        groups: The classes of each group, by its name.

    Shapes:
        - **outcomes** `[..., K, 3]`
        - **group** `[K]`, bool
        - **output** `[...]` each
    """
    # all classes summed to one: [..., 1]
    overall = outcomes.sum(axis=-2, keepdims=True)
    found = {f"top{top}": class_accuracy(overall, top)[..., 0] for top in (1, 5)}
    # [..., K]
    by_class = class_accuracy(outcomes)
    every_class: dict[str, Any] = {"mca": slice(None)}
    for name, members in {**every_class, **(groups or {})}.items():
        accuracy = by_class[..., members]
        has_clips = ~np.isnan(accuracy)
        found[name] = _ratio(np.nansum(accuracy, axis=-1), has_clips.sum(axis=-1))
    return found


def class_accuracy(outcomes: np.ndarray, top: Literal[1, 5] = 1) -> np.ndarray:
    """Top-1 or Top-5 of each class; NaN for a class without clips.

    Shapes:
        - **outcomes** `[..., K, 3]`
        - **output** `[..., K]`
    """
    hits = outcomes[..., : 1 if top == 1 else 2].sum(axis=-1)
    return _ratio(hits, outcomes.sum(axis=-1))


def intervals(
    outcomes: np.ndarray,
    groups: Mapping[str, np.ndarray] | None = None,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """Confidence intervals of :func:`accuracies`, for new clips of the same classes.

    Top-1 and Top-5 have Wilson's interval, the MCA a stratified bootstrap's
    (:func:`mca_interval`). None where there are too few clips: none at all, or for the MCA fewer
    than `MIN_CLIPS`.

    Args:
        outcomes: :meth:`Predictions.outcomes` of the test, `[K, 3]`.
        groups: The classes of each group, by its name.
        num_resamples: Number of resamples.
        confidence: Confidence level of the intervals.
        seed: Seed of the resamples.

    Raises:
        ValueError: If an argument breaks its rule.
    """
    check_bootstrap(num_resamples, confidence, seed)
    total = outcomes.sum(axis=0)
    found = {
        f"top{top}": wilson_interval(int(total[:columns].sum()), int(total.sum()), confidence)
        for top, columns in ((1, 1), (5, 2))
    }
    every_class: dict[str, Any] = {"mca": slice(None)}
    for name, members in {**every_class, **(groups or {})}.items():
        found[name] = mca_interval(outcomes[members], num_resamples, confidence, seed)
    return found


def wilson_interval(
    hits: int, num_clips: int, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Wilson's score interval of a proportion; None of no clips.

    Unlike the percentile bootstrap's it is no single point where all clips are right.
    """
    if not num_clips:
        return None
    z = _normal_quantile(confidence)
    center = (hits + z**2 / 2) / (num_clips + z**2)
    # with p = hits / n: z / (1 + z^2/n) * sqrt(p (1 - p) / n + z^2 / (4 n^2))
    half = z * math.sqrt(hits * (num_clips - hits) / num_clips + z**2 / 4) / (num_clips + z**2)
    low = 0.0 if hits == 0 else center - half
    return low, 1.0 if hits == num_clips else center + half


def mca_interval(
    outcomes: np.ndarray, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """Smoothed stratified bootstrap interval of the mean class accuracy.

    A resample draws as many clips of each class as there are, so no class is ever missing. The
    probability of a hit is the center of Wilson's interval: with its own accuracy, a class of one
    clip, or with all clips right, would not vary. The deviations of resamples are added to the MCA.

    Args:
        outcomes: :meth:`Predictions.outcomes` of the classes, `[K, 3]`.
        num_resamples: Number of resamples.
        confidence: Confidence level.
        seed: Seed of the resamples.

    Returns:
        The interval; None of fewer than `MIN_CLIPS` clips.
    """
    num_clips = outcomes.sum(axis=1)
    hits, num_clips = outcomes[num_clips > 0, 0], num_clips[num_clips > 0]
    if num_clips.sum() < MIN_CLIPS:
        return None
    z = _normal_quantile(confidence)
    rate = (hits + z**2 / 2) / (num_clips + z**2)
    shape = (num_resamples, len(rate))
    # [num_resamples, K]
    drawn = np.random.default_rng(seed).binomial(num_clips, rate, shape) / num_clips
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = (hits / num_clips).mean() + np.quantile((drawn - rate).mean(axis=1), tails)
    return max(0.0, float(low)), min(1.0, float(high))


def _normal_quantile(confidence: float) -> float:
    """The half-width, in standard deviations, of a normal distribution's interval."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def check_bootstrap(num_resamples: int, confidence: float, seed: int) -> None:
    """Checks the arguments of :func:`intervals`.

    Raises:
        ValueError: If one breaks its rule.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be a positive integer (got {num_resamples})")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1 (got {confidence})")
    if seed < 0:
        raise ValueError(f"seed must not be negative (got {seed})")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient; NaN where the whole is 0."""
    nothing = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=nothing, where=whole > 0)
