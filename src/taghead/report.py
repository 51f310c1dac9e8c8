"""What a test leaves behind: numbers, predictions clip by clip, and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from taghead.video import VideoReader, uniform_indices


class TestReport(Callback):
    """Writes a test's results into a folder.

    `metrics.json`, `predictions.csv`, `confusion_matrix.png` and `contact_sheet.png`.

    Args:
        folder: Where to; `test` in the run's folder when not given.
    """

    __test__ = False  # no test class, though its name begins like one

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.outputs: list[dict[str, Tensor]] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.outputs = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.outputs.append({name: value.cpu() for name, value in outputs.items()})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.outputs:
            return
        folder = Path(self.folder or Path(trainer.log_dir or ".") / "test")
        folder.mkdir(parents=True, exist_ok=True)
        data = trainer.datamodule  # type: ignore[attr-defined]
        joined = {name: torch.cat([out[name] for out in self.outputs]) for name in self.outputs[0]}
        table = predictions_table(data.clips["test"], data.class_names, **joined)
        table.to_csv(folder / "predictions.csv", index=False)
        metrics = {
            name.removeprefix("test/"): round(float(value), 6)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("test/") and not name.startswith("test/num_")
        }
        used, listed = len(table), data.counts("test")[1]
        summary = {**metrics, "num_clips": used, "num_listed": listed}
        (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
        confusion_matrix(table, data.class_names, folder / "confusion_matrix.png")
        contact_sheet(table, folder / "contact_sheet.png")
        print(
            f"{used} of {listed} test clips: Top-1 {metrics['top1']:.1%}, "
            f"Top-5 {metrics['top5']:.1%}, MCA {metrics['mca']:.1%}. Written to {folder}"
        )


def predictions_table(
    clips: Sequence[Any],
    class_names: Sequence[str],
    probabilities: Tensor,
    label: Tensor,
    index: Tensor,
) -> pd.DataFrame:
    """One row a clip: its path, class, predicted class and the probabilities of both.

    Shapes:
        - **probabilities** `[M, K]`, **label** `[M]`, **index** `[M]`
    """
    predicted = probabilities.argmax(dim=1)
    rows = torch.arange(len(label))
    return pd.DataFrame(
        {
            "path": [str(clips[i].path) for i in index.tolist()],
            "class": [class_names[i] for i in label.tolist()],
            "predicted": [class_names[i] for i in predicted.tolist()],
            "probability": probabilities[rows, predicted].tolist(),
            "probability_of_class": probabilities[rows, label].tolist(),
        }
    )


def confusion_matrix(table: pd.DataFrame, class_names: Sequence[str], path: Path) -> None:
    """Draws how often each class was taken for each other one, as a part of its clips."""
    numbers = {name: number for number, name in enumerate(class_names)}
    predicted, label = (
        torch.tensor(table[column].map(numbers).to_numpy()) for column in ("predicted", "class")
    )
    matrix = multiclass_confusion_matrix(predicted, label, len(class_names), normalize="true")
    size = min(40.0, 4 + 0.3 * len(class_names))  # inches
    figure = Figure(figsize=(size, size * 0.9), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(class_names)), class_names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(class_names)), class_names, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    figure.colorbar(image, label="part of the class's clips", shrink=0.7)
    figure.savefig(path, dpi=120)


def contact_sheet(
    table: pd.DataFrame, path: Path, num_clips: int = 12, num_frames: int = 8
) -> None:
    """Draws some clips, a row each, with what was predicted; wrong ones are among them if any.

    Half of the rows, at most, are mistakes, the most confident ones; the others are spread evenly
    over the table.
    """
    is_wrong = table["class"] != table["predicted"]
    wrong = table[is_wrong].sort_values("probability", ascending=False).head(num_clips // 2)
    right = table[~is_wrong]
    places = np.linspace(0, len(right) - 1, min(num_clips - len(wrong), len(right))).astype(int)
    rows = list(pd.concat([right.iloc[places], wrong]).itertuples(index=False, name=None))
    figure = Figure(figsize=(1.4 * num_frames, 1.35 * len(rows)))
    spacing = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 0.97, "wspace": 0.03}
    axes = figure.subplots(len(rows), num_frames, squeeze=False, gridspec_kw=spacing)
    for strip, (video, name, predicted, probability, _) in zip(axes, rows, strict=True):
        with VideoReader(video) as reader:
            frames = reader.read(uniform_indices(len(reader), num_frames))
        for cell, frame in zip(strip, frames, strict=True):
            cell.imshow(frame)
            cell.set_axis_off()
        verdict = "right" if name == predicted else f"wrong, it is {name}"
        strip[0].set_title(
            f"{predicted} ({probability:.0%}): {verdict}",
            loc="left",
            fontsize=9,
            parse_math=False,
            color="black" if name == predicted else "firebrick",
        )
    figure.savefig(path, dpi=100)
