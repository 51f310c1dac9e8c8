"""The command `taghead sweep`, and the worker processes that do its runs.

What a worker prints goes to its log, so torch is imported only after that was opened.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from taghead.class_paths import allow_modules, allowed_modules
from taghead.errors import DataError, check_counts
from taghead.files import is_alive
from taghead.processes import end_with_parent
from taghead.sweep.spec import Config, RunSpec, SweepSpec, read_sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from taghead.sweep.store import Store

POLL_SEC = 0.5  # of a worker, while no run is queued
REFRESH_SEC = 1.5
STOP_SEC = 30
NO_LIMIT = 2**31 - 1  # the most that a semaphore holds


def sweep(
    file: str,
    workers: int = 1,
    storage: str | None = None,
    output: str | None = None,
    limit: int | None = None,
    threads: int = 1,
    dry_run: bool = False,
    retry_failed: bool = False,
) -> None:
    """Trains and tests all runs of a sweep file; the same command again resumes it.

    Args:
        file: The sweep file: a base config, factors with levels, seeds.
        workers: Worker processes; with 0 the tables are written from what the store has.
        storage: The database of the study, as SQLAlchemy names it; several machines may share
            one. `study.db` in the output when not given.
        output: The folder of the tables; `runs/sweeps/<name>` when not given.
        limit: Begin at most this many runs.
        threads: Threads that each worker computes with.
        dry_run: List the runs, after parsing their configs, and do none.
        retry_failed: Do the runs that failed again.

    Raises:
        DataError: If the file, a config of a run or the store cannot be used.
        ValueError: If an argument breaks its rule.
    """
    for name, value, least in (("workers", workers, 0), ("threads", threads, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least} (got {value})")
    if limit is not None:
        check_counts(limit=limit)
    spec = read_sweep(file)
    runs = spec.runs()
    if dry_run:
        _list_runs(spec, runs)
        return
    folder = Path(output or f"runs/sweeps/{spec.name}")
    store = _open_store(storage or f"sqlite:///{folder}/study.db", spec, runs)
    if workers:
        try:
            known = store.current()
            _check(spec, [run for run in runs if run.id not in known])
            with _stop_requests() as stop:
                _give_up_dead(store)
                store.enqueue(list(spec.factors), runs, retry_failed)
                pool = Workers(store, folder / "logs", threads, limit, runs)
                _run(store, runs, pool, workers, folder, stop)
        except KeyboardInterrupt:
            store.write_tables(folder)
            print("stopped; the same command resumes it")
            raise SystemExit(128 + stop.number) from None
    _report(store, runs, folder)


def _list_runs(spec: SweepSpec, runs: Sequence[RunSpec]) -> None:
    _check(spec, runs, build=False)
    for run in runs:
        print(f"{run.id}  {run}{'  (control)' if run.is_control else ''}")
    print(f"{len(runs)} runs")


def _check(spec: SweepSpec, runs: Sequence[RunSpec], build: bool = True) -> None:
    from taghead.sweep.run import check_configs

    _quiet_lightning()
    check_configs(spec, runs, build)


def _open_store(url: str, spec: SweepSpec, runs: Sequence[RunSpec]) -> Store:
    try:
        from taghead.sweep.store import Store
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise DataError("taghead sweep needs Optuna: pip install 'taghead[sweep]'") from None
    store = Store(url, spec.name)
    store.check(spec, runs)
    return store


def _run(
    store: Store,
    runs: Sequence[RunSpec],
    workers: Workers,
    num_workers: int,
    folder: Path,
    stop: Event,
) -> None:
    """Has workers do the runs, and prints a line for each that has ended.

    Raises:
        KeyboardInterrupt: On a request to stop.
    """
    from taghead.sweep.store import is_ended, is_interrupted

    printed = {run for run, trial in store.current().items() if is_ended(trial)}
    if len(printed) == len(runs):
        return
    with _progress() as progress, workers:
        task = progress.add_task("runs", total=len(runs), completed=len(printed))
        workers.start(min(num_workers, len(runs) - len(printed)))
        is_running = True
        while is_running and len(printed) < len(runs):
            if stop.wait(REFRESH_SEC):
                raise KeyboardInterrupt
            is_running = workers.replace_dead()
            store.retry_stale()
            current = store.current()
            if any(map(is_interrupted, current.values())):
                store.enqueue(store.factors, runs)
            ended = [t for run, t in current.items() if is_ended(t) and run not in printed]
            for trial in ended:
                printed.add(trial.user_attrs["run"])
                progress.console.print(_line(trial), markup=False, highlight=False, soft_wrap=True)
            if ended:
                store.write_tables(folder, predictions=False)
            progress.update(task, completed=len(printed))


def _line(trial: FrozenTrial) -> str:
    """What is printed of a run that has ended."""
    from taghead.sweep.store import is_failed

    attributes = trial.user_attrs
    run = f"{attributes['run']}  {RunSpec(attributes['levels'], attributes['seed'], {})}"
    if is_failed(trial):
        return f"{run}: failed: {attributes['error']}"
    result = attributes["result"]
    return f"{run}: Top-1 {result['top1']:.1%} ({result['train_sec']:.0f} s)"


def _report(store: Store, runs: Sequence[RunSpec], folder: Path) -> None:
    """Writes the tables, and prints how the runs ended."""
    from taghead.sweep.store import PREDICTIONS, RUNS, is_ended, is_failed

    store.write_tables(folder)
    ended = [trial for trial in store.current().values() if is_ended(trial)]
    failed = [trial for trial in ended if is_failed(trial)]
    print(f"{len(ended) - len(failed)} of {len(runs)} runs are done, {len(failed)} failed")
    print(f"{folder / RUNS}, {folder / PREDICTIONS}")
    if failed:
        for trial in failed:
            print(_line(trial))
        print("--retry_failed tries them again")
        raise SystemExit(1)


def _progress() -> Progress:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    return Progress(*columns, console=Console(stderr=True), speed_estimate_period=3600)


class StopRequest(Event):
    """An event that a signal sets, and the signal's number."""

    number: int = signal.SIGINT

    def take(self, number: int, frame: object) -> None:
        """Handles a signal."""
        self.number = number
        self.set()


