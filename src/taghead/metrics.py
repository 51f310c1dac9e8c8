"""Metrics of predictions: accuracies over clips and classes, with bootstrap intervals.

The logged accuracies and the test report are computed from the same collected predictions.
torchmetrics' own accuracies are not used: its macro accuracy counts a class without clips as 0, and
its metrics count a clip twice that a distributed sampler repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


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


def bootstrap(
    outcomes: np.ndarray,
    groups: Mapping[str, np.ndarray] | None = None,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of :func:`accuracies`, over the clips.

    A resample draws as many clips as there are, with replacement. Its accuracies depend only on the
    counts of each class and outcome, which are multinomial, so the counts are drawn directly
    (torchmetrics' `BootStrapper` would update one copy of a metric for each resample). A class with
    few clips is missing from some resamples, and from their MCA.

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
    is_observed = outcomes > 0
    counts = outcomes[is_observed]
    drawn = np.zeros((num_resamples, *outcomes.shape), np.int64)
    drawn[:, is_observed] = np.random.default_rng(seed).multinomial(
        counts.sum(), counts / counts.sum(), num_resamples
    )
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    intervals = {}
    for name, values in accuracies(drawn, groups).items():
        defined = values[~np.isnan(values)]
        low, high = np.quantile(defined, tails).tolist() if defined.size else (np.nan, np.nan)
        intervals[name] = (low, high)
    return intervals


def check_bootstrap(num_resamples: int, confidence: float, seed: int) -> None:
    """Checks the arguments of :func:`bootstrap`.

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
