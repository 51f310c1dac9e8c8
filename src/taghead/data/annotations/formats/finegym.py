"""Format `finegym`: splits as text files, times as JSON, class names as a category file."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from taghead.data.annotations.annotation_format import (
    AnnotationFormat,
    Arguments,
    Detection,
    detected,
)
from taghead.data.annotations.class_list import class_name_of
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.text_files import read_json, read_lines
from taghead.data.annotations.video_files import SUFFIXES
from taghead.errors import DataError
from taghead.video.segment import Segment

TIMES_NAME = "finegym_annotation_info_v1.1.json"
LINE = re.compile(  # a video has a bare name, which cannot leave the folder of videos
    r"(?P<video>[^\s/\\]+)_(?P<event>E_\d+_\d+)_(?P<element>A_\d+_\d+)\s+(?P<label>\d{1,9})"
)


def read_finegym(
    split_file: str | Path,
    root: str | Path,
    times: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> list[Clip]:
    """The clips of a split of Gym99 or Gym288, as segments of the long videos.

    The split file names an element a line, `<video>_E_<start>_<end>_A_<start>_<end> <class>`;
    the numbers in its name are whole seconds. The exact ones are in the JSON file: those of the
    event in the video, and those of each stage of the element (a vault has three, all others one)
    from the start of the event. So a clip lasts from the event's start plus the first stage's
    start to the event's start plus the last stage's end. Times have milliseconds.

    A video is `<root>/<video>.mp4`, or has the suffix of another video format.

    Args:
        split_file: Such as `gym99_train_element_v1.1.txt`.
        root: The folder of the long videos.
        times: The JSON file; `finegym_annotation_info_v1.1.json` beside the split file when not
            given.
        classes: The classes, by number, as `read_classes` has them from `gym99_categories.txt`;
            numbers are their names when not given.

    Raises:
        DataError: If a file cannot be read, a line is not like that, or an element is not in the
            JSON file. An element without any length is a clip with a fault.
    """
    split_file, root = Path(split_file), Path(root)
    times = Path(times) if times else split_file.with_name(TIMES_NAME)
    if not times.is_file():
        raise DataError(f"{times}: no such file: FineGym's JSON file of times is needed")
    videos = _Videos(root)
    annotation = read_json(times)
    clips = []
    for number, line in enumerate(read_lines(split_file), start=1):
        if not line.strip():
            continue
        match = LINE.fullmatch(line.strip())
        if not match:
            raise DataError(
                f"{split_file}: line {number}: not like <video>_E_0_9_A_0_9 <class> ({line!r})"
            )
        start, end = _span(times, annotation, match)
        label, fault = int(match["label"]), ""
        name = class_name_of(split_file, f"line {number}", label, classes)
        if not 0 <= start < end:
            fault = f"{match['event']} {match['element']} lasts from {start} s to {end} s"
        segment = None if fault else Segment(start, end)
        clips.append(Clip(videos.path(match["video"]), label, name, segment, fault=fault))
    if not clips:
        raise DataError(f"{split_file}: no clips in it")
    return clips


def categories_beside(split_file: str | Path) -> Path:
    """FineGym's category file, as `gym99_categories.txt`, if it lies beside the split file."""
    path = Path(split_file)
    return path.with_name(f"{path.name.split('_')[0]}_categories.txt")


def _span(times: Path, annotation: Any, match: re.Match[str]) -> tuple[float, float]:
    """Start and end of an element in its video, in seconds."""
    video, event, element = match["video"], match["event"], match["element"]
    where = f"{times}: {video}"
    found = _entry(where, _entry(str(times), annotation, video), event)
    part = _entry(
        f"{where}: {event}: segments", _entry(f"{where}: {event}", found, "segments"), element
    )
    (zero, _), *_ = _spans(f"{where}: {event}", found)
    stages = _spans(f"{where}: {event}: {element}", part)
    return round(zero + stages[0][0], 3), round(zero + stages[-1][1], 3)


def _entry(where: str, content: Any, key: str) -> Any:
    if not isinstance(content, Mapping) or key not in content:
        raise DataError(f"{where}: has no {key}")
    return content[key]


def _spans(where: str, entry: Any) -> list[tuple[float, float]]:
    spans = _entry(where, entry, "timestamps")
    try:
        pairs = [(float(start), float(end)) for start, end in spans]
    except (TypeError, ValueError, OverflowError):
        pairs = []
    if not pairs or not all(map(math.isfinite, itertools.chain(*pairs))):
        raise DataError(f"{where}: timestamps must be pairs of seconds (got {spans!r})")
    return pairs


class _Videos:
    """The files of a folder by their names without suffix."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, Path] = {}
        for path in sorted(root.iterdir()) if root.is_dir() else []:
            if path.suffix.lower() in SUFFIXES:
                other = self.found.setdefault(path.stem, path)
                if other != path:
                    raise DataError(f"{path}: there is also {other.name}: keep one of them")

    def path(self, video: str) -> Path:
        """The file of a video; where it ought to be, if it is not there."""
        return self.found.get(video, self.root / f"{video}.mp4")


class FineGym(AnnotationFormat):
    """FineGym (Gym99 and Gym288): see :func:`read_finegym`."""

    name = "finegym"
    arguments = AnnotationFormat.arguments | {"times"}

    def detect(self, root: Path, source: str | None) -> Detection:
        if source is None or not Path(source).is_file():
            return detected(False)
        if Path(source).suffix.lower() in (".csv", ".json"):
            return detected(False)
        lines = (line.strip() for line in read_lines(Path(source)))
        return detected(bool(LINE.fullmatch(next(filter(None, lines), ""))))

    def class_list(self, arguments: Arguments) -> str | None:
        published = categories_beside(arguments.files["train"])
        return arguments.classes or (str(published) if published.is_file() else None)

    def read_split(
        self, split: Split, source: str, arguments: Arguments, classes: list[str] | None
    ) -> list[Clip]:
        times = arguments.times or Path(arguments.files["train"]).with_name(TIMES_NAME)
        return read_finegym(source, arguments.root, times, classes)


FORMAT = FineGym()
