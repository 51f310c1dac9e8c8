"""Errors that a user can mend: the message names the file, the rule and the value."""

from __future__ import annotations

import errno
import re
import sys
import traceback
from collections.abc import Collection, Iterable, Sequence
from numbers import Integral
from pathlib import Path

_HANDOVER = ("torch", "multiprocessing", "reductions.py")  # maps what a process shares

IGNORED_WARNINGS = (
    r".*torch\.jit\.script.*",  # PyG scripts functions when it is imported
    r".*isinstance\(treespec, LeafSpec\).*",  # torch calls a function of its own that it deprecates
    r"LightningCLI's args parameter.*",  # the command line was checked before it got there
    r"Experiment logs directory .* exists and is not empty.*",  # two loggers share a run's folder
    r"Checkpoint directory .* exists and is not empty",  # a resumed run continues in its folder
    r"The dirpath has changed from .* therefore `best_model_score`.*",  # a test has its own folder
    r"Found \d+ module\(s\) in eval mode at the start of training.*",  # the frozen backbone
    r"You're using the WeightAveraging callback, but loading.*",  # as in a test
    r"Using `DistributedSampler` with the dataloaders.*",  # padded clips count once
)
"""Library warnings about intended behaviour, as regular expressions."""


class DataError(ValueError):
    """A file that the user gave, or an entry in it, cannot be used as asked.

    The message is one line, ``<path>: <reason>``. It takes a single string, so that it keeps its
    type when a data-loading process hands it over.
    """


class VideoError(DataError):
    """A video that cannot be opened or decoded as asked."""


class UsageError(ValueError):
    """An invalid command line or key of a config; the message has one to three lines."""


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The suggestion `; did you mean ...?`, empty if no known name is similar.

    Args:
        name: The given name.
        known: The known names; two that are about equally similar are both suggested.
        prefix: Prefix of each suggestion.
    """
    from difflib import SequenceMatcher, get_close_matches

    near = get_close_matches(name, list(known), 2)
    ratios = [SequenceMatcher(None, each, name).ratio() for each in near]
    near = [each for each, ratio in zip(near, ratios, strict=True) if ratio > 0.95 * ratios[0]]
    return f"; did you mean {' or '.join(prefix + each for each in near)}?" if near else ""


def is_disk_full(error: BaseException) -> bool:
    """Whether a file could not be written because its disk, or a quota, is used up."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, OSError) and (
        error.errno in codes or "No space left on device" in str(error)
    )


def one_line(error: BaseException) -> str:
    """An error in one line: the innermost one's, where libraries have wrapped it."""
    text = str(error)
    if "DataLoader worker" in text:  # its text is a traceback, whose last line is the message
        last = text.strip().splitlines()[-1]
        return last.removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")
    while "\n" in str(error).strip():
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    return " ".join(str(error).split()) or repr(error)


def loader_failure(error: BaseException) -> str | None:
    """What became of a `DataLoader`'s process that died or stopped; None for any other error."""
    text = str(error)
    if timed_out := re.search(r"DataLoader timed out after ([\d.]+) seconds", text):
        return (
            f"no batch came for {float(timed_out[1]):g} s (--data.timeout_sec): a process that "
            f"reads clips was stopped, or the disk hangs"
        )
    died = re.search(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)", text)
    if not died and not _is_in_handover(error):
        return None
    killed = re.search(r"killed by signal: ([^.]+)", text)
    how = f"was ended by a signal ({killed[1].strip()})" if killed else "ended unexpectedly"
    return (
        f"a process that reads clips {how}, as the system does when memory runs out: fewer "
        f"--data.num_workers need less"
    )


def _is_in_handover(error: BaseException) -> bool:
    """Whether a process died between announcing a batch in shared memory and handing it over."""
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    is_lost = isinstance(error, OSError | EOFError)
    return is_lost and any(Path(file).parts[-3:] == _HANDOVER for file in files)


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
    """Checks that arguments are positive integers.

    Raises:
        ValueError: Naming the first.
    """
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{name} must be a positive integer (got {count!r})")


def check_choices(**choices: tuple[object, Collection[object]]) -> None:
    """Checks that arguments have allowed values.

    Args:
        choices: The value of each argument, and the allowed values.

    Raises:
        ValueError: Naming the first.
    """
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            known = ", ".join(map(str, allowed))
            raise ValueError(f"{name} must be one of {known} (got {value!r})")
