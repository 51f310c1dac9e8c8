"""The tables of a sweep: one of runs, one of predictions. Both come from the store alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
from optuna.trial import FrozenTrial, TrialState
from pyarrow import parquet

from taghead.files import atomic_folder
from taghead.sweep.columns import NUMBERS, ORIGIN, columns
from taghead.sweep.store import Store, is_over

RUNS, PREDICTIONS = "runs.csv", "predictions.parquet"
SCHEMA = pa.schema(
    [("run", pa.string()), ("clip", pa.string()), ("label", pa.int64()), ("predicted", pa.int64())]
)


def finished_trials(store: Store) -> list[FrozenTrial]:
    """A trial for each run that is done or failed, sorted by the run's id."""
    current = store.current()
    return [current[run] for run in sorted(current) if is_over(current[run])]


def row(trial: FrozenTrial) -> dict[str, Any]:
    """A run's row; a cell that is left out is empty."""
    told = trial.user_attrs
    is_done = trial.state == TrialState.COMPLETE
    result = told.get("result", {})
    return {
        "run": told["run"],
        "sweep": told["sweep"],
        **told["levels"],
        "seed": told["seed"],
        "control": str(told["control"]).lower(),
        "status": "done" if is_done else "failed",
        "error": "" if is_done else told["error"],
        **{name: result.get(name) for name in (*NUMBERS, *ORIGIN)},
        "config": told["config"],
    }


def write_runs(store: Store, folder: Path) -> None:
    """Writes `runs.csv`, which replaces its predecessor in one step."""
    with atomic_folder(folder) as stage:
        with (stage / RUNS).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns(store.factors), lineterminator="\n")
            writer.writeheader()
            writer.writerows(row(trial) for trial in finished_trials(store))


def write_predictions(store: Store, folder: Path) -> None:
    """Writes `predictions.parquet`, a row for each run that is done and each test clip."""
    tables = [SCHEMA.empty_table()]
    for trial in finished_trials(store):
        if trial.state == TrialState.COMPLETE:
            clips, predicted = store.predictions(trial)
            names, labels = zip(*clips, strict=True)
            runs = [trial.user_attrs["run"]] * len(names)
            cells = [runs, list(names), list(labels), predicted]
            tables.append(pa.table(cells, schema=SCHEMA))
    with atomic_folder(folder) as stage:
        parquet.write_table(pa.concat_tables(tables), stage / PREDICTIONS, compression="zstd")
