"""The command `taghead sweep`: many variants of a training, into one table."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from taghead.errors import DataError, check_counts
from taghead.sweep.checking import check_runs
from taghead.sweep.spec import Run, Sweep, read_sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from taghead.sweep.store import Store

LOOK_SEC = 1.5


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
    """Trains and tests all runs of a sweep file; the same command again goes on with the rest.

    Args:
        file: The sweep file: a base config, factors with levels, seeds.
        workers: Processes that do runs; with 0 the tables are written from what the store has.
        storage: The database of the study, as SQLAlchemy names it; several machines may share
            one. `study.db` in the output when not given.
        output: The folder of the tables; `runs/sweeps/<name>` when not given.
        limit: At most so many runs are begun.
        threads: Threads that each process computes with.
        dry_run: Whether the runs are only listed, after their configs were parsed.
        retry_failed: Whether runs that ended with an error are tried again.

    Raises:
        DataError: If the file, a config of a run or the store cannot be used.
        ValueError: If an argument breaks its rule.
    """
    for name, value, least in (("workers", workers, 0), ("threads", threads, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least} (got {value})")
    if limit is not None:
        check_counts(limit=limit)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    read = read_sweep(file)
    runs = read.runs()
    if dry_run:
        _list(read, runs)
        return
    folder = Path(output or f"runs/sweeps/{read.name}")
    store = _store(storage or f"sqlite:///{folder}/study.db", read, runs)
    if workers:
        try:
            known = store.current()
            check_runs(read, [run for run in runs if run.id not in known])
            with _stop_asked() as asked:
                _queue(store, read, runs, retry_failed)
                _run(store, runs, folder, workers, threads, limit, asked)
        except KeyboardInterrupt:
            _write(store, folder)
            print("stopped; the same command goes on with what is left")
            raise SystemExit(130) from None
    _tell(store, runs, folder)


def _list(read: Sweep, runs: Sequence[Run]) -> None:
    check_runs(read, runs, build=False)
    for run in runs:
        print(f"{run.id}  {run}{'  (control)' if run.is_control else ''}")
    print(f"{len(runs)} runs")


def _store(url: str, read: Sweep, runs: Sequence[Run]) -> Store:
    try:
        from taghead.sweep.store import Store
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise DataError("taghead sweep needs Optuna: pip install 'taghead[sweep]'") from None
    store = Store(url, read.name)
    store.check(read, runs)
    return store


def _queue(store: Store, read: Sweep, runs: Sequence[Run], retry_failed: bool) -> None:
    """Gives up what died with its command, and queues what is not done."""
    from taghead.sweep.pool import is_dead

    for owner in {trial.user_attrs.get("owner") for trial in store.running()}:
        if owner and is_dead(owner):
            store.lose(owner, "")
    store.begin(list(read.factors))
    store.enqueue(runs, retry_failed)


def _run(
    store: Store,
    runs: Sequence[Run],
    folder: Path,
    workers: int,
    threads: int,
    limit: int | None,
    asked: Event,
) -> None:
    """Has workers do the runs, and tells what they did.

    Raises:
        KeyboardInterrupt: When it was asked to stop.
    """
    from taghead.sweep.pool import Pool
    from taghead.sweep.store import is_lost, is_over
    from taghead.sweep.table import write_runs

    told = {run for run, trial in store.current().items() if is_over(trial)}
    if len(told) == len(runs):
        return
    num_workers = min(workers, len(runs) - len(told))
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before the workers import torch
    with (
        _progress() as progress,
        Pool(store, num_workers, threads, limit, folder / "logs") as pool,
    ):
        task = progress.add_task("runs", total=len(runs), completed=len(told))
        pool.start()
        is_at_work = True
        while is_at_work and len(told) < len(runs):
            if asked.wait(LOOK_SEC):
                raise KeyboardInterrupt
            is_at_work = pool.tend()
            store.lose_stale()
            current = store.current()
            if any(map(is_lost, current.values())):
                store.enqueue(runs)
            new = [t for run, t in current.items() if is_over(t) and run not in told]
            for trial in new:
                told.add(trial.user_attrs["run"])
                progress.console.print(_line(trial), markup=False, highlight=False, soft_wrap=True)
            if new:
                write_runs(store, folder)
            progress.update(task, completed=len(told))


def _line(trial: FrozenTrial) -> str:
    """What is said of a run that is over."""
    told = trial.user_attrs
    run = Run(told["levels"], told["seed"], {})
    if "error" in told:
        return f"{told['run']}  {run}: failed: {told['error']}"
    result = told["result"]
    return f"{told['run']}  {run}: Top-1 {result['top1']:.1%} ({result['train_sec']:.0f} s)"


def _write(store: Store, folder: Path) -> None:
    from taghead.sweep.table import write_predictions, write_runs

    write_runs(store, folder)
    write_predictions(store, folder)


def _tell(store: Store, runs: Sequence[Run], folder: Path) -> None:
    """Writes the tables, and says how the runs ended."""
    from taghead.sweep.store import is_failed, is_over
    from taghead.sweep.table import PREDICTIONS, RUNS

    _write(store, folder)
    current = store.current()
    over = [trial for trial in current.values() if is_over(trial)]
    failed = [trial for trial in over if is_failed(trial)]
    print(f"{len(over) - len(failed)} of {len(runs)} runs are done, {len(failed)} failed")
    print(f"{folder / RUNS}, {folder / PREDICTIONS}")
    if failed:
        for trial in failed:
            print(_line(trial))
        print("--retry_failed tries them again")
        raise SystemExit(1)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=3600,
    )


@contextmanager
def _stop_asked() -> Iterator[Event]:
    """Notes Ctrl-C, and what ends a job of a cluster, for a moment when the store is not in use.

    Raised in the middle of a transaction, an interrupt would leave the database locked.
    """
    asked = Event()
    before = {
        number: signal.signal(number, lambda *_: asked.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