@contextmanager
def _stop_requests() -> Iterator[StopRequest]:
    """An event set by Ctrl-C, and by SIGTERM, with which a cluster ends a job.

    Raised in the middle of a transaction, an interrupt would leave the database locked.
    """
    stop = StopRequest()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop.take) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Workers:
    """The worker processes of a sweep on this machine; one that dies is replaced.

    It is a context: on leaving, the processes end, and the trials that they were doing as well.

    Args:
        store: The sweep's store.
        logs: The folder of their logs.
        threads: Threads that each computes with.
        limit: How many runs they may begin together; any number if None.
        runs: The runs of the sweep file: they do no others.
    """

    def __init__(
        self, store: Store, logs: Path, threads: int, limit: int | None, runs: Sequence[RunSpec]
    ) -> None:
        self._runs = {run.id: run.config for run in runs}
        self._logs = logs
        self._store = store
        self._threads = threads
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._permits = self._context.Semaphore(NO_LIMIT if limit is None else limit)
        self._num_idle_deaths = 0
        self._processes: dict[int, Any] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for process in self._processes.values():
            if error[0] is None:
                process.join(STOP_SEC)
            process.kill()
        for process in self._processes.values():
            process.join()
            self._store.give_up(process.name)

    def start(self, num_workers: int) -> None:
        """Starts the processes, which do runs until none is left that they may begin."""
        os.environ["OMP_NUM_THREADS"] = str(self._threads)  # before the workers import torch
        for number in range(num_workers):
            self._start(number)

    def replace_dead(self) -> bool:
        """Starts a process for each that has died.

        Returns:
            Whether any process runs.

        Raises:
            DataError: If several died before they had begun a run.
        """
        from taghead.sweep.store import MAX_DEATHS

        for number, process in list(self._processes.items()):
            if process.is_alive():
                continue
            del self._processes[number]
            if process.exitcode == 0:  # there is no run left that it may begin
                continue
            reason = f"its process died with exit code {process.exitcode}"
            if not self._store.give_up(process.name, reason):
                self._num_idle_deaths += 1
                if self._num_idle_deaths == MAX_DEATHS:
                    raise DataError(f"a worker of the sweep: {reason}; see {self._log(number)}")
            self._start(number)
        return bool(self._processes)

    def _start(self, number: int) -> None:
        name = f"{_machine()} {os.getpid()} {uuid.uuid4().hex}"
        options = (self._store.url, self._store.name, self._log(number), self._threads)
        shared = (_gpu(number), self._stop, self._permits, self._runs, allowed_modules())
        process = self._context.Process(target=work, args=(*options, *shared), name=name)
        process.start()
        self._processes[number] = process

    def _log(self, number: int) -> Path:
        return self._logs / f"worker-{number}.log"


def _machine() -> str:
    """This machine, or the part of it in which process ids are its own, as in a container."""
    namespace = Path("/proc/self/ns/pid")
    part = f"/{namespace.stat().st_ino}" if namespace.exists() else ""
    return f"{socket.gethostname().replace(' ', '_')}{part}"


def _give_up_dead(store: Store) -> None:
    """Ends the trials of sweeps on this machine that were killed, without waiting for the grace."""
    from optuna.trial import TrialState

    for trial in store.trials(TrialState.RUNNING):
        worker = str(trial.user_attrs.get("worker", ""))
        machine, _, rest = worker.partition(" ")
        pid = rest.partition(" ")[0]
        if machine == _machine() and pid.isdigit() and not is_alive(int(pid)):
            store.give_up(worker)


def _gpu(number: int) -> str | None:
    """The GPU of a worker, as `CUDA_VISIBLE_DEVICES` names it, where there are several."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return gpus[number % len(gpus)] if len(gpus) > 1 else None


def work(
    url: str,
    sweep_name: str,
    log: Path,
    threads: int,
    gpu: str | None,
    stop: Any,
    permits: Any,
    runs: Mapping[str, Config],
    modules: Sequence[str],
) -> None:
    """Does runs in a worker process, one after the other.

    Args:
        url: The store's database.
        sweep_name: The sweep's name.
        log: The file for what the process prints.
        threads: Threads that torch computes with.
        gpu: The one GPU that it sees; all if None.
        stop: An event: begin no other run.
        permits: A semaphore: how many runs all workers may still begin together.
        runs: The configs of the sweep file by id: no other is done.
        modules: Modules of one's own that the configs may name classes of.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command that started it decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    _print_to(log)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu

    import torch

    from taghead.errors import IGNORED_WARNINGS
    from taghead.sweep.run import train_and_test, versions
    from taghead.sweep.store import Store

    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    _quiet_lightning()
    torch.set_num_threads(threads)
    allow_modules(modules)
    name = multiprocessing.current_process().name
    store, origin = Store(url, sweep_name), versions()
    while not stop.is_set() and permits.acquire(block=False):
        if not store.run_next(name, train_and_test, origin, runs):
            permits.release()
            time.sleep(POLL_SEC)


def _quiet_lightning() -> None:
    """To be called after Lightning was imported, which sets its loggers' levels."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _print_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            os.dup2(file.fileno(), number)
