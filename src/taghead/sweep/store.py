"""The store of a sweep: an Optuna study in a database, with one trial for each time a run is tried.

A run's trials tell its state: done if one is complete; else the newest decides. A trial that failed
without an error was lost, with the process that ran it, and its run is queued again.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from taghead.errors import DataError, one_line
from taghead.sweep.overrides import Config, differences
from taghead.sweep.packing import packed, unpacked
from taghead.sweep.spec import Run, Sweep

HEARTBEAT_SEC = 10
GRACE_SEC = 90
MAX_LOST = 3
LIVE = (TrialState.WAITING, TrialState.RUNNING)

optuna.logging.set_verbosity(optuna.logging.ERROR)
logging.getLogger("alembic").setLevel(logging.ERROR)


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
        options: dict[str, Any] = {}
        if url.startswith("sqlite:///"):
            file = Path(url.removeprefix("sqlite:///"))
            file.parent.mkdir(parents=True, exist_ok=True)
            options = {"connect_args": {"timeout": 60}}
            self._lock: FileLock | None = FileLock(f"{file}.lock")
        else:
            self._lock = None
        try:
            with self.exclusive(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # heartbeats are called experimental
                self.storage = RDBStorage(
                    url, options, heartbeat_interval=HEARTBEAT_SEC, grace_period=GRACE_SEC
                )
                self.study = optuna.create_study(
                    storage=self.storage, study_name=name, direction="maximize", load_if_exists=True
                )
        except Exception as error:  # SQLAlchemy, its drivers and Optuna raise types of their own
            raise DataError(f"{url}: not a usable store: {one_line(error)}") from error

    def exclusive(self) -> AbstractContextManager[Any]:
        """Where SQLite is asked and then told, as it does not lock the rows that are read."""
        return nullcontext() if self._lock is None else self._lock

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials, oldest first."""
        found = self.study.get_trials(deepcopy=False, states=states or None)
        return [trial for trial in found if "run" in trial.user_attrs]

    def current(self) -> dict[str, FrozenTrial]:
        """The trial of each run that tells its state."""
        found: dict[str, FrozenTrial] = {}
        for trial in self.trials():
            run = trial.user_attrs["run"]
            is_done = run in found and found[run].state == TrialState.COMPLETE
            if not is_done and trial.state != TrialState.PRUNED:
                found[run] = trial
        return found

    def running(self) -> list[FrozenTrial]:
        """The trials that somebody is doing."""
        return self.trials(TrialState.RUNNING)

    @property
    def factors(self) -> list[str]:
        """The factors of the runs, in the sweep file's order."""
        return self.study.user_attrs.get("factors", [])

    def begin(self, factors: list[str]) -> None:
        """Keeps the factors of the runs."""
        if not self.factors:
            self.study.set_user_attr("factors", factors)

    def check(self, sweep: Sweep, runs: Sequence[Run]) -> None:
        """Checks that a sweep file makes all runs that the store has.

        Raises:
            DataError: If a run is gone or its labels have changed.
        """
        if self.factors and self.factors != list(sweep.factors):
            raise DataError(
                f"{self.url}: has runs of the factors {', '.join(self.factors)}, {sweep.path} has "
                f"{', '.join(sweep.factors)}; choose another --output or --storage"
            )
        known = {run.id: run for run in runs}
        by_name = {str(run): run for run in runs}
        for trial in self.trials():
            told = trial.user_attrs
            stored = Run(told["levels"], told["seed"], self.config(trial))
            run = known.get(told["run"])
            if run is not None and (run.levels, run.seed) == (stored.levels, stored.seed):
                continue
            what = f"has the run {stored} ({told['run']}), which {sweep.path} does not make"
            if str(stored) in by_name:
                changed = differences(stored.config, by_name[str(stored)].config)
                key, here, there = next(changed)
                what = f"has the run {stored} with {key} = {here!r}, {sweep.path} with {there!r}"
            raise DataError(
                f"{self.url}: {what}: runs may only be added; choose another --output or --storage"
            )

    def enqueue(self, runs: Sequence[Run], retry_failed: bool = False) -> int:
        """Queues the runs that are not done and that nobody is about to do.

        Args:
            runs: All runs.
            retry_failed: Whether those that ended with an error are queued as well.

        Returns:
            How many were queued.
        """
        count = 0
        with self.exclusive():
            current = self.current()
            for run in runs:
                trial = current.get(run.id)
                if trial is None or is_lost(trial) or (retry_failed and is_failed(trial)):
                    self.study.add_trial(
                        create_trial(state=TrialState.WAITING, user_attrs=_identity(self.name, run))
                    )
                    count += 1
        return count

    def claim(self, owner: str) -> FrozenTrial | None:
        """Takes the next waiting run, or nothing if none waits.

        Args:
            owner: Who takes it.
        """
        with self.exclusive():
            for trial in self.trials(TrialState.WAITING):
                try:
                    # a trial's first heartbeat stands before anyone could miss it
                    self.storage.record_heartbeat(trial._trial_id)
                    if not self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                        continue
                except (UpdateFinishedTrialError, StorageInternalError):
                    continue  # another machine was faster
                if self._is_double(trial):
                    self._finish(trial, TrialState.PRUNED)
                    continue
                self.storage.set_trial_user_attr(trial._trial_id, "owner", owner)
                return trial
        return None

    def _is_double(self, trial: FrozenTrial) -> bool:
        """Whether an older trial of the run is done or live: two machines may queue it at once."""
        return any(
            other.number < trial.number and other.user_attrs["run"] == trial.user_attrs["run"]
            for other in self.trials(*LIVE, TrialState.COMPLETE)
        )

    def complete(
        self, trial: FrozenTrial, result: Mapping[str, Any], clips: Any, predicted: Any
    ) -> bool:
        """Records what a run gave, unless another did the run meanwhile.

        Args:
            trial: Its trial.
            result: Numbers and what they depend on; `top1` is the study's objective.
            clips: The clips' ids and labels, kept once for all runs that share them.
            predicted: The predicted classes, in the clips' order.

        Returns:
            Whether it was recorded.
        """
        digest, pieces = packed(clips)
        for number, piece in enumerate(pieces):
            key = f"clips:{digest}:{number}"
            if key not in self.study.user_attrs:
                self.study.set_user_attr(key, piece)
        told: dict[str, Any] = {"result": {**result, "clips": digest}}
        for number, piece in enumerate(packed(predicted)[1]):
            told[f"predicted:{number}"] = piece
        return self._finish(trial, TrialState.COMPLETE, told, [float(result["top1"])])

    def fail(self, trial: FrozenTrial, error: str, result: Mapping[str, Any]) -> bool:
        """Records why a run could not be done; the arguments are those of `complete`."""
        told = {"error": error[:2000], "result": dict(result)}
        return self._finish(trial, TrialState.FAIL, told)

    def lose(self, owner: str, reason: str) -> list[FrozenTrial]:
        """Gives up what an owner was doing, as it is no more.

        Args:
            owner: Who.
            reason: Why; a run that ends its process again and again is recorded as failed with it.
                Without a reason it is nobody's fault.
        """
        lost = [
            trial
            for trial in self.trials(TrialState.RUNNING)
            if trial.user_attrs.get("owner") == owner
        ]
        for trial in lost:
            told = {"lost": reason} if reason else {}
            before = [t for t in self.trials(TrialState.FAIL) if _same_run(t, trial)]
            if reason and sum("lost" in t.user_attrs for t in before) + 1 >= MAX_LOST:
                told["error"] = f"{reason}, {MAX_LOST} times"
            self._finish(trial, TrialState.FAIL, told)
        return lost

    def lose_stale(self) -> None:
        """Gives up what nobody has shown a sign of life of for `GRACE_SEC` seconds."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optuna.storages.fail_stale_trials(self.study)

    def config(self, trial: FrozenTrial) -> Config:
        """A run's config."""
        return json.loads(trial.user_attrs["config"])

    def predictions(self, trial: FrozenTrial) -> tuple[list[tuple[str, int]], list[int]]:
        """The clips of a run that is done, ids and labels, and its predicted classes."""
        digest = trial.user_attrs["result"]["clips"]
        clips = unpacked(_pieces(self.study.user_attrs, f"clips:{digest}"))
        return clips, unpacked(_pieces(trial.user_attrs, "predicted"))

    def _finish(
        self,
        trial: FrozenTrial,
        state: TrialState,
        told: Mapping[str, Any] | None = None,
        values: Sequence[float] | None = None,
    ) -> bool:
        try:
            for key, value in (told or {}).items():
                self.storage.set_trial_user_attr(trial._trial_id, key, value)
            return self.storage.set_trial_state_values(trial._trial_id, state, values)
        except UpdateFinishedTrialError:  # it was given up, and its run is another's now
            return False


def is_failed(trial: FrozenTrial) -> bool:
    """Whether a run ended with an error."""
    return trial.state == TrialState.FAIL and "error" in trial.user_attrs


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a run ended with the process that did it."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def is_over(trial: FrozenTrial) -> bool:
    """Whether a run is done or ended with an error."""
    return trial.state == TrialState.COMPLETE or is_failed(trial)


def _same_run(one: FrozenTrial, other: FrozenTrial) -> bool:
    return one.user_attrs["run"] == other.user_attrs["run"]


def _identity(sweep: str, run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "sweep": sweep,
        "levels": run.levels,
        "seed": run.seed,
        "control": run.is_control,
        "config": json.dumps(run.config),
    }


def _pieces(attributes: Mapping[str, Any], name: str) -> Iterator[str]:
    number = 0
    while (piece := attributes.get(f"{name}:{number}")) is not None:
        yield piece
        number += 1
