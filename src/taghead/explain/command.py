"""The command `taghead explain`."""

from __future__ import annotations

import difflib
import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text
from torch_geometric.nn import MessagePassing

from taghead.attention.weights import check_attentive
from taghead.errors import DataError, VideoError
from taghead.explain.explanation import ClipExplanation, explain_clip, to_numbers
from taghead.explain.overlay import write_overlay
from taghead.explain.page import Entry, write_index, write_page
from taghead.explain.panels import Choice, compare_clips, draw_clip
from taghead.explain.view import see
from taghead.files import atomic_folder
from taghead.inference.predictor import checked_device, load_model, raise_failed
from taghead.model.classifier import VideoClassifier

Format = Literal["png", "pdf", "svg"]
COMPARED = 3  # clips in the picture that compares them, at most


def explain(
    videos: list[str],
    model: str,
    output: str = "runs/explain",
    target: str | None = None,
    view: int = 0,
    layer: int | None = None,
    head: int | None = None,
    relation: str | None = None,
    edges: int = 12,
    draws: int = 10,
    formats: list[Format] | None = None,
    device: str = "auto",
    modules: list[str] | None = None,
) -> None:
    """Shows what a model attended to in video files: numbers, pictures, a video and a page.

    One clip's files lie in the output folder, those of several in a folder each, beside an index
    page and a picture that compares them.

    Args:
        videos: The video files.
        model: A training checkpoint, or a folder that `save_pretrained` wrote.
        output: The folder of the results.
        target: The class to explain, by name; each clip's predicted one if not given.
        view: Which of the views that a test averages over.
        layer: The message-passing layer whose edges are drawn; all of them if not given. The page
            begins with it.
        head: The attention head whose edges are drawn; the mean over them if not given.
        relation: The relation whose edges are drawn; all of them if not given.
        edges: How many edges of each relation are drawn.
        draws: Random orders of edges that the attention's ranking is compared with. The graph part
            runs 22 times for each, and for the ranking itself; 0 leaves the comparison out.
        formats: Files of each picture: `png`, `pdf`, `svg`; PNG and PDF if not given.
        device: Where the model runs: `auto`, `cpu`, `cuda`, ...
        modules: Python modules to import first: where operators of your own are defined.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If the model or a video cannot be read; all other videos are explained first.
    """
    device = checked_device(device)
    for module in modules or []:
        importlib.import_module(module)
    classifier = load_model(model).to(device)
    _check_attention(classifier, model)
    choice = Choice(layer, head, relation, edges, tuple(formats or ("png", "pdf")))
    choice = choice.checked(classifier.head)
    if not isinstance(draws, int) or draws < 0 or draws == 1:
        raise ValueError(f"draws must be 0, or an integer of at least 2 (got {draws})")
    task = _Task(classifier, model, _target(classifier, target), view, choice, draws, device)
    folders = _folders(videos, Path(output))
    entries: list[Entry] = []
    compared: list[ClipExplanation] = []
    for video, folder in zip(videos, folders, strict=True):
        try:
            found = task.run(video, folder)
        except VideoError as error:
            entries.append(Entry(video, folder.name, error=str(error)))
            continue
        entries.append(Entry(video, folder.name, found))
        _tell(found, folder)
        if len(compared) < COMPARED:
            compared.append(found)
    if len(videos) > 1:
        with atomic_folder(Path(output)) as stage:
            if len(compared) > 1:
                compare_clips(compared, classifier.head, choice, stage / "comparison")
            pictures = [file.name for file in sorted(stage.iterdir())]
            write_index(entries, stage / "index.html", pictures)
        print(f"all clips: {Path(output) / 'index.html'}")
    raise_failed([entry.error for entry in entries])


@dataclass(frozen=True)
class _Task:
    """What is done with every clip."""

    model: VideoClassifier
    source: str
    target: int | None
    view: int
    choice: Choice
    draws: int
    device: str

    def run(self, video: str, folder: Path) -> ClipExplanation:
        """Explains one clip; its files appear when all are written."""
        preprocessing = self.model.preprocessing
        assert preprocessing is not None  # load_model sees to it
        clip = see(video, preprocessing, self.view)
        found = explain_clip(self.model, clip, self.target, draws=self.draws, device=self.device)
        numbers = to_numbers(found, self.source)
        with atomic_folder(folder) as stage:
            text = json.dumps(numbers, ensure_ascii=False, allow_nan=False)
            (stage / "attention.json").write_text(text + "\n", encoding="utf-8")
            write_page(found, numbers, self.choice, stage / "page.html")
            write_overlay(found, stage / "overlay.mp4")
            draw_clip(found, self.model.head, self.choice, stage)
        return found


def _check_attention(model: VideoClassifier, source: str) -> None:
    """Refuses a head whose operators have no attention to show.

    Raises:
        DataError: If there is one; the message lists those that have.
    """
    try:
        for conv in model.head.layers.modules():
            if isinstance(conv, MessagePassing):
                check_attentive(conv)
    except ValueError as error:
        reason = str(error).removeprefix("return_attention: ")
        raise DataError(f"{source}: {reason}") from error


def _target(model: VideoClassifier, name: str | None) -> int | None:
    if name is None:
        return None
    names = model.class_names or [str(i) for i in range(model.head.num_classes)]
    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name, names, n=3) or names[:3]
    raise ValueError(
        f"target must be one of the model's {len(names)} classes, such as {', '.join(near)} "
        f"(got {name!r})"
    )


def _folders(videos: list[str], output: Path) -> list[Path]:
    """A folder for each clip, by its name in letters that every system takes; none twice."""
    if len(videos) == 1:
        return [output]
    folders: list[Path] = []
    for video in videos:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(video).stem).strip("._-")[:80] or "clip"
        name, number = stem, 2
        taken = {folder.name.lower() for folder in folders}
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        folders.append(output / name)
    return folders


def _tell(found: ClipExplanation, folder: Path) -> None:
    probability = float(found.probabilities[found.predicted])
    line = f"{found.clip.path}: {found.class_names[found.predicted]} ({probability:.1%})"
    Console(soft_wrap=True).print(Text(f"{line}: {folder / 'page.html'}"))
