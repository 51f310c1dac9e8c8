"""Predictions for video files: their most probable classes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from taghead.errors import VideoError, raise_failed
from taghead.model.classifier import VideoClassifier
from taghead.model.pretrained import as_device, load_model


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one video, or the error that made it unreadable.

    Args:
        video: The video file.
        classes: Class names and probabilities, the most probable first.
        error: Why the video could not be read.
    """

    video: str
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        if self.error is not None:
            return json.dumps({"video": self.video, "error": self.error})
        classes = [{"class": name, "probability": round(p, 6)} for name, p in self.classes]
        return json.dumps({"video": self.video, "classes": classes}, allow_nan=False)


@torch.inference_mode()
def predict_videos(
    model: VideoClassifier, videos: Sequence[str | Path], top: int = 5, device: str = "cpu"
) -> Iterator[Prediction]:
    """Predicts videos one by one; an unreadable one gives a prediction with its error.

    Args:
        model: A model with preprocessing; it is set to evaluation. Classes without names are
            numbered.
        videos: The video files.
        top: Number of classes for each video.
        device: The device that the model is moved to.

    Raises:
        ValueError: If the model has no preprocessing.
    """
    preprocessing = model.preprocessing
    if preprocessing is None:
        raise ValueError("model must have preprocessing (got None)")
    class_names = model.class_names or [str(i) for i in range(model.head.num_classes)]
    model = model.eval().to(device)
    for video in videos:
        try:
            views = preprocessing.load_views(video)
        except VideoError as error:
            yield Prediction(str(video), error=str(error))
            continue
        probabilities = model.probabilities(views.unsqueeze(0).to(device))[0]
        if not probabilities.isfinite().all():
            yield Prediction(str(video), error=f"{video}: the model's logits are not finite")
            continue
        best = probabilities.topk(min(top, len(probabilities)))
        classes = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        yield Prediction(str(video), tuple((class_names[i], p) for i, p in classes))


def predict(
    videos: list[str],
    model: str,
    top: int = 5,
    format: Literal["table", "jsonl"] = "table",
    output: str | None = None,
    device: str = "auto",
    modules: list[str] | None = None,
) -> None:
    """Prints the most probable classes of video files.

    Args:
        videos: The video files.
        model: A training checkpoint, or a folder that `save_pretrained` wrote.
        top: Number of classes for each video.
        format: `table`, or `jsonl` for one line of JSON for each video.
        output: A file for the JSON lines.
        device: Where the model runs: `auto`, `cpu`, `cuda`, ...
        modules: Python modules to import first: where operators of your own are defined.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If the model or a video cannot be read; all other videos are predicted first.
    """
    if top < 1:
        raise ValueError(f"top must be a positive integer (got {top})")
    device = as_device(device)
    if output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Path(output).touch()
    for module in modules or []:
        importlib.import_module(module)
    predictions = []
    for prediction in predict_videos(load_model(model), videos, top, device):
        predictions.append(prediction)
        if format == "jsonl":
            print(prediction.to_json(), flush=True)
    if format == "table":
        print_table(predictions)
    if output:
        Path(output).write_text("".join(f"{p.to_json()}\n" for p in predictions))
    raise_failed([prediction.error for prediction in predictions])


def print_table(predictions: Sequence[Prediction]) -> None:
    """Prints predictions as a table."""
    table = Table()
    for name in ("video", "class"):
        table.add_column(name, overflow="fold")
    table.add_column("probability")
    for prediction in predictions:
        if prediction.error:
            table.add_row(Text(prediction.video), "cannot be read", "")
        for rank, (name, probability) in enumerate(prediction.classes):
            video = Text("" if rank else prediction.video)
            table.add_row(video, Text(name), f"{probability:.1%}")
        table.add_section()
    Console().print(table)
