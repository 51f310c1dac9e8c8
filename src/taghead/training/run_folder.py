"""Run folders: claimed by one process, locked by its training, searched for checkpoints."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from taghead.errors import DataError
from taghead.files import remove_unfinished
from taghead.training.checkpoints import num_steps, read_checkpoint

LOCK = ".lock"
LOCK_TIMEOUT_SEC = 5.0  # the reader processes of a killed training end within it
NUMBERED = re.compile(r"version_(\d+)")
OWN_LAYOUT = ("version_*/checkpoints", "checkpoints")  # below the trainer's `default_root_dir`
ANY_LAYOUT = (*OWN_LAYOUT, "*/checkpoints", "*/*/checkpoints")  # below a logger's own folder


def next_version(root: str | Path) -> int:
    """The number after the highest of the folders `version_N`."""
    return 1 + max((_version(run) for run in Path(root).glob("version_*")), default=-1)


def claim_version(root: str | Path) -> int:
    """Creates the next folder `version_N`, which no other process gets.

    Args:
        root: The folder of the runs; it is created.
    """
    Path(root).mkdir(parents=True, exist_ok=True)
    version = next_version(root)
    while True:
        try:
            (Path(root) / f"version_{version}").mkdir()
            return version
        except FileExistsError:  # another process was faster
            version += 1


def clear_dead(root: str | Path) -> None:
    """Removes what killed trainings of this machine left half-written in the runs of a folder.

    A training that was killed in its first checkpoint is not resumed: nothing else clears it.
    """
    for folder in Path(root).glob("version_*/checkpoints"):
        remove_unfinished(folder, min_age_sec=math.inf)


def lock_run(run: str | Path) -> BaseFileLock:
    """Locks a run's folder, until the lock is released or the process ends.

    Raises:
        DataError: If another training runs in it.
    """
    Path(run).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(run) / LOCK)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_SEC)
    except Timeout:
        raise DataError(
            f"{run}: a training is running in this folder; wait for its end, or resume in a new "
            f"folder: --ckpt_path={Path(run) / 'checkpoints' / 'last.ckpt'}"
        ) from None
    return lock


def is_first_rank() -> bool:
    """Whether this process is the first rank of its training, or the only one."""
    return getattr(rank_zero_only, "rank", 0) == 0


def remove_empty(run: Path) -> None:
    """Removes a run's folder if nothing was written into it, as after an error in the options."""
    with suppress(OSError):
        if [file.name for file in run.iterdir()] == [LOCK]:
            (run / LOCK).unlink()
        run.rmdir()


def last_checkpoint(root: str | Path, layout: Iterable[str] = OWN_LAYOUT) -> Path | None:
    """The `last.ckpt` of the newest run below a folder; None if there is none.

    The newest run is the one of the highest `version_N`; of several files of one run, the newest
    has the most optimizer steps. File times do not count: a copy changes them.

    Args:
        root: The folder of the runs: the trainer's `default_root_dir`, or a logger's.
        layout: Where folders of checkpoints lie below it, as patterns.

    Raises:
        DataError: If runs without numbers leave open which is the newest, or one of several files
            is not a checkpoint.
    """
    folders = {folder for pattern in layout for folder in Path(root).glob(pattern)}
    runs = {folder.parent: sorted(folder.glob("last*.ckpt")) for folder in sorted(folders)}
    runs = {run: files for run, files in runs.items() if files}
    if not runs:
        return None
    highest = max(map(_version, runs))
    newest = [run for run in runs if _version(run) == highest]
    if len(newest) > 1:
        names = ", ".join(str(runs[run][0]) for run in newest)
        raise DataError(
            f"ckpt_path last: the newest run in {root} is ambiguous; choose: --ckpt_path of {names}"
        )
    files = runs[newest[0]]
    return files[0] if len(files) == 1 else max(files, key=num_steps)


def best_checkpoint(run: str | Path) -> Path:
    """The checkpoint of a run that its `ModelCheckpoint` found best.

    Args:
        run: The run's folder.

    Raises:
        DataError: If no checkpoint of the run tells one, or several are the best by a metric each.
    """
    files = sorted(Path(run, "checkpoints").glob("*.ckpt"))
    newest = max(files, key=num_steps, default=None)
    states = {} if newest is None else read_checkpoint(newest).get("callbacks", {})
    best = {path for state in states.values() if (path := _best_path(state, Path(run)))}
    if len(best) == 1:
        return best.pop()
    known = ", ".join(map(str, sorted(best) or files)) or "none"
    reason = "several checkpoints are the best by a metric each" if best else "no best checkpoint"
    raise DataError(f"{run}: {reason}; choose one: --ckpt_path=FILE (there are: {known})")


def _best_path(state: Any, run: Path) -> Path | None:
    """The best checkpoint that a callback's state names, also after the run's folder was moved."""
    if not isinstance(state, dict) or not state.get("monitor") or not state.get("best_model_path"):
        return None
    path = Path(state["best_model_path"])
    candidates = run / "checkpoints" / path.name, path
    return next((each for each in candidates if each.is_file()), None)


def _version(run: Path) -> int:
    """The number of a folder `version_N`; -1 for any other."""
    match = NUMBERED.fullmatch(run.name)
    return int(match[1]) if match else -1
