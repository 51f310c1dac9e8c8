"""The store of a sweep: an Optuna study whose trials are attempts at its runs, and its tables.

A run's state is that of its newest trial, or done where any is complete. A trial that failed
without the attribute `error` was interrupted, and its run is queued again. Optuna's heartbeat finds
trials whose process or machine is gone.
"""

from __future__ import annotations

import hashlib
import logging
import math
import traceback
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pandas as pd
import pyarrow as pa
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from pyarrow import parquet

from taghead.errors import DataError, one_line
from taghead.files import atomic_folder, check_regular, config_differences
from taghead.sweep.spec import (
    MEASUREMENTS,
    ORIGIN,
    Config,
    RunResult,
    RunSpec,
    SweepSpec,
    run_columns,
)
from taghead.sweep.trial_attributes import (
    from_chunks,
    json_bytes,
    spec_attributes,
    spec_of,
    to_chunks,
)

T = TypeVar("T")
HEARTBEAT_SEC = 10
GRACE_SEC = 90  # without a heartbeat, until a trial is given up
MAX_DEATHS = 3  # of a run's process, until the run is recorded as failed
RUNS, PREDICTIONS = "runs.csv", "predictions.parquet"
SCHEMA = pa.schema(
    [("run", pa.string()), ("clip", pa.string()), ("label", pa.int64()), ("predicted", pa.int64())]
)

optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)


