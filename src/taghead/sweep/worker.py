"""A process that does the runs of a sweep, one after the other.

What it prints goes to its log, so torch is imported only after that has begun.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from taghead.sweep.store import Store

POLL_SEC = 0.5


@dataclass(frozen=True)
class Job:
    """What a worker needs to know.

    Args:
        url: The store's database.
        name: The sweep's name.
        owner: What the worker calls itself in the store.
        log: The file for what it prints.
        threads: Threads that torch computes with.
        gpu: The GPU that it sees, as `CUDA_VISIBLE_DEVICES` names it; all if None.
    """

    url: str
    name: str
    owner: str
    log: Path
    threads: int
    gpu: str | None = None


def work(job: Job, stop: Any, left: Any) -> None:
    """Does runs until it is told to stop.

    Args:
        job: What to do.
        stop: The event that says so.
        left: How many runs all workers may still begin together; negative for any number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command that started it decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with_parent()
    _print_to(job.log)
    if job.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = job.gpu
    os.environ["OMP_NUM_THREADS"] = str(job.threads)

    import torch

    import taghead.sweep.running  # noqa: F401, Lightning sets its loggers' levels when imported
    from taghead.errors import IGNORED_WARNINGS
    from taghead.sweep.store import Store

    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    torch.set_num_threads(job.threads)
    store = Store(job.url, job.name)
    while not stop.is_set() and _begins(left):
        trial = store.claim(job.owner)
        if trial is None:
            _gives_back(left)
            time.sleep(POLL_SEC)
        else:
            do(store, trial)


def do(store: Store, trial: FrozenTrial) -> None:
    """Does the run of a trial that was claimed, and records what it gave, or its error."""
    from taghead.errors import one_line
    from taghead.sweep.running import run

    print(f"run {trial.user_attrs['run']}: {trial.user_attrs['levels']}", flush=True)
    with _heartbeat(store, trial):
        try:
            outcome = run(store.config(trial))
        except Exception as error:  # whatever it is, the other runs go on
            traceback.print_exc()
            store.fail(trial, f"{type(error).__name__}: {one_line(error)}", _told())
            return
        store.complete(trial, *outcome)


def _told() -> dict[str, Any]:
    """What is known of a run that failed."""
    from taghead.sweep.provenance import versions

    return dict(versions())


@contextmanager
def _heartbeat(store: Store, trial: FrozenTrial) -> Iterator[None]:
    """Shows signs of life meanwhile."""
    from optuna.exceptions import StorageInternalError

    from taghead.sweep.store import HEARTBEAT_SEC

    over = threading.Event()

    def beat() -> None:
        while not over.wait(HEARTBEAT_SEC):
            try:
                store.storage.record_heartbeat(trial._trial_id)
            except StorageInternalError:  # the database is busy; the next one may do
                traceback.print_exc()
        store.storage.remove_session()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _begins(left: Any) -> bool:
    with left.get_lock():
        if left.value == 0:
            return False
        left.value -= 1 if left.value > 0 else 0
        return True


def _gives_back(left: Any) -> None:
    with left.get_lock():
        left.value += 1 if left.value >= 0 else 0


def _end_with_parent() -> None:
    """Nobody would wait for the results of a worker whose command was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _print_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
