"""Format `plain`: CSV files `path,label`, or `path,label,start_sec,end_sec`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from taghead.data.annotations.annotation_format import (
    AnnotationFormat,
    Arguments,
    Detection,
    detected,
)
from taghead.data.annotations.class_list import class_names, class_numbers
from taghead.data.annotations.class_table import HEADERS, class_number
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.clip_path import clip_path
from taghead.data.annotations.text_files import check_columns, first_row, read_csv
from taghead.errors import DataError
from taghead.video.segment import Segment

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "label", "start_sec", "end_sec")
_PATH_HEADERS = frozenset(
    ["path", "file", "filename", "file_name", "video", "video_id", "video_path", "clip"]
)


def read_plain(
    csv: str | Path,
    root: str | Path,
    classes: Sequence[str] | None = None,
    outside_root: bool = False,
) -> list[Clip]:
    """The clips of a plain CSV file.

    A path is relative to `root`, or absolute. A label is a class's name, or its number if every
    label of the file is a number and not all `classes` are. Without a start, a clip is the whole
    file; without an end, it goes on to the end of the file.

    Args:
        csv: The annotation file. Its first line may name the columns, in any order and case;
            without such a line they are path, label, start_sec, end_sec.
        root: The folder of videos.
        classes: The classes, by number. Without them, numbers are those of the file, and names
            are numbered in the order of the alphabet.
        outside_root: Whether a video may lie outside `root`.

    Raises:
        DataError: If the file cannot be read, lacks a value, has another column or a header of
            other names, or a time, a label or a path in it cannot be.
    """
    csv, root = Path(csv), Path(root)
    table = _read(csv)
    names, numbers = _labels(csv, table["label"].tolist(), classes)
    return [
        Clip(
            clip_path(root, path, f"{csv}: line {line}", outside_root),
            numbers[name],
            name,
            _segment(csv, line, start, end),
        )
        for line, path, name, start, end in zip(
            table.index, table["path"], names, table["start_sec"], table["end_sec"], strict=True
        )
    ]


def has_header(row: Sequence[str]) -> bool:
    """Whether a row names the columns, in any case."""
    return {"path", "label"} <= {value.casefold() for value in row}


def _read(csv: Path) -> pd.DataFrame:
    header = csv.is_file() and has_header(first_row(csv))
    table = read_csv(csv, header)
    if header:
        table = table.rename(columns=lambda column: column.strip().casefold())
        if not table.columns.is_unique:
            raise DataError(f"{csv}: line 1: two columns have the same name")
        unknown = [column for column in table if column not in COLUMNS]
        if unknown:
            raise DataError(
                f"{csv}: column {unknown[0]!r} is unknown (there are {', '.join(COLUMNS)})"
            )
    elif len(table.columns) in (2, 4):
        table = table.set_axis(COLUMNS[: len(table.columns)], axis=1)
    else:
        raise DataError(f"{csv}: must have 2 or 4 columns (got {len(table.columns)})")
    table = table.apply(lambda column: column.str.strip())
    table = table.assign(**{name: "" for name in COLUMNS if name not in table})
    check_columns(csv, table, COLUMNS, filled=("path", "label"))
    if not header:
        _check_no_header(csv, table)
    return table


def _check_no_header(csv: Path, table: pd.DataFrame) -> None:
    """Refuses a first line that looks like a header of other names, which would be a clip."""
    (path, label), others = table.iloc[0][["path", "label"]], table.iloc[1:]
    named = path.casefold() in _PATH_HEADERS or label.casefold() in HEADERS
    numbered = class_number(label) is None and others["label"].map(class_number).notna().all()
    suffixed = not Path(path).suffix and others["path"].map(lambda p: bool(Path(p).suffix)).all()
    if named or (len(others) and (numbered or suffixed)):
        raise DataError(
            f"{csv}: line {table.index[0]}: looks like a header ({path},{label}), not like a clip: "
            f"a header names path and label"
        )


def _labels(
    csv: Path, labels: list[str], classes: Sequence[str] | None
) -> tuple[list[str], dict[str, int]]:
    """Each clip's class name, and each name's number."""
    if not all(map(_is_number, labels)):
        return labels, class_numbers(csv, labels, classes)
    if classes is None:
        clips = [Clip(Path(), int(label), label) for label in labels]
        classes = class_names(csv, clips, "label")
    elif not all(map(_is_number, classes)):  # then numbers are names
        _check_labels(csv, labels, classes)
        labels = [classes[int(label)] for label in labels]
    return labels, class_numbers(csv, labels, classes)


def _is_number(label: str) -> bool:
    return str(class_number(label)) == label


def _check_labels(csv: Path, labels: list[str], classes: Sequence[str]) -> None:
    """Checks labels that are numbers, where classes have names.

    Raises:
        DataError: If one is beyond the classes, or may be the name of another class.
    """
    numbers = {name: str(number) for number, name in enumerate(classes)}
    for label in dict.fromkeys(labels):
        if numbers.get(label, label) != label:
            raise DataError(
                f"{csv}: label {label} may be the class of that number, {classes[int(label)]!r}, "
                f"or the one of that name, whose number is {numbers[label]}: write names"
                if int(label) < len(classes)
                else f"{csv}: label {label} is a class's name, but all labels are numbers"
            )
        if int(label) >= len(classes):
            raise DataError(f"{csv}: label {label} is not among the {len(classes)} classes")


def _segment(csv: Path, line: int, start: str, end: str) -> Segment | None:
    if not start and not end:
        return None
    try:
        return Segment(float(start or 0), float(end) if end else None)
    except ValueError as error:
        raise DataError(f"{csv}: line {line}: start_sec and end_sec: {error}") from error


class PlainCSV(AnnotationFormat):
    """Plain CSV files: see :func:`read_plain`."""

    name = "plain"

    def detect(self, root: Path, source: str | None) -> Detection:
        if source is None or Path(source).suffix.lower() != ".csv":
            return detected(False)
        return detected(
            has_header(first_row(Path(source))),
            "its first line does not name path and label (without names of columns, say "
            "format=plain)",
        )

    def read_split(
        self, split: Split, source: str, arguments: Arguments, classes: list[str] | None
    ) -> list[Clip]:
        return read_plain(source, arguments.root, classes, arguments.outside_root)


FORMAT = PlainCSV()
