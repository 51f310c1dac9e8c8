"""Format `diving48`: a JSON list of clips for each split, and a JSON list of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from taghead.data.annotations.annotation_format import (
    AnnotationFormat,
    Arguments,
    Detection,
    detected,
)
from taghead.data.annotations.class_list import class_name_of
from taghead.data.annotations.class_table import MAX_DIGITS
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.clip_path import clip_path
from taghead.data.annotations.text_files import read_json
from taghead.errors import DataError
from taghead.video.segment import Segment

CLASSES_NAME = "Diving48_vocab.json"


def read_diving48(
    json: str | Path,
    root: str | Path,
    classes: Sequence[str] | None = None,
    outside_root: bool = False,
) -> list[Clip]:
    """The clips of a split of `Diving48 <http://www.svcl.ucsd.edu/projects/resound/dataset.html>`_.

    The file, such as `Diving48_V2_train.json`, lists `vid_name`, `label`, `start_frame` and
    `end_frame`. Each dive is released as a file of its own, `<root>/<vid_name>.mp4`. The frame
    numbers count in that file, not in the broadcast that it was cut from, for dives that follow
    one another in a broadcast both start at 0: `-mmq0PT-u8k_00155` lasts from 0 to 48,
    `-mmq0PT-u8k_00156` from 0 to 70. So a clip that starts at 0 is the whole file, as other readers
    of the dataset take it, and `end_frame` is its listed number of frames, to be compared and not
    relied on; one that starts later is a segment.

    Args:
        json: The annotation file.
        root: The folder of videos.
        classes: The classes, by number, as `read_classes` has them from `Diving48_vocab.json`;
            numbers are their names when not given.
        outside_root: Whether a video may lie outside `root`.

    Raises:
        DataError: If the file cannot be read, or an entry of it is not like that.
    """
    path, root = Path(json), Path(root)
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: must be a JSON list of clips")
    return [
        _clip(path, number, entry, partial(clip_path, root, outside_root=outside_root), classes)
        for number, entry in enumerate(entries)
    ]


def is_diving48(content: Any) -> bool:
    """Whether JSON is a list of Diving48's clips."""
    return (
        isinstance(content, list)
        and len(content) > 0
        and isinstance(content[0], dict)
        and {"vid_name", "label"} <= content[0].keys()
    )


def _clip(
    path: Path,
    number: int,
    entry: Any,
    video: Callable[[str, str], Path],
    classes: Sequence[str] | None,
) -> Clip:
    where = f"entry {number}"
    if not isinstance(entry, dict):
        raise DataError(f"{path}: {where}: must be an object (got {entry!r})"[:500])
    name, label = entry.get("vid_name"), entry.get("label", -1)
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: {where}: vid_name must be a name (got {name!r})")
    if not _is_count(label):
        raise DataError(f"{path}: {where} ({name}): label must be a number (got {label!r})")
    start, end = entry.get("start_frame", 0), entry.get("end_frame")
    if not _is_count(start) or not (end is None or (_is_count(end) and end > start)):
        raise DataError(
            f"{path}: {where} ({name}): start_frame and end_frame must be frames, one after the "
            f"other (got {start!r} and {end!r})"
        )
    segment = Segment(start, end, "frame") if start else None
    frames = None if start else end
    class_name = class_name_of(path, where, label, classes)
    return Clip(video(f"{name}.mp4", f"{path}: {where}"), label, class_name, segment, frames)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**MAX_DIGITS


class Diving48(AnnotationFormat):
    """Diving48: see :func:`read_diving48`."""

    name = "diving48"

    def detect(self, root: Path, source: str | None) -> Detection:
        if source is None or Path(source).suffix.lower() != ".json":
            return detected(False)
        return detected(
            is_diving48(read_json(Path(source))),
            "not a list of clips with vid_name and label, as of Diving48",
        )

    def class_list(self, arguments: Arguments) -> str | None:
        published = Path(arguments.files["train"]).with_name(CLASSES_NAME)
        return arguments.classes or (str(published) if published.is_file() else None)

    def read_split(
        self, split: Split, source: str, arguments: Arguments, classes: list[str] | None
    ) -> list[Clip]:
        return read_diving48(source, arguments.root, classes, arguments.outside_root)


FORMAT = Diving48()
