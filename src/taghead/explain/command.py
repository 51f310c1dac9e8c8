"""The command `taghead explain`: attention of a model on video files, as files and a page."""

from __future__ import annotations

import difflib
import re
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text
from torch_geometric.nn import MessagePassing

from taghead.attention.weights import check_attentive
from taghead.class_paths import allow_modules
from taghead.data.isolated_reader import read_isolated
from taghead.errors import DataError, VideoError, raise_failed
from taghead.explain.clip_explanation import ClipExplanation, explain_clip
from taghead.explain.clip_view import ClipView, check_view, load_view
from taghead.explain.overlay import write_overlay
from taghead.explain.page.clip_page import write_page
from taghead.explain.page.index_page import PageEntry, write_index
from taghead.explain.plots.clip_figures import compare_clips, write_figures
from taghead.explain.selection import Selection
from taghead.files import atomic_folder, json_text
from taghead.model.classifier import VideoClassifier
from taghead.model.pretrained import as_device, load_model
from taghead.video.limits import Limits

PictureFormat = Literal["png", "pdf", "svg"]
READ_SEC = 300.0  # reading a clip may take so long
MAX_COMPARED = 3  # clips in the picture that compares clips


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
    formats: list[PictureFormat] | None = None,
    device: str = "auto",
    modules: list[str] | None = None,
    limits: Limits = Limits(),  # noqa: B008, it is frozen
) -> None:
    """Explains predictions by attention: JSON, pictures, a video and an interactive page.

    The files of a single clip go to the output folder. Several clips have a folder each, beside an
    index page and a picture that compares them.

    Args:
        videos: The video files.
        model: A training checkpoint, or a folder that `save_pretrained` wrote.
        output: The folder of the results.
        target: The class to explain, by name; each clip's predicted one if not given.
        view: Index of the view, among those that a test averages over.
        layer: The message-passing layer whose edges are drawn; all of them if not given. The page
            shows it first.
        head: The attention head whose edges are drawn; the mean over them if not given.
        relation: The relation whose edges are drawn; all of them if not given.
        edges: Number of edges of each relation that are drawn.
        draws: Number of random orders of edges that the attention's order is compared with. Each
            order, attention's included, takes 22 runs of the graph part; 0 leaves the curves out.
        formats: File formats of each picture: `png`, `pdf`, `svg`; PNG and PDF if not given.
        device: Where the model runs: `auto`, `cpu`, `cuda`, ...
        modules: Python modules to import first: where operators of your own are defined.
        limits: What a video file may ask for; a larger one is refused.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If the model or a video cannot be read; all other videos are explained first.
    """
    device = as_device(device)
    allow_modules(modules or [])
    classifier = load_model(model, limits).to(device)
    _check_attention(classifier, model)
    selection = Selection(layer, head, relation, edges, tuple(formats or ("png", "pdf")))
    selection = selection.checked(classifier.head)
    if not isinstance(draws, int) or draws < 0 or draws == 1:
        raise ValueError(f"draws must be 0, or an integer of at least 2 (got {draws})")
    target_index = _target_index(classifier, target)
    preprocessing = classifier.preprocessing
    assert preprocessing is not None  # load_model refuses such a model
    check_view(preprocessing, view)
    load = partial(load_view, preprocessing=preprocessing, view=view)
    writer = _ExplanationWriter(classifier, model, target_index, selection, draws, device)
    folders = _folders(videos, Path(output))
    entries: list[PageEntry] = []
    compared: list[ClipExplanation] = []
    with closing(read_isolated(load, videos, READ_SEC)) as clips:
        for (video, clip), folder in zip(clips, folders, strict=True):
            try:
                if isinstance(clip, DataError):
                    raise VideoError(str(clip))
                explanation = writer.write(clip, folder)
            except VideoError as error:
                entries.append(PageEntry(video, folder.name, error=str(error)))
                continue
            entries.append(PageEntry(video, folder.name, explanation))
            if explanation.rollout is None and not compared:
                print(f"{model}: rollout is left out: {explanation.attention.no_rollout}")
            _print_prediction(explanation, folder)
            if len(compared) < MAX_COMPARED:
                compared.append(explanation)
    if len(videos) > 1:
        with atomic_folder(Path(output)) as stage:
            if len(compared) > 1:
                compare_clips(compared, classifier.head, selection, stage / "comparison")
            pictures = [file.name for file in sorted(stage.iterdir())]
            write_index(entries, stage / "index.html", pictures)
        print(f"all clips: {Path(output) / 'index.html'}")
    raise_failed([entry.error for entry in entries])


@dataclass(frozen=True)
class _ExplanationWriter:
    """Explains clips, one after another, and writes the files of each."""

    model: VideoClassifier
    source: str
    target: int | None
    selection: Selection
    draws: int
    device: str

    def write(self, clip: ClipView, folder: Path) -> ClipExplanation:
        """Explains one clip; its files appear once all are written."""
        explanation = explain_clip(
            self.model, clip, self.target, draws=self.draws, device=self.device
        )
        content = explanation.to_dict(self.source)
        with atomic_folder(folder) as stage:
            text = json_text(content, folder / "attention.json", ensure_ascii=False)
            (stage / "attention.json").write_text(text + "\n", encoding="utf-8")
            write_page(explanation, content, self.selection, stage / "page.html")
            write_overlay(explanation, stage / "overlay.mp4")
            write_figures(explanation, self.model.head, self.selection, stage)
        return explanation


def _check_attention(model: VideoClassifier, source: str) -> None:
    """Refuses a model with an operator that has no attention weights.

    Raises:
        DataError: With the operators that have.
    """
    try:
        for conv in model.head.layers.modules():
            if isinstance(conv, MessagePassing):
                check_attentive(conv)
    except ValueError as error:
        reason = str(error).removeprefix("return_attention: ")
        raise DataError(f"{source}: {reason}") from error


def _target_index(model: VideoClassifier, name: str | None) -> int | None:
    """The index of a class name, if one is given."""
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
    """A distinct folder for each clip, named after it in characters that every system allows."""
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


def _print_prediction(explanation: ClipExplanation, folder: Path) -> None:
    """Prints the clip, its predicted class and where its page is."""
    predicted = explanation.predicted
    probability = float(explanation.probabilities[predicted])
    line = f"{explanation.clip.path}: {explanation.class_names[predicted]} ({probability:.1%})"
    Console(soft_wrap=True).print(Text(f"{line}: {folder / 'page.html'}"))
