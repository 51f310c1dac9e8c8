"""Annotation files: which clip is where, and which class it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from taghead.errors import DataError
from taghead.video.segment import Segment

COLUMNS = ("FileName", "Class", "TotalFrames", "ClassEncoded")


@dataclass(frozen=True)
class Clip:
    """One annotated clip.

    Args:
        path: The video file.
        label: The class's number.
        class_name: The class's name.
        segment: The part of the file that it is; the whole file if None.
    """

    path: Path
    label: int
    class_name: str
    segment: Segment | None = None

    @property
    def id(self) -> str:
        """The path, and the span where it is a part: two clips that share it are the same."""
        return f"{self.path} [{self.segment}]" if self.segment else str(self.path)


def read_annotations(csv: str | Path, root: str | Path) -> list[Clip]:
    """The clips of a reference CSV, `FileName,Class,TotalFrames,ClassEncoded`.

    A clip lies at `<root>/<Class>/<FileName>`. `TotalFrames` is not used: it is not always right.

    Args:
        csv: The annotation file.
        root: The folder of videos.

    Raises:
        DataError: If the file cannot be read, lacks a column or a value, or gives one class two
            numbers or one number two classes.
    """
    csv, root = Path(csv), Path(root)
    table = _read_table(csv)
    for row, value in table["ClassEncoded"].items():
        if not value.isdecimal():
            line = int(str(row)) + 2
            raise DataError(f"{csv}: line {line}: ClassEncoded must be a number (got {value!r})")
    labels = table["ClassEncoded"].astype(int)
    for one, other in (("ClassEncoded", "Class"), ("Class", "ClassEncoded")):
        names = table.assign(ClassEncoded=labels).groupby(one)[other].unique()
        for value, several in names.items():
            if len(several) > 1:
                found = " and ".join(map(str, several[:2]))
                raise DataError(f"{csv}: {one} {value} stands with two of {other}: {found}")
    return [
        Clip(root / name / file, label, name)
        for file, name, label in zip(table["FileName"], table["Class"], labels, strict=True)
    ]


def class_names(csv: str | Path, clips: list[Clip]) -> list[str]:
    """The name of every class, by its number, as the training split gives them.

    Raises:
        DataError: If there is one class only, or the numbers are not 0, 1, ... without a gap.
    """
    names = {clip.label: clip.class_name for clip in clips}
    if len(names) < 2:
        raise DataError(f"{csv}: needs at least two classes (found only {clips[0].class_name!r})")
    gaps = sorted(set(range(max(names) + 1)) - names.keys())
    if gaps:
        raise DataError(
            f"{csv}: ClassEncoded must count 0 to {max(names)} without a gap "
            f"({len(gaps)} missing, the first is {gaps[0]})"
        )
    return [names[label] for label in sorted(names)]


def check_classes(csv: str | Path, clips: list[Clip], names: list[str]) -> None:
    """Checks that a split's classes are those of training.

    Raises:
        DataError: If a class is unknown or has another number.
    """
    for clip in clips:
        if clip.class_name not in names:
            raise DataError(f"{csv}: unknown class {clip.class_name!r}: training has no clip of it")
        if names[clip.label : clip.label + 1] != [clip.class_name]:
            wanted = names.index(clip.class_name)
            raise DataError(
                f"{csv}: class {clip.class_name!r} has the number {clip.label}, "
                f"in training it has {wanted}"
            )


def _read_table(csv: Path) -> pd.DataFrame:
    try:
        # a class may be called "None", "nan" or "007": every value stays the text that it is
        table = pd.read_csv(csv, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except FileNotFoundError as error:
        raise DataError(f"{csv}: no such annotation file") from error
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{csv}: not a readable CSV file: {reason}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first values for an index
        raise DataError(f"{csv}: its lines have more values than its header has columns")
    table = table.fillna("")
    table = table[(table != "").any(axis=1)]  # blank lines keep the numbers of those after them
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        found = ", ".join(map(repr, table.columns))
        raise DataError(f"{csv}: column {missing[0]} is missing (found {found})")
    if table.empty:
        raise DataError(f"{csv}: no clips, only a header")
    for column in ("FileName", "Class", "ClassEncoded"):
        empty = table.index[table[column] == ""]
        if len(empty):
            raise DataError(f"{csv}: line {empty[0] + 2}: {column} is empty")
    return table
