"""Text, JSON and CSV files, with errors that name the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taghead.errors import DataError, first_line
from taghead.files import MAX_TEXT_BYTES, check_regular, parse_json

if TYPE_CHECKING:
    import pandas as pd

ENCODING = "utf-8-sig"  # spreadsheets write a byte order mark


def read_csv(path: Path, header: bool = True) -> pd.DataFrame:
    """A CSV file as text, its row labels the line numbers; blank lines are left out.

    Args:
        path: The file.
        header: Whether its first line names the columns; they are numbers otherwise.

    Raises:
        DataError: If it cannot be read, or has no row.
    """
    import pandas as pd

    _check_regular(path)
    try:
        # a class may be called "None", "nan" or "007": every value stays the text that it is
        table = pd.read_csv(
            path,
            dtype=str,
            header=0 if header else None,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding=ENCODING,
        )
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such annotation file") from error
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"{path}: not a readable CSV file: {first_line(error)}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first values for an index
        raise DataError(f"{path}: its lines have more values than its header has columns")
    table.index += 1 + header
    table = table.fillna("")
    return table[(table != "").any(axis=1)]


def check_columns(
    path: Path, table: pd.DataFrame, columns: Sequence[str], filled: Sequence[str]
) -> None:
    """Checks that columns are there, and that some of them have a value in every row.

    Raises:
        DataError: If not; it names the first line without a value.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        found = ", ".join(map(repr, table.columns))
        raise DataError(f"{path}: column {missing[0]} is missing (found {found})")
    if table.empty:
        raise DataError(f"{path}: no clips, only a header")
    for column in filled:
        empty = table.index[table[column] == ""]
        if len(empty):
            raise DataError(f"{path}: line {empty[0]}: {column} is empty")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: If it cannot be read.
    """
    _check_regular(path)
    try:
        return path.read_text(encoding=ENCODING).splitlines()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise DataError(f"{path}: cannot be read: {reason}") from error


def read_json(path: Path) -> Any:
    """The contents of a JSON file.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return parse_json("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: line {error.lineno}: {error.msg}") from error
    except ValueError as error:  # nested too deeply, or a number of thousands of digits
        raise DataError(f"{path}: not JSON that can be read: {first_line(error)}") from error


def _check_regular(path: Path) -> None:
    """Refuses pipes and devices, which need not end, and files too large to be text."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path}: cannot be read: it is not a regular file")
    if path.is_file():
        check_regular(path, MAX_TEXT_BYTES)


def first_row(path: Path) -> list[str]:
    """The values in the first line of a CSV file, without spaces around them."""
    lines = read_lines(path)
    return split_row(path, lines[0]) if lines else []


def split_row(path: Path, line: str, delimiter: str = ",") -> list[str]:
    """The values of a line of a CSV file, without spaces around them.

    Args:
        path: The file, for the error.
        line: The line.
        delimiter: What stands between values.

    Raises:
        DataError: If a value is too long.
    """
    try:
        row = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise DataError(f"{path}: not a readable CSV file: {error}") from error
    return [value.strip() for value in row]
