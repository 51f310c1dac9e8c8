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
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.text_files import check_columns, first_row, read_csv
from taghead.errors import DataError
from taghead.video.segment import Segment

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("path", "label", "start_sec", "end_sec")


def read_plain(
    csv: str | Path, root: str | Path, classes: Sequence[str] | None = None
) -> list[Clip]:
    """The clips of a plain CSV file.

    A path is relative to `root`, or absolute. A label is a class's name, or its number if every
    label of the file is a number and not all are names of `classes`. Without a start, a clip is
    the whole file; without an end, it goes on to the end of the file.

    Args:
        csv: The annotation file. Its first line may name the columns, in any order; without such
            a line they are path, label, start_sec, end_sec.
        root: The folder of videos.
        classes: The classes, by number. Without them, numbers are those of the file, and names
            are numbered in the order of the alphabet.

    Raises:
        DataError: If the file cannot be read, lacks a value, has another column, or a time or a
            label in it cannot be.
    """
    csv, root = Path(csv), Path(root)
    table = _read(csv)
    names, numbers = _labels(csv, table["label"].tolist(), classes)
    return [
        Clip(root / path, numbers[name], name, _segment(csv, line, start, end))
        for line, path, name, start, end in zip(
            table.index, table["path"], names, table["start_sec"], table["end_sec"], strict=True
        )
    ]


def has_header(row: Sequence[str]) -> bool:
    """Whether a row names the columns."""
    return {"path", "label"} <= set(row)


def _read(csv: Path) -> pd.DataFrame:
    header = csv.is_file() and has_header(first_row(csv))
    table = read_csv(csv, header)
    if header:
        table = table.rename(columns=str.strip)
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
    return table


def _labels(
    csv: Path, labels: list[str], classes: Sequence[str] | None
) -> tuple[list[str], dict[str, int]]:
    """Each clip's class name, and each name's number."""
    are_numbers = all(label.isdecimal() and str(int(label)) == label for label in labels)
    if are_numbers and classes is None:
        clips = [Clip(Path(), int(label), label) for label in labels]
        classes = class_names(csv, clips, "label")
    elif are_numbers and classes is not None and not set(labels) <= set(classes):
        beyond = [label for label in labels if int(label) >= len(classes)]
        if beyond:
            raise DataError(f"{csv}: label {beyond[0]} is not among the {len(classes)} classes")
        labels = [classes[int(label)] for label in labels]
    return labels, class_numbers(csv, labels, classes)


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
        return read_plain(source, arguments.root, classes)


FORMAT = PlainCSV()
