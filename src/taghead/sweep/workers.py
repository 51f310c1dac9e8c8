"""The worker processes that do the runs of a sweep on one machine.

What a worker prints goes to its log, so libraries are imported only after that was opened.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taghead.class_paths import allow_modules, allowed_modules
from taghead.errors import DataError
from taghead.files import is_alive
from taghead.processes import start_worker
from taghead.sweep.spec import Config, RunSpec

if TYPE_CHECKING:
    from taghead.sweep.store import Store

MAX_IDLE_DEATHS = 3  # of processes that had not begun a run
POLL_SEC = 0.5  # while no run is queued
NO_LIMIT = 2**31 - 1  # the most that a semaphore holds


class Workers:
    """The worker processes of a sweep on this machine; one that dies is replaced.

    It is a context: on leaving, the processes end, and the trials that they were doing as well.

    Args:
        store: The sweep's store.
        logs: The folder of their logs.
        num_workers: How many they are.
        threads: Threads that each computes with.
        limit: How many runs they may begin together; any number if None.
        runs: The runs of the sweep file: they do no others.
    """

    def __init__(
        self,
        store: Store,
        logs: Path,
        num_workers: int,
        threads: int,
        limit: int | None,
        runs: Sequence[RunSpec],
    ) -> None:
        self._store = store
        self._logs = logs
        self._num_workers = num_workers
        self._context = multiprocessing.get_context("spawn")
        permits = self._context.Semaphore(NO_LIMIT if limit is None else limit)
        configs = {run.id: run.config for run in runs}
        self._threads = threads
        self._shared = (store.url, store.name, threads, permits, configs, allowed_modules())
        self._num_idle_deaths = 0
        self._processes: dict[int, Any] = {}

    def __enter__(self) -> Workers:
        os.environ["OMP_NUM_THREADS"] = str(self._threads)  # before the workers import torch
        for number in range(self._num_workers):
            self._start(number)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.join()
            self._store.give_up(process.name)

    def replace_dead(self) -> bool:
        """Starts a process for each that has died.

        Returns:
            Whether any process runs.

        Raises:
            DataError: If several died before they had begun a run.
        """
        for number, process in list(self._processes.items()):
            if process.is_alive():
                continue
            del self._processes[number]
            if process.exitcode == 0:  # there is no run left that it may begin
                continue
            reason = f"its process died with exit code {process.exitcode}"
            if not self._store.give_up(process.name, reason):
                self._num_idle_deaths += 1
                if self._num_idle_deaths == MAX_IDLE_DEATHS:
                    raise DataError(f"a worker of the sweep: {reason}; see {self._log(number)}")
            self._start(number)
        return bool(self._processes)

    def _start(self, number: int) -> None:
        process = self._context.Process(
            target=work,
            args=(self._log(number), _gpu(number), *self._shared),
            name=f"{_machine()} {os.getpid()} {uuid.uuid4().hex}",
        )
        process.start()
        self._processes[number] = process

    def _log(self, number: int) -> Path:
        return self._logs / f"worker-{number}.log"


def give_up_dead(store: Store) -> None:
    """Ends the trials of sweeps on this machine that were killed, without waiting for the grace."""
    from optuna.trial import TrialState

    for trial in store.trials(TrialState.RUNNING):
        worker = str(trial.user_attrs.get("worker", ""))
        machine, _, rest = worker.partition(" ")
        pid = rest.partition(" ")[0]
        if machine == _machine() and pid.isdigit() and not is_alive(int(pid)):
            store.give_up(worker)


def _machine() -> str:
    """This machine, or the part of it in which process ids are its own, as in a container."""
    namespace = Path("/proc/self/ns/pid")
    part = f"/{namespace.stat().st_ino}" if namespace.exists() else ""
    return f"{socket.gethostname().replace(' ', '_')}{part}"


def _gpu(number: int) -> str | None:
    """The GPU of a worker, as `CUDA_VISIBLE_DEVICES` names it, where there are several."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return gpus[number % len(gpus)] if len(gpus) > 1 else None


def work(
    log: Path,
    gpu: str | None,
    url: str,
    sweep_name: str,
    threads: int,
    permits: Any,
    runs: Mapping[str, Config],
    modules: Sequence[str],
) -> None:
    """Does runs in a worker process, one after the other, until it is killed or may begin no more.

    Args:
        log: The file for what the process prints.
        gpu: The one GPU that it sees; all if None.
        url: The store's database.
        sweep_name: The sweep's name.
        threads: Threads that torch computes with.
        permits: A semaphore: how many runs all workers may still begin together.
        runs: The configs of the sweep file by id: no other is done.
        modules: Modules of one's own that the configs may name classes of.
    """
    start_worker()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            os.dup2(file.fileno(), number)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    import torch

    from taghead.errors import IGNORED_WARNINGS
    from taghead.sweep.run import train_and_test, versions
    from taghead.sweep.store import Store

    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    torch.set_num_threads(threads)
    allow_modules(modules)
    name = multiprocessing.current_process().name
    store, origin = Store(url, sweep_name), versions()
    while permits.acquire(block=False):
        if not store.run_next(name, train_and_test, origin, runs):
            permits.release()
            time.sleep(POLL_SEC)