class _Storage(RDBStorage):
    """A database in which a trial is claimed once and has a heartbeat as soon as it is claimed.

    Args:
        url: The database, as SQLAlchemy names it.
    """

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {}
        self.lock: FileLock | nullcontext[None] = nullcontext()
        if url.startswith("sqlite:///"):  # it does not lock rows that are read
            file = Path(url.removeprefix("sqlite:///"))
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.exists():
                check_regular(file)  # a pipe or a device need not end
            self.lock = FileLock(f"{file}.lock")
            options = {"connect_args": {"timeout": 60}}
        with self.lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(
                url,
                options,
                heartbeat_interval=HEARTBEAT_SEC,
                grace_period=GRACE_SEC,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        with self.lock:
            if state == TrialState.RUNNING:
                super().record_heartbeat(trial_id)
            return super().set_trial_state_values(trial_id, state, values)

    def record_heartbeat(self, trial_id: int) -> None:
        with suppress(StorageInternalError):  # the database is busy; the next one may do
            super().record_heartbeat(trial_id)


class Store:
    """The study of a sweep.

    Args:
        url: The database, as SQLAlchemy names it.
        name: The sweep's name.

    Raises:
        DataError: If the database cannot be opened.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        try:
            storage = _Storage(url)
            self._lock = storage.lock
            with self._lock:
                self.study = optuna.create_study(
                    storage=storage,
                    study_name=name,
                    sampler=optuna.samplers.RandomSampler(),
                    direction="maximize",
                    load_if_exists=True,
                )
        except Exception as error:  # SQLAlchemy, its drivers and Optuna raise types of their own
            raise DataError(f"{url}: not a usable store: {one_line(error)}") from error

    @property
    def factors(self) -> list[str]:
        """The factors of the runs, in the sweep file's order."""
        return self.study.user_attrs.get("factors", [])

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in some states, or all, oldest first."""
        found = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if isinstance(trial.user_attrs.get("run"), str)]

    def current(self) -> dict[str, FrozenTrial]:
        """The trial that decides each run's state, by the run's id."""
        found: dict[str, FrozenTrial] = {}
        for trial in self.trials():
            run = trial.user_attrs["run"]
            is_done = run in found and found[run].state == TrialState.COMPLETE
            if not is_done and trial.state != TrialState.PRUNED:
                found[run] = trial
        return found

    def ended(self) -> dict[str, FrozenTrial]:
        """The trials of the runs that are done or failed, by the run's id."""
        return {run: trial for run, trial in self.current().items() if is_ended(trial)}

    def check(self, sweep: SweepSpec, runs: Sequence[RunSpec]) -> None:
        """Checks that a sweep file has all runs that the store has.

        Raises:
            DataError: If a run is gone or its labels have changed.
        """
        if self.factors and self.factors != list(sweep.factors):
            raise DataError(
                f"{self.url}: has runs of the factors {', '.join(self.factors)}, {sweep.path} has "
                f"{', '.join(sweep.factors)}; choose another --output or --storage"
            )
        by_id, by_name = {run.id: run for run in runs}, {str(run): run for run in runs}
        configs = {run.id: run.config for run in runs}
        for trial in self.trials():
            run_id = trial.user_attrs["run"]
            try:
                stored, run = spec_of(trial, configs), by_id.get(run_id)
            except DataError as error:
                raise DataError(f"{self.url}: {error}") from error
            if run is not None and (run.levels, run.seed) == (stored.levels, stored.seed):
                continue
            what = f"has the run {stored} ({run_id}), which {sweep.path} does not have"
            if (changed := by_name.get(str(stored))) is not None:
                key, here, there = next(config_differences(stored.config, changed.config))
                what = f"has the run {stored} with {key} = {here!r}, {sweep.path} with {there!r}"
            raise DataError(
                f"{self.url}: {what}: runs may only be added; choose another --output or --storage"
            )

    def enqueue(
        self, factors: Sequence[str], runs: Sequence[RunSpec], retry_failed: bool = False
    ) -> int:
        """Queues the runs that are neither done nor failed, running or queued already.

        Args:
            factors: The sweep's factors, in the file's order.
            runs: All runs.
            retry_failed: Whether runs that failed are queued as well.

        Returns:
            How many were queued.
        """
        count = 0
        with self._lock:
            if not self.factors:
                self.study.set_user_attr("factors", list(factors))
            current = self.current()
            for run in runs:
                trial = current.get(run.id)
                if trial is None or is_interrupted(trial) or (retry_failed and is_failed(trial)):
                    self._add(TrialState.WAITING, spec_attributes(self.name, run))
                    count += 1
        return count

    def run_next(
        self,
        worker: str,
        function: Callable[[Config], RunResult],
        origin: Mapping[str, str],
        runs: Mapping[str, Config] | None = None,
    ) -> bool:
        """Does the run that waits longest, and records its result or its error.

        A store may be shared, and a config is code: one that is not the config of its run's id is
        not done, and recorded as an error.

        Args:
            worker: The name of the process that does it.
            function: Does a run, from its config.
            origin: What a result depends on beside the config; recorded with an error.
            runs: The configs of the sweep file by id. Runs that it does not have are left to other
                machines. With None, all are done.

        Returns:
            Whether a run was begun.
        """
        begun = False

        def is_left(trial: Trial | FrozenTrial) -> bool:
            return runs is not None and trial.user_attrs["run"] not in runs

        def objective(trial: Trial) -> float:
            nonlocal begun
            if self._is_superfluous(trial):
                raise optuna.TrialPruned
            if is_left(trial):
                self._add(TrialState.WAITING, trial.user_attrs)
                raise optuna.TrialPruned
            begun = True
            print(f"run {trial.user_attrs['run']}: {trial.user_attrs['levels']}", flush=True)
            trial.set_user_attr("worker", worker)
            try:
                config = spec_of(trial, runs).config
                return self._record(trial, function(config))
            except Exception as error:
                traceback.print_exc()
                trial.set_user_attr("result", dict(origin))
                trial.set_user_attr("error", f"{type(error).__name__}: {one_line(error)}"[:2000])
                raise

        if not all(map(is_left, self.trials(TrialState.WAITING))):
            # an error that is not the run's: the database was busy, or the trial was given up
            # meanwhile and its run is another's now
            with suppress(StorageInternalError, ValueError), warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self.study.optimize(objective, n_trials=1, catch=Exception)
        return begun

    def _is_superfluous(self, trial: Trial) -> bool:
        """Whether the queue was empty, or an older trial of the run is done or live.

        Two machines may queue a run at the same moment.
        """
        run = trial.user_attrs.get("run")
        states = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
        older = [other for other in self.trials(*states) if other.number < trial.number]
        return run is None or any(other.user_attrs["run"] == run for other in older)

    def _record(self, trial: Trial, result: RunResult) -> float:
        for name, value in result.values.items():  # for JSON, and Optuna fails without a reason
            if isinstance(value, float) and math.isnan(value):
                raise ValueError(f"{name} must be a number (got NaN): was no clip tested?")
            if isinstance(value, float) and math.isinf(value):
                raise ValueError(f"{name} must be a finite number (got {value})")
        digest = hashlib.sha256(json_bytes(result.clips)).hexdigest()[:12]
        for name, chunk in to_chunks(f"clips:{digest}", result.clips).items():
            if name not in self.study.user_attrs:  # stored once for all runs that share the clips
                self.study.set_user_attr(name, chunk)
        trial.set_user_attr("result", {**result.values, "clips": digest})
        for name, chunk in to_chunks("predicted", result.predicted).items():
            trial.set_user_attr(name, chunk)
        return float(result.values["top1"])

    def retry_stale(self) -> None:
        """Queues the runs again whose processes have shown no heartbeat for `GRACE_SEC` seconds."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(self.study)

    def give_up(self, worker: str, reason: str | None = None) -> bool:
        """Ends the trial that a worker was doing, so that its run is done again.

        Args:
            worker: The name of a process that has ended.
            reason: How it died; a run of which `MAX_DEATHS` processes died is recorded as failed.
                None if it was stopped.

        Returns:
            Whether it was doing any.
        """
        trials = self.trials(TrialState.RUNNING)
        trials = [trial for trial in trials if trial.user_attrs.get("worker") == worker]
        for trial in trials:
            try:
                self.study.tell(trial.number, state=TrialState.FAIL)
            except ValueError:  # it ended meanwhile
                continue
            if reason is None:
                continue
            deaths = trial.user_attrs.get("deaths", 0) + 1
            attributes = {**trial.user_attrs, "deaths": deaths}
            if deaths < MAX_DEATHS:
                self._add(TrialState.WAITING, attributes)
            else:
                self._add(TrialState.FAIL, {**attributes, "error": f"{reason}, {deaths} times"})
        return bool(trials)

    def _add(self, state: TrialState, attributes: Mapping[str, Any]) -> None:
        self.study.add_trial(create_trial(state=state, user_attrs=dict(attributes)))

    def write_tables(self, folder: Path, predictions: bool = True) -> None:
        """Writes the tables of the runs that are done or failed, each file in one step.

        Args:
            folder: The folder of `runs.csv`, a row a run, and `predictions.parquet`, a row for each
                run that is done and each test clip.
            predictions: Whether the second is written too.
        """
        ended = [trial for _, trial in sorted(self.ended().items())]
        rows = [self._checked(_row, trial) for trial in ended]
        with atomic_folder(folder) as stage:
            table = pd.DataFrame(rows, columns=run_columns(self.factors), dtype=object)
            table.to_csv(stage / RUNS, index=False, lineterminator="\n")
            if predictions:
                done = [trial for trial in ended if trial.state == TrialState.COMPLETE]
                found = [self._checked(self._prediction_rows, trial) for trial in done]
                tables = [SCHEMA.empty_table(), *found]
                parquet.write_table(
                    pa.concat_tables(tables), stage / PREDICTIONS, compression="zstd"
                )

    def _checked(self, function: Callable[[FrozenTrial], T], trial: FrozenTrial) -> T:
        """A function of a trial's attributes, which may be anyone's."""
        try:
            return function(trial)
        except (LookupError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise DataError(
                f"{self.url}: trial {trial.number} has no result as taghead sweep stores it "
                f"({type(error).__name__}: {one_line(error)})"
            ) from error

    def _prediction_rows(self, trial: FrozenTrial) -> pa.Table:
        attributes = trial.user_attrs
        clips = from_chunks(f"clips:{attributes['result']['clips']}", self.study.user_attrs)
        names, labels = zip(*clips, strict=True)
        runs = [attributes["run"]] * len(names)
        predicted = from_chunks("predicted", attributes)
        return pa.table([runs, list(names), list(labels), predicted], schema=SCHEMA)


def is_failed(trial: FrozenTrial) -> bool:
    """Whether a run ended with an error."""
    return trial.state == TrialState.FAIL and "error" in trial.user_attrs


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a run ended with its process."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def is_ended(trial: FrozenTrial) -> bool:
    """Whether a run is done or failed."""
    return trial.state == TrialState.COMPLETE or is_failed(trial)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    """A row of the table of runs; a cell that is left out is empty."""
    attributes = trial.user_attrs
    is_done = trial.state == TrialState.COMPLETE
    result = attributes.get("result", {})
    return {
        **{name: attributes[name] for name in ("run", "sweep", "seed", "config")},
        **attributes["levels"],
        "control": str(attributes["control"]).lower(),
        "status": "done" if is_done else "failed",
        "error": "" if is_done else attributes["error"],
        **{name: result.get(name) for name in (*MEASUREMENTS, *ORIGIN)},
    }
