"""Test report: metrics, predictions of each clip, accuracy of each class, and pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torchmetrics.functional.classification import multiclass_confusion_matrix

from taghead.data import Clip
from taghead.errors import VideoError
from taghead.files import atomic_folder, json_text, name_to_text
from taghead.metrics import (
    MIN_CLIPS,
    Predictions,
    accuracies,
    check_bootstrap,
    class_accuracy,
    intervals,
    long_tail_groups,
)
from taghead.training.task import ClassificationTask
from taghead.video import Limits, VideoReader, uniform_indices

log = logging.getLogger(__name__)

MAX_CELL = 280  # pixels of a frame's longer side in the contact sheet, twice what is drawn
TITLES = {"top1": "Top-1", "top5": "Top-5", "mca": "MCA"}


class TestReport(Callback):
    """Writes the test report into a folder.

    Its files are `metrics.json`, `predictions.csv`, `per_class.csv`, `confusion_matrix.png` and
    `contact_sheet.png`. All numbers are of the same predictions as the logged accuracies.

    Args:
        folder: The folder; `test` in the run's folder when not given.
        head_above: Head classes have more training clips than this.
        tail_below: Tail classes have fewer training clips than this; the others are medium.
        num_resamples: Number of bootstrap resamples of the test clips.
        confidence: Confidence level of the intervals.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    __test__ = False  # not a test class for pytest

    def __init__(
        self,
        folder: str | None = None,
        head_above: int = 100,
        tail_below: int = 20,
        num_resamples: int = 2000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        long_tail_groups([], head_above, tail_below)
        check_bootstrap(num_resamples, confidence, seed)
        self.folder = folder
        self.thresholds = {"head_above": head_above, "tail_below": tail_below}
        self.bootstrap: dict[str, Any] = {
            "num_resamples": num_resamples,
            "confidence": confidence,
            "seed": seed,
        }

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task = cast(ClassificationTask, pl_module)
        run = trainer.log_dir or "."  # broadcast from the first rank: all ranks ask for it
        if not trainer.is_global_zero or not task.test_predictions.update_called:
            return
        folder = Path(self.folder or Path(run) / "test")
        data = trainer.datamodule  # type: ignore[attr-defined]
        predictions = task.test_predictions.compute()
        # of the checkpoint's own training, if it has them
        num_train = task.class_counts or data.class_counts()
        groups = long_tail_groups(num_train, **self.thresholds)
        metrics = summary(predictions, groups, **self.bootstrap)
        metrics["num_listed"] = data.counts("test")[1]
        clips, names = data.clips["test"], data.class_names
        table = predictions_table(clips, names, predictions)
        with atomic_folder(folder) as stage:  # the files appear once all are written
            table.to_csv(stage / "predictions.csv", index=False)
            by_class = class_table(names, predictions, num_train, groups)
            by_class.to_csv(stage / "per_class.csv", index=False)
            text = json_text(metrics, folder / "metrics.json", indent=2)
            (stage / "metrics.json").write_text(text + "\n")
            confusion_matrix(table, names, stage / "confusion_matrix.png")
            limits = data.preprocessing.limits
            contact_sheet(table, clips, stage / "contact_sheet.png", limits=limits)
        print(f"{headline(metrics)}. Written to {name_to_text(folder)}")


def summary(
    predictions: Predictions,
    groups: dict[str, np.ndarray],
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Metrics of a test as JSON can hold them: accuracies, their intervals, counts.

    Groups of classes without test clips are left out. An accuracy of no clips, and an interval of
    too few (:func:`~taghead.metrics.intervals`), is None.

    Args:
        predictions: The predictions.
        groups: The classes of each group, by its name, `[K]` bool.
        num_resamples: Number of bootstrap resamples of the clips.
        confidence: Confidence level of the intervals.
        seed: Seed of the bootstrap.
    """
    outcomes = predictions.outcomes()
    num_clips = outcomes.sum(axis=1)
    groups = {name: members for name, members in groups.items() if num_clips[members].any()}
    found = intervals(outcomes, groups, num_resamples, confidence, seed)
    return {
        **{name: _rounded(float(value)) for name, value in accuracies(outcomes, groups).items()},
        "num_clips": int(num_clips.sum()),
        "intervals": {
            name: ends and [round(end, 6) for end in ends] for name, ends in found.items()
        },
        "bootstrap": {
            **{"num_resamples": num_resamples, "confidence": confidence, "seed": seed},
            "min_clips": MIN_CLIPS,
        },
        "groups": {
            name: {
                "num_classes": int((num_clips[members] > 0).sum()),
                "num_clips": int(num_clips[members].sum()),
            }
            for name, members in groups.items()
        },
    }


def headline(metrics: dict[str, Any]) -> str:
    """The metrics in one line; groups of classes only if there are several."""
    names = dict(TITLES)
    if len(metrics["groups"]) > 1:
        names.update({name: f"{name} classes" for name in metrics["groups"]})
    parts = []
    for name, title in names.items():
        parts.append(f"{title} {_percent(metrics[name], metrics['intervals'][name])}")
    clips = f"{metrics['num_clips']} of {metrics['num_listed']} test clips"
    return f"{clips}: {', '.join(parts)}"


def _percent(accuracy: float | None, ends: Sequence[float] | None) -> str:
    """An accuracy with its interval, in percent."""
    if accuracy is None:
        return "of no clips"
    if ends is None:
        return f"{accuracy:.1%} [fewer than {MIN_CLIPS} clips]"
    low, high = (100 * end for end in ends)
    return f"{accuracy:.1%} [{low:.1f}, {high:.1f}]"


def _rounded(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return round(value, 6) if np.isfinite(value) else None


def predictions_table(
    clips: Sequence[Clip], class_names: Sequence[str], predictions: Predictions
) -> pd.DataFrame:
    """One row for each clip: id, file, class, predicted class, probabilities of both, rank.

    Args:
        clips: The clips of the split.
        class_names: The classes, in the order of the labels.
        predictions: The predictions.
    """
    clip_index, label, probabilities = predictions
    rows, best = np.arange(len(label)), predictions.ranking()[:, 0]
    names = np.array(class_names, dtype=object)
    return pd.DataFrame(
        {
            "clip": [name_to_text(clips[i].id) for i in clip_index],
            "path": [name_to_text(clips[i].path) for i in clip_index],
            "class": names[label],
            "predicted": names[best],
            "probability": probabilities[rows, best],
            "probability_of_class": probabilities[rows, label],
            "rank_of_class": predictions.rank(),
        },
        index=clip_index,
    )


def class_table(
    class_names: Sequence[str],
    predictions: Predictions,
    num_train: Sequence[int],
    groups: dict[str, np.ndarray],
) -> pd.DataFrame:
    """One row for each class: group, clips, accuracies, most frequent wrong prediction.

    Args:
        class_names: The classes, in the order of the labels.
        predictions: The predictions.
        num_train: Training clips of each class.
        groups: The classes of each group, by its name, `[K]` bool.
    """
    outcomes = predictions.outcomes()
    # mistakes [K, K], by class and predicted class
    mistakes = np.zeros((len(class_names),) * 2, np.int64)
    np.add.at(mistakes, (predictions.label, predictions.ranking()[:, 0]), 1)
    np.fill_diagonal(mistakes, 0)
    names, times = np.array(class_names, dtype=object), mistakes.max(axis=1)
    return pd.DataFrame(
        {
            "class": names,
            "group": np.select(list(groups.values()), list(groups), default=""),
            "num_train": num_train,
            "num_test": outcomes.sum(axis=1),
            "top1": class_accuracy(outcomes, 1).round(6),
            "top5": class_accuracy(outcomes, 5).round(6),
            "most_confused_with": np.where(times > 0, names[mistakes.argmax(axis=1)], ""),
            "times_confused": times,
        }
    )


def confusion_matrix(table: pd.DataFrame, class_names: Sequence[str], path: Path) -> None:
    """Draws the confusion matrix, each row normalised by the clips of its class."""
    labels = {name: label for label, name in enumerate(class_names)}
    predicted, label = (
        torch.tensor(table[column].map(labels).to_numpy()) for column in ("predicted", "class")
    )
    counts = multiclass_confusion_matrix(predicted, label, len(class_names)).numpy()
    matrix = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(40.0, 4 + 0.3 * len(class_names))  # inches
    figure = Figure(figsize=(size, size * 0.9), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(class_names)), class_names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(class_names)), class_names, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    figure.colorbar(image, label="part of the class's clips", shrink=0.7)
    figure.savefig(path, dpi=120)


def contact_sheet(
    table: pd.DataFrame,
    clips: Sequence[Clip],
    path: Path,
    num_rows: int = 12,
    num_frames: int = 8,
    limits: Limits = Limits(),  # noqa: B008, it is frozen
) -> None:
    """Draws frames of some clips, a row each, with their predictions; wrong ones are among them.

    At most half of the rows are wrong predictions, the most confident ones; the others are evenly
    spaced rows of the table.

    Args:
        table: The predictions (:func:`predictions_table`).
        clips: The clips of the split.
        path: The picture file.
        num_rows: Maximum number of clips.
        num_frames: Frames of each clip.
        limits: What a video file may ask for; a clip of a larger one is left out.
    """
    is_wrong = table["class"] != table["predicted"]
    wrong = table[is_wrong].sort_values("probability", ascending=False).head(num_rows // 2)
    right = table[~is_wrong]
    indices = np.linspace(0, len(right) - 1, min(num_rows - len(wrong), len(right))).astype(int)
    chosen = pd.concat([right.iloc[indices], wrong])
    rows = list(chosen[["class", "predicted", "probability"]].itertuples(name=None))
    figure = Figure(figsize=(1.4 * num_frames, 1.35 * len(rows)))
    spacing = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.97, "wspace": 0.03}
    axes = figure.subplots(len(rows), num_frames, squeeze=False, gridspec_kw=spacing)
    for strip, (index, name, predicted, probability) in zip(axes, rows, strict=True):
        for cell in strip:
            cell.set_axis_off()
        try:
            for cell, frame in zip(strip, _frames(clips[index], num_frames, limits), strict=True):
                cell.imshow(frame)
        except VideoError as error:  # a test of cached features, after the video was removed
            log.warning("the contact sheet lacks a clip: %s", error)
        verdict = "right" if name == predicted else f"wrong, it is {name}"
        strip[0].set_title(
            f"{predicted} ({probability:.0%}): {verdict}",
            loc="left",
            fontsize=9,
            parse_math=False,
            color="black" if name == predicted else "firebrick",
        )
    figure.savefig(path, dpi=100)


def _frames(clip: Clip, num_frames: int, limits: Limits) -> np.ndarray:
    """Frames of a clip, from its first to its last, `[num_frames, H, W, 3]`, small ones."""
    with VideoReader(clip.path, limits=limits) as reader:
        shown = range(len(reader)) if clip.segment is None else clip.segment.frames(reader)
        scale = min(1.0, MAX_CELL / max(reader.height, reader.width))
        size = max(1, round(scale * reader.height)), max(1, round(scale * reader.width))
        return reader.read(shown.start + uniform_indices(len(shown), num_frames), size)
