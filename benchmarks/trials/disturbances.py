"""What befalls a command: signals to it, to its workers or to all, a full disk, torn files."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trials.commands import Command
from trials.launch import Process

PAUSE_SEC = 3.0
SIGNALLED = {128 + signal.SIGTERM, -signal.SIGTERM}  # what a shell shows as 143 in both cases
STOPPED = {130}
# on disk before they have their name, or before a checkpoint has
SYNCED = ("*.ckpt", "*.safetensors", "*.mp4", "study.db*", "metrics.csv")


@dataclass(frozen=True)
class Disturbance:
    """Something that befalls a running command once.

    Args:
        name: Its name in the table.
        codes: The exit codes that are right then; 0 is too where the command had ended before.
        act: Does it, and returns what it did it to.
        is_for: Whether a command can be disturbed so.
    """

    name: str
    codes: frozenset[int]
    act: Callable[[Process, random.Random], str]
    is_for: Callable[[Command], bool] = lambda command: True


def _kill(process: Process, draw: random.Random) -> str:
    process.signal(signal.SIGKILL)
    return ""


def _terminate(process: Process, draw: random.Random) -> str:
    process.signal(signal.SIGTERM)
    return ""


def _terminate_all(process: Process, draw: random.Random) -> str:
    process.signal_all(signal.SIGTERM)
    return ""


def _interrupt(process: Process, draw: random.Random) -> str:
    process.signal_all(signal.SIGINT)  # as Ctrl-C in a terminal
    return ""


def _pause(process: Process, draw: random.Random) -> str:
    send = process.signal_all if draw.random() < 0.5 else process.signal
    send(signal.SIGSTOP)
    time.sleep(PAUSE_SEC)
    send(signal.SIGCONT)
    return ""


def _kill_worker(process: Process, draw: random.Random) -> str:
    return _to_worker(process, draw, signal.SIGKILL)


def _stop_worker(process: Process, draw: random.Random) -> str:
    return _to_worker(process, draw, signal.SIGSTOP)


def _pause_worker(process: Process, draw: random.Random) -> str:
    workers = _awaited_workers(process)
    if not workers:
        return "no worker"
    with contextlib.suppress(ProcessLookupError):
        os.kill(chosen := draw.choice(workers), signal.SIGSTOP)
        time.sleep(PAUSE_SEC)
        os.kill(chosen, signal.SIGCONT)
    return ""


def _to_worker(process: Process, draw: random.Random, number: int) -> str:
    workers = _awaited_workers(process)
    if not workers:
        return "no worker"
    with contextlib.suppress(ProcessLookupError):
        os.kill(draw.choice(workers), number)
    return ""


def _awaited_workers(process: Process) -> list[int]:
    """The command's workers, as soon as it has any; none if it ends before."""
    while not (workers := process.workers()) and process.wait(0.05) is None:
        pass
    return workers


def _has_readers(command: Command) -> bool:
    return command.has_readers


SIGNALS = (
    Disturbance("SIGKILL", frozenset({-signal.SIGKILL}), _kill),
    Disturbance("SIGTERM", frozenset(SIGNALLED), _terminate),
    Disturbance("SIGTERM to all", frozenset(SIGNALLED), _terminate_all),
    Disturbance("SIGINT to all", frozenset(STOPPED), _interrupt),
    Disturbance("SIGSTOP, SIGCONT", frozenset({0}), _pause),
    Disturbance("SIGKILL to a worker", frozenset({0, 1}), _kill_worker, _has_readers),
    Disturbance("SIGSTOP, SIGCONT of a worker", frozenset({0}), _pause_worker, _has_readers),
    Disturbance(
        "SIGSTOP of a worker", frozenset({1}), _stop_worker, lambda command: command.can_starve
    ),
)
TORN = Disturbance("SIGKILL, torn files", frozenset({-signal.SIGKILL}), _kill)
FULL = "full disk"


def tear(folder: Path, draw: random.Random, number: int = 2) -> list[str]:
    """Cuts the newest files of a folder at a random byte, as a power cut leaves them.

    Files that were written to disk before they got their name are left alone: no power cut takes
    their bytes. Of those in the result's folder only unfinished ones and journals were not.
    """
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.stat().st_size > 0 and not _is_synced(path)
    ]
    torn = sorted(files, key=lambda path: path.stat().st_mtime_ns)[-number:]
    for path in torn:
        os.truncate(path, draw.randrange(path.stat().st_size))
    return [str(path.relative_to(folder)) for path in torn]


def _is_synced(path: Path) -> bool:
    """Whether a file was written to disk before it got its name."""
    if any(part.startswith(".unfinished-") for part in path.parts):
        return False
    in_result = "out" in path.parts and "partial" not in path.name
    return in_result or any(map(path.match, SYNCED))


def mount(folder: Path, num_bytes: int) -> bool:
    """Mounts a disk of so many bytes; False where that is not permitted."""
    return _mount("-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder))


def enlarge(folder: Path) -> None:
    _mount("-o", "remount,size=1g", str(folder))


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _mount(*args: str) -> bool:
    return subprocess.run(["mount", *args], check=False, capture_output=True).returncode == 0
