"""Reads the annotations of a dataset in any format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from taghead.data.annotations.annotation_format import (
    AnnotationFormat,
    Annotations,
    Arguments,
    Certainty,
)
from taghead.data.annotations.clip import Split
from taghead.data.annotations.formats import FORMATS
from taghead.errors import DataError

if TYPE_CHECKING:
    Format = str
else:
    Format = Literal[("auto", *FORMATS)]  # the command line lists the choices
"""`auto`, or the name of a format."""


def read_annotations(
    root: str | Path,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    format: Format = "auto",
    classes: str | None = None,
    times: str | None = None,
    outside_root: bool = False,
) -> Annotations:
    """Reads what a dataset lists.

    ============= ================================ ===========================================
    format        `train`, `val`, `test`           a clip lies at
    ============= ================================ ===========================================
    `reference`   CSV `FileName,Class,...`         `<root>/<Class>/<FileName>`
    `plain`       CSV `path,label[,start_sec,...]` `<root>/<path>`, or a part of it
    `folders`     folders in root; none are needed `<root>/train/<class>/<file>`
    `haa500`      none                             `<root>/<class>/<class>_<000 to 019>.mp4`
    `finegym`     `gym99_train_element_v1.1.txt`   a part of `<root>/<video>.mp4`
    `diving48`    `Diving48_V2_train.json`         `<root>/<vid_name>.mp4`
    ============= ================================ ===========================================

    Args:
        root: The folder of videos.
        train: What lists the training split. It names the classes, unless `classes` does.
        val: What lists the validation split, if there is one.
        test: What lists the test split, if there is one.
        format: One of the table, or `auto` for the one that the files are in without doubt.
        classes: A class list (`read_classes`). For FineGym and Diving48 it is the one beside
            `train` when not given.
        times: FineGym's JSON file of times; the one beside `train` when not given.
        outside_root: Whether annotations may name videos outside `root`, by `..` or an absolute
            path.

    Raises:
        DataError: If a file cannot be used, if the format is not certain, or if a class of another
            split is not one of training.
        ValueError: If there is no such format, or an argument is not for the format.
    """
    if format not in ("auto", *FORMATS):
        raise ValueError(f"format must be one of auto, {', '.join(FORMATS)} (got {format!r})")
    given: dict[Split, str | None] = {"train": train, "val": val, "test": test}
    files = {split: source for split, source in given.items() if source}
    arguments = Arguments(Path(root), files, classes, times, outside_root)
    if not arguments.root.is_dir():
        raise DataError(f"{root}: no such folder of videos")
    if format == "auto":
        format = detect_format(root, list(arguments.files.values()))
    chosen = FORMATS[format]
    for name, value in [*given.items(), ("classes", classes), ("times", times)]:
        if value and name not in chosen.arguments:
            takers = ", ".join(one.name for one in FORMATS.values() if name in one.arguments)
            raise ValueError(f"{name} is not for format {format} (only for {takers})")
    return chosen.read(arguments)


def detect_format(root: str | Path, sources: list[str]) -> str:
    """The name of a dataset's format, by what its files hold.

    Args:
        root: The folder of videos.
        sources: What lists the splits; may be empty.

    Raises:
        DataError: If it is not certain.
    """
    if not sources:
        return _detect(Path(root), None).name
    found = {source: _detect(Path(root), source).name for source in sources}
    (first, one), *others = found.items()
    for source, other in others:
        if other != one:
            raise DataError(f"{source}: has the format {other}, but {first} has {one}")
    return one


def _detect(root: Path, source: str | None) -> AnnotationFormat:
    """The one format that is the most certain."""
    if source is not None and not Path(source).is_file() and not (root / source).is_dir():
        raise DataError(f"{source}: no such annotation file")
    detections = {name: one.detect(root, source) for name, one in FORMATS.items()}
    most = max(detection.certainty for detection in detections.values())
    reasons = [detection.reason for detection in detections.values() if detection.reason]
    if most == Certainty.NO:
        why = f": {'; '.join(reasons)}" if reasons else ""
        raise DataError(f"{source or root}: in none of the formats {', '.join(FORMATS)}{why}")
    names = [name for name, one in detections.items() if one.certainty == most]
    if len(names) > 1:
        which = " or ".join(f"format={name}" for name in names)
        why = "; ".join(reasons) or f"may be {' or '.join(names)}"
        raise DataError(f"{source or root}: {why}: say {which}")
    return FORMATS[names[0]]
