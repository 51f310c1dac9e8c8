"""Predictions for video files: their most probable classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from taghead.class_paths import allow_modules
from taghead.data.isolated_reader import failure_text, read_here, read_isolated
from taghead.errors import DataError, VideoError, raise_failed
from taghead.files import json_text, line_writer, name_to_text
from taghead.model.classifier import VideoClassifier
from taghead.model.pretrained import as_device, load_model
from taghead.video.limits import Limits


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
        """One line of JSON; the video's name as :func:`~taghead.files.name_to_text` has it."""
        video = name_to_text(self.video)
        if self.error is not None:
            return json_text({"video": video, "error": name_to_text(self.error)}, video)
        classes = [{"class": name, "probability": round(p, 6)} for name, p in self.classes]
        return json_text({"video": video, "classes": classes}, video)


@torch.inference_mode()
def predict_videos(
    model: VideoClassifier,
    videos: Sequence[str | Path],
    top: int = 5,
    device: str = "cpu",
    isolated: bool = False,
    timeout_sec: float = 300.0,
) -> Iterator[Prediction]:
    """Predicts videos one by one; one that fails, however it does, gives one with its error.

    Args:
        model: A model with preprocessing; it is set to evaluation. Classes without names are
            numbered.
        videos: The video files.
        top: Number of classes for each video.
        device: The device that the model is moved to.
        isolated: Whether a process of its own decodes, one video ahead; else a decoder's crash
            ends this process.
        timeout_sec: How long decoding a video may take in a process of its own.

    Raises:
        ValueError: If the model has no preprocessing.
    """
    preprocessing = model.preprocessing
    if preprocessing is None:
        raise ValueError("model must have preprocessing (got None)")
    class_names = model.class_names or [str(i) for i in range(model.head.num_classes)]
    model = model.eval().to(device)
    load, names = preprocessing.load_views, [str(video) for video in videos]
    read = read_isolated(load, names, timeout_sec) if isolated else read_here(load, names)
    with closing(read):
        for video, views in read:
            try:
                if isinstance(views, DataError):
                    raise views
                probabilities = model.probabilities(views.unsqueeze(0).to(device))[0]
                if not probabilities.isfinite().all():
                    raise VideoError(f"{video}: the model's logits are not finite")
            except Exception as error:  # memory, nesting, libraries' own: the next video follows
                yield Prediction(video, error=failure_text(video, error))
                continue
            best = probabilities.topk(min(top, len(probabilities)))
            classes = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            yield Prediction(video, tuple((class_names[i], p) for i, p in classes))


def predict(
    videos: list[str],
    model: str,
    top: int = 5,
    format: Literal["table", "jsonl"] = "table",
    output: str | None = None,
    device: str = "auto",
    isolated: bool = True,
    timeout_sec: float = 300.0,
    modules: list[str] | None = None,
    limits: Limits = Limits(),  # noqa: B008, it is frozen
) -> None:
    """Prints the most probable classes of video files, each as soon as it is predicted.

    Args:
        videos: The video files.
        model: A training checkpoint, or a folder that `save_pretrained` wrote.
        top: Number of classes for each video.
        format: `table`, or `jsonl` for one line of JSON for each video.
        output: A file for the JSON lines. It takes its place when all videos are done; until then
            its lines are in `<output>.partial-<process id>`, and stay there if the command stops.
        device: Where the model runs: `auto`, `cpu`, `cuda`, ...
        isolated: Whether a process of its own decodes, so that a video at which the decoder
            crashes is reported like any other that cannot be read.
        timeout_sec: How long decoding a video may take in that process.
        modules: Python modules to import first: where operators of your own are defined.
        limits: What a video file may ask for; a larger one is refused.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If the model or a video cannot be read; all other videos are predicted first.
    """
    if top < 1:
        raise ValueError(f"top must be a positive integer (got {top})")
    if not 0 < timeout_sec < float("inf"):
        raise ValueError(f"timeout_sec must be positive (got {timeout_sec})")
    device = as_device(device)
    allow_modules(modules or [])
    errors: list[str | None] = []
    with line_writer(output) if output else nullcontext() as write:
        loaded = load_model(model, limits)
        for prediction in predict_videos(loaded, videos, top, device, isolated, timeout_sec):
            if write is not None:
                write(prediction.to_json())
            if format == "jsonl":
                print(prediction.to_json(), flush=True)
            else:
                print_table([prediction], header=not errors)
            errors.append(prediction.error)
    raise_failed(errors)


def print_table(predictions: Iterable[Prediction], header: bool = True) -> None:
    """Prints predictions as a table as wide as the terminal, so that another one fits below it."""
    table = Table(expand=True, show_header=header)
    for name, ratio in (("video", 3), ("class", 2)):
        table.add_column(name, overflow="fold", ratio=ratio)
    table.add_column("probability", width=len("probability"))
    for prediction in predictions:
        if prediction.error:
            table.add_row(Text(name_to_text(prediction.video)), "cannot be predicted", "")
        for rank, (name, probability) in enumerate(prediction.classes):
            video = Text("" if rank else name_to_text(prediction.video))
            table.add_row(video, Text(name), f"{probability:.1%}")
        table.add_section()
    Console().print(table)
