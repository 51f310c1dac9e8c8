"""Format `reference`: the paper's CSV files, `FileName,Class,TotalFrames,ClassEncoded`."""

from __future__ import annotations

from pathlib import Path

from taghead.data.annotations.annotation_format import (
    AnnotationFormat,
    Arguments,
    Detection,
    detected,
)
from taghead.data.annotations.class_table import class_number
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.clip_path import clip_path
from taghead.data.annotations.text_files import check_columns, first_row, read_csv
from taghead.errors import DataError

COLUMNS = ("FileName", "Class", "TotalFrames", "ClassEncoded")


def read_reference(csv: str | Path, root: str | Path, outside_root: bool = False) -> list[Clip]:
    """The clips of a CSV file as the paper's released annotations have it.

    A clip lies at `<root>/<Class>/<FileName>`. `TotalFrames` is not always right: it is kept as
    `listed_frames`, where it is a number, and used for nothing but a comparison.

    Args:
        csv: The annotation file.
        root: The folder of videos.
        outside_root: Whether a video may lie outside `root`.

    Raises:
        DataError: If the file cannot be read, lacks a column or a value, gives one class two
            numbers or one number two classes, or names a file outside `root`.
    """
    csv, root = Path(csv), Path(root)
    table = read_csv(csv)
    check_columns(csv, table, COLUMNS, filled=("FileName", "Class", "ClassEncoded"))
    for line, value in table["ClassEncoded"].items():
        if class_number(value) is None:
            raise DataError(f"{csv}: line {line}: ClassEncoded must be a number (got {value!r})")
    labels = table["ClassEncoded"].astype(int)
    for one, other in (("ClassEncoded", "Class"), ("Class", "ClassEncoded")):
        names = table.assign(ClassEncoded=labels).groupby(one)[other].unique()
        for value, several in names.items():
            if len(several) > 1:
                found = " and ".join(map(str, several[:2]))
                raise DataError(f"{csv}: {one} {value} stands with two of {other}: {found}")
    rows = zip(table["FileName"], table["Class"], labels, table["TotalFrames"], strict=True)
    return [
        Clip(
            clip_path(root, f"{name}/{file}", f"{csv}: line {line}", outside_root),
            label,
            name,
            listed_frames=_whole(frames),
        )
        for line, (file, name, label, frames) in zip(table.index, rows, strict=True)
    ]


def _whole(text: str) -> int | None:
    """A count, also as a spreadsheet may write it (`12.0`)."""
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


class ReferenceCSV(AnnotationFormat):
    """CSV files of the paper: see :func:`read_reference`."""

    name = "reference"
    arguments = frozenset({"train", "val", "test"})  # the files name the classes
    class_column = "ClassEncoded"

    def detect(self, root: Path, source: str | None) -> Detection:
        if source is None or Path(source).suffix.lower() != ".csv":
            return detected(False)
        named = bool(set(COLUMNS) & set(first_row(Path(source))))
        return detected(named, f"its first line names none of {', '.join(COLUMNS)}")

    def read_split(
        self, split: Split, source: str, arguments: Arguments, classes: list[str] | None
    ) -> list[Clip]:
        return read_reference(source, arguments.root, arguments.outside_root)


FORMAT = ReferenceCSV()
