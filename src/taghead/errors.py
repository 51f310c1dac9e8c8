"""Errors that a user can mend: the message names the file, the rule and the value."""

import sys
from collections.abc import Collection, Sequence
from numbers import Integral


class DataError(ValueError):
    """A file that the user gave, or an entry in it, cannot be used as asked.

    The message is one line, ``<path>: <reason>``. It takes a single string, so that it keeps its
    type when a data-loading process hands it over.
    """


class VideoError(DataError):
    """A video that cannot be opened or decoded as asked."""


def one_line(error: BaseException) -> str:
    """An error in one line: the innermost one's, where libraries have wrapped it."""
    text = str(error)
    if "DataLoader worker" in text:  # it arrives with its traceback, whose last line says it
        last = text.strip().splitlines()[-1]
        return last.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
    while "\n" in str(error).strip():
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    return " ".join(str(error).split()) or repr(error)


def first_line(error: BaseException) -> str:
    """An error's message, cut to its first line."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def raise_failed(errors: Sequence[str | None]) -> None:
    """Reports the videos that could not be read, after all others are done.

    Args:
        errors: The error of each video; None for one that was read.

    Raises:
        VideoError: With the last error; those before it are printed.
    """
    failed = [error for error in errors if error]
    for error in failed[:-1]:
        print(f"error: {error}", file=sys.stderr)
    if failed:
        count = f" ({len(failed)} of {len(errors)} videos failed)" if len(errors) > 1 else ""
        raise VideoError(f"{failed[-1]}{count}")


def check_counts(**counts: object) -> None:
    """Refuses arguments that are no positive integers.

    Raises:
        ValueError: Naming the first.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} must be a positive integer (got {count!r})")


def check_choices(**choices: tuple[object, Collection[object]]) -> None:
    """Refuses arguments that are not among the values that they may have.

    Args:
        choices: The value of each argument, and those that are allowed.

    Raises:
        ValueError: Naming the first.
    """
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            known = ", ".join(map(str, allowed))
            raise ValueError(f"{name} must be one of {known} (got {value!r})")
