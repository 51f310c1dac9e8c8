"""What a fuzz target may do, and how it is watched."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taghead.class_paths import PACKAGES
from taghead.errors import DataError

SEPARATOR = b"\n====\n"  # between the files that an input is split into
MAX_LINES = 3  # of an error
OUTSIDE = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "urllib.")
INSTALLED = tuple(
    {
        os.path.realpath(folder)
        for folder in (sys.prefix, sys.base_prefix, *filter(os.path.isdir, sys.path))
    }
    | {"/proc", "/sys", "/usr", "/etc/localtime", "/dev/urandom", "/dev/null"}
)

warnings.filterwarnings("ignore")


class FuzzError(Exception):
    """What a target may not do."""


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Args:
        run: Reads it: from its bytes, and the folder to write it into.
        errors: The errors that it may raise.
        max_len: The most bytes that are tried.
        prepare: Makes what each run needs, once.
    """

    run: Callable[[bytes, Path], object]
    errors: tuple[type[Exception], ...] = (DataError,)
    max_len: int = 4096
    prepare: Callable[[], object] = lambda: None


def parts(data: bytes, number: int) -> list[bytes]:
    """The files of an input, as many as a target needs."""
    found = data.split(SEPARATOR)[:number]
    return found + [b""] * (number - len(found))


def as_json(data: bytes) -> Any:
    """JSON; `None` of what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def merged(base: dict[str, Any], over: Any) -> dict[str, Any]:
    """A mapping with the entries of another one, mapping by mapping."""
    if not isinstance(over, dict):
        return base
    both = [key for key in over if isinstance(base.get(key), dict) and isinstance(over[key], dict)]
    return {**base, **over, **{key: merged(base[key], over[key]) for key in both}}


class Watch:
    """What a run does that only a stranger's code or address would."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_armed = False
        self.roots: tuple[str, ...] = INSTALLED

    def install(self, folder: Path) -> None:
        """Starts noting; the folder and those of the installation may be opened."""
        self.roots = (*INSTALLED, os.path.realpath(folder))
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_armed:
            return
        if event == "open":
            path = args[0]
            if isinstance(path, str | bytes) and path:
                full = os.path.realpath(os.fsdecode(path))
                if not full.startswith(self.roots):
                    self.seen.append(f"opened {full}"[:300])
        elif event == "import":
            top = str(args[0]).partition(".")[0]
            known = {name.partition(".")[0] for name in list(sys.modules)}
            if top not in known and top not in PACKAGES and top not in sys.stdlib_module_names:
                self.seen.append(f"imported {args[0]}"[:300])
        elif event.startswith(OUTSIDE):
            self.seen.append(f"{event} {args}"[:300])


WATCH = Watch()


def check_refused(function: Callable[[], object], errors: tuple[type[Exception], ...]) -> None:
    """Runs a step; one of its documented errors is fine, if it has one to three lines.

    Raises:
        FuzzError: If the error is too long.
    """
    try:
        function()
    except errors as error:
        if len(str(error).splitlines()) > MAX_LINES:
            raise FuzzError(f"an error of too many lines: {error!r}"[:2000]) from error


def run_target(target: Target, data: bytes, folder: Path) -> None:
    """Gives an input to a target.

    It must raise nothing but the errors that are documented, each of one to three lines. It may
    import no package that is not loaded, open no file outside its folder and those of the
    installation, start no process and make no connection.

    Args:
        target: The target.
        data: The input.
        folder: An empty folder for the files that are made of it.

    Raises:
        FuzzError: If it does what it may not.
        Exception: Any that is not documented.
    """
    WATCH.seen.clear()
    WATCH.is_armed = True
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            check_refused(lambda: target.run(data, folder), target.errors)
    finally:
        WATCH.is_armed = False
    if WATCH.seen:
        raise FuzzError("; ".join(WATCH.seen[:3]))
