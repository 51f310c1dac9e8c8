"""Class tables: the number and the name of each class in columns, with or without a header."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from taghead.data.annotations.text_files import split_row
from taghead.errors import DataError

MAX_DIGITS = 9  # of a class number: a longer one is none
NAME_COLUMNS = ("name", "class_name", "classname", "label_name", "class", "label")
HEADERS = frozenset({*NAME_COLUMNS, "id", "names", "classes", "labels", "class_id", "index"})
_NUMBERED = re.compile(rf"(\d{{1,{MAX_DIGITS}}})\s+(\S.*)")  # `0 abseiling`


def class_number(text: str) -> int | None:
    """A class number as text; None if it is none."""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


def read_table(path: Path, lines: Sequence[str]) -> dict[int, str] | list[str]:
    """The classes that the lines of a class list give: by number where it is a table.

    A table has a column of numbers and one of names, as `id,name` of Kinetics or `0 abseiling`. A
    file `.csv` or `.tsv` of one column, and another file of lines that are not like that, is a list
    of names.

    Args:
        path: The file.
        lines: Its lines, without spaces around them.

    Raises:
        DataError: If a number stands there twice, or it is open which column is which, or whether
            the first line is a header.
    """
    suffix = path.suffix.lower()
    delimiter = "\t" if suffix == ".tsv" or all("\t" in line for line in lines) else ","
    rows = [split_row(path, line, delimiter) or [""] for line in lines]
    if suffix not in (".csv", ".tsv") and not _is_table(rows):
        matches = [_NUMBERED.fullmatch(line) for line in lines]
        if len(lines) < 2 or not all(matches):
            _check_no_header(path, lines[:1])
            return list(lines)
        rows = [[match[1], match[2]] for match in matches if match]
    if all(len(row) == 1 for row in rows):
        _check_no_header(path, rows[0] if rows else [])
        return [row[0] for row in rows]
    return _by_number(path, rows)


def _is_table(rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows have two values, of which one is a number, but for a header."""
    body = rows[1:]
    return bool(body) and all(len(row) == 2 for row in rows) and bool(_number_columns(body))


def _number_columns(body: Sequence[Sequence[str]]) -> list[int]:
    width = min(map(len, body), default=0)
    return [i for i in range(width) if all(class_number(row[i]) is not None for row in body)]


def _by_number(path: Path, rows: list[list[str]]) -> dict[int, str]:
    has_header = all(class_number(value) is None for value in rows[0])
    header = [value.casefold() for value in rows[0]] if has_header else []
    body = rows[has_header:]
    for line, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{path}: line {line}: has {len(row)} values, the first line {len(rows[0])}"
            )
    numbers = _number_columns(body)
    named = [i for name in NAME_COLUMNS for i, found in enumerate(header) if found == name]
    names = [i for i in named if i not in numbers] or named
    if len(rows[0]) == 2 and len(numbers) == 1:
        names = [1 - numbers[0]]
    numbers = [i for i in numbers if i not in names[:1]]
    if not names or len(numbers) != 1:
        raise DataError(
            f"{path}: needs one column of class numbers and one of names, such as id,name "
            f"(found {', '.join(rows[0])})"
        )
    found: dict[int, str] = {}
    for line, row in enumerate(body, start=1 + has_header):
        number = int(row[numbers[0]])
        if number in found:
            raise DataError(f"{path}: line {line}: class number {number} stands there twice")
        found[number] = row[names[0]]
    return found


def _check_no_header(path: Path, first: Sequence[str]) -> None:
    if first and first[0].casefold() in HEADERS:
        raise DataError(
            f"{path}: line 1: {first[0]!r} is the header of a table, but it is a list of names: "
            "leave that line out, or add a column of class numbers"
        )
