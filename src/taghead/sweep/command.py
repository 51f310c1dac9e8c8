"""The command `taghead sweep`: the runs of a sweep file, done by workers and reported."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from taghead.errors import DataError, check_counts
from taghead.sweep.spec import RunSpec, SweepSpec, read_sweep

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from taghead.sweep.store import Store
    from taghead.sweep.workers import Workers

REFRESH_SEC = 1.5


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
    try:
        from taghead.sweep.store import Store
        from taghead.sweep.workers import Workers, give_up_dead
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise DataError("taghead sweep needs Optuna: pip install 'taghead[sweep]'") from None
    folder = Path(output or f"runs/sweeps/{spec.name}")
    store = Store(storage or f"sqlite:///{folder}/study.db", spec.name)
    store.check(spec, runs)
    if workers:
        from taghead.sweep.run import check_configs

        try:
            known = store.current()
            check_configs(spec, [run for run in runs if run.id not in known])
            with _stop_requests() as stop:
                give_up_dead(store)
                store.enqueue(list(spec.factors), runs, retry_failed)
                left = len(runs) - len(store.ended())
                pool = Workers(store, folder / "logs", min(workers, left), threads, limit, runs)
                _run(store, runs, pool, folder, stop)
        except KeyboardInterrupt:
            store.write_tables(folder)
            print("stopped; the same command resumes it")
            raise SystemExit(128 + stop.number) from None
    _report(store, runs, folder)


def _list_runs(spec: SweepSpec, runs: Sequence[RunSpec]) -> None:
    from taghead.sweep.run import check_configs

    check_configs(spec, runs, build=False)
    for run in runs:
        print(f"{run.id}  {run}{'  (control)' if run.is_control else ''}")
    print(f"{len(runs)} runs")


def _run(
    store: Store, runs: Sequence[RunSpec], workers: Workers, folder: Path, stop: Event
) -> None:
    """Has workers do the runs, and prints a line for each that has ended.

    Raises:
        KeyboardInterrupt: On a request to stop.
    """
    printed = set(store.ended())
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, speed_estimate_period=3600) as progress, workers:
        task = progress.add_task("runs", total=len(runs), completed=len(printed))
        is_running = True
        while is_running and len(printed) < len(runs):
            if stop.wait(REFRESH_SEC):
                raise KeyboardInterrupt
            is_running = workers.replace_dead()
            store.retry_stale()
            store.enqueue(store.factors, runs)  # those that were interrupted
            ended = {run: t for run, t in store.ended().items() if run not in printed}
            for trial in ended.values():
                progress.console.print(_line(trial), markup=False, highlight=False, soft_wrap=True)
            if ended:
                store.write_tables(folder, predictions=False)
            printed |= ended.keys()
            progress.update(task, completed=len(printed))


def _line(trial: FrozenTrial) -> str:
    """What is printed of a run that has ended."""
    attributes = trial.user_attrs
    run = f"{attributes['run']}  {RunSpec(attributes['levels'], attributes['seed'], {})}"
    if "error" in attributes:
        return f"{run}: failed: {attributes['error']}"
    result = attributes["result"]
    return f"{run}: Top-1 {result['top1']:.1%} ({result['train_sec']:.0f} s)"


def _report(store: Store, runs: Sequence[RunSpec], folder: Path) -> None:
    """Writes the tables, and prints how the runs ended."""
    from taghead.sweep.store import PREDICTIONS, RUNS, is_failed

    store.write_tables(folder)
    ended = store.ended()
    failed = [trial for trial in ended.values() if is_failed(trial)]
    print(f"{len(ended) - len(failed)} of {len(runs)} runs are done, {len(failed)} failed")
    print(f"{folder / RUNS}, {folder / PREDICTIONS}")
    if failed:
        for trial in failed:
            print(_line(trial))
        print("--retry_failed tries them again")
        raise SystemExit(1)


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
