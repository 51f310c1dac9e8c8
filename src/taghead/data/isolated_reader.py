"""Reads videos in a process of its own, so that a decoder's crash costs one video."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

from taghead.data.workers import Failure, run_surely
from taghead.errors import DataError, one_line

R = TypeVar("R")


def read_isolated(
    load: Callable[[str], R], videos: Sequence[str], timeout_sec: float
) -> Generator[tuple[str, R | DataError], None, None]:
    """What a function reads of each video, in order, or why it could not.

    The process reads the next video while the caller works on one. If it dies, or takes too long,
    another one replaces it; a video at which it died is tried once more.

    Args:
        load: Reads a video; found by its module and name in the process.
        videos: The video files.
        timeout_sec: How long a video may take.
    """
    function = partial(_pickled, load)
    results = run_surely(function, videos, 1, lambda _: timeout_sec, method=None)
    with closing(results):
        for video, result in results:
            if isinstance(result, Failure):
                yield video, DataError(f"{video}: reading it {result.reason}")
            else:
                yield video, pickle.loads(result)


def read_here(
    load: Callable[[str], R], videos: Sequence[str]
) -> Generator[tuple[str, R | DataError], None, None]:
    """What `read_isolated` gives, in this process, which a decoder's crash ends."""
    for video in videos:
        try:
            yield video, load(video)
        except Exception as error:  # memory, nesting, libraries' own: the next video follows
            yield video, DataError(failure_text(video, error))


def failure_text(video: str, error: Exception) -> str:
    """An error in one line that names the video."""
    text = one_line(error)
    if not isinstance(error, DataError):
        text = f"{type(error).__name__}: {text}"
    return text if text.startswith(f"{video}: ") else f"{video}: {text}"


def _pickled(load: Callable[[str], R], video: str) -> bytes:
    """The result as bytes: tensors would be passed as handles that die with this process."""
    import torch

    torch.set_num_threads(1)  # a forked process has not the threads of the one before
    ((_, result),) = read_here(load, [video])
    return pickle.dumps(result)
