"""A sweep's stored runs and predictions, read and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from taghead.errors import DataError
from taghead.metrics import accuracies

FIRST = ("run", "sweep")
AFTER = (
    *("seed", "control", "status", "error", "top1", "mca", "val_top1", "num_train", "num_test"),
    *("parameters", "head_parameters", "head_gflop", "head_latency_ms", "train_sec", "epochs"),
    *("data", "commit", "torch", "pyg", "started", "config"),
)
NUMBERS = (
    *("top1", "mca", "val_top1", "num_train", "num_test", "parameters", "head_parameters"),
    *("head_gflop", "head_latency_ms", "train_sec", "epochs"),
)
ROUNDING = 1e-4  # how far a stored accuracy may be from that of the stored predictions

ABSENT = "none"  # a control's level of the factor that it lacks, as is an empty one

Levels = tuple[str, ...]


@dataclass(frozen=True)
class SweepTable:
    """The runs of one sweep, and what those that are done predicted for the same clips.

    Args:
        name: The sweep's name.
        folder: Where it is stored.
        factors: The names of its factors.
        named: Those of them that were named to tell the controls, which have them otherwise.
        runs: All runs that are done, a row each, sorted; `levels` are those of the factors.
        others: The runs that are not done.
        clips: Ids of the test clips, sorted.
        classes: Their classes.
        correct: Whether each run is right on each clip.

    Shapes:
        - **classes** `[C]`, **correct** `[R, C]`
    """

    name: str
    folder: Path
    factors: tuple[str, ...]
    named: frozenset[str]
    runs: pd.DataFrame
    others: pd.DataFrame
    clips: np.ndarray
    classes: np.ndarray
    correct: np.ndarray

    def clusters(self, cluster_of: Callable[[str], str]) -> np.ndarray:
        """The number of each clip's cluster `[C]`, by a function of its id."""
        names = [cluster_of(str(clip)) for clip in self.clips]
        return np.unique(names, return_inverse=True)[1]


def read_table(folder: str | Path, control: str | None = None) -> SweepTable:
    """Reads `runs.csv` and `predictions.parquet` of a folder.

    Args:
        folder: A sweep's folder.
        control: Which runs are controls, `factor=level[,factor=level]`, where the table's own
            column shall not say it.

    Raises:
        DataError: If a column is missing or breaks its rule, runs are there twice, tested other
            clips or other data, or their stored accuracies are not those of their predictions.
    """
    path = Path(folder) / "runs.csv"
    table = _read_runs(path)
    names = list(table.columns)
    factors = tuple(names[names.index("sweep") + 1 : names.index("seed")])
    if not factors:
        raise DataError(f"{path}: there must be a column for each factor between sweep and seed")
    if len(sweeps := sorted(set(table["sweep"]))) != 1:
        raise DataError(
            f"{path}: the runs must be of one sweep (got {', '.join(sweeps) or 'none'})"
        )
    wanted: dict[str, str] = {}
    if control is not None:
        wanted = _wanted_levels(control, factors)
        table["control"] = (table[list(wanted)] == list(wanted.values())).all(axis=1)
    if not table["control"].any():
        raise DataError(
            f"{path}: no run is a control: the column control is false everywhere, and --control "
            "names the factors that make one, such as relations=none"
        )
    table["levels"] = list(map(tuple, table[list(factors)].to_numpy().tolist()))
    by_name = pd.Series(
        [[level_key(level) for level in levels] for levels in table["levels"]], index=table.index
    )
    order = sorted(table.index, key=lambda i: (by_name[i], table["seed"][i], table["run"][i]))
    table = table.loc[order].reset_index(drop=True)
    is_done = table["status"] == "done"
    done, others = table[is_done].reset_index(drop=True), table[~is_done].reset_index(drop=True)
    _check_runs(path, table, done)
    source = Path(folder) / "predictions.parquet"
    clips, classes, correct, mca = _read_predictions(source, done["run"].tolist())
    for column, recomputed in (("top1", correct.mean(axis=1)), ("mca", mca)):
        wrong = ~(np.abs(done[column].to_numpy(float) - recomputed) <= ROUNDING)
        if wrong.any():
            run, stored = done.loc[wrong, "run"].iloc[0], done.loc[wrong, column].iloc[0]
            raise DataError(
                f"{path}: {column} of run {run} must be that of its predictions, "
                f"{recomputed[wrong][0]:.6f} (got {stored})"
            )
    done["top1"], done["mca"] = correct.mean(axis=1), mca
    return SweepTable(
        name=sweeps[0],
        folder=Path(folder),
        factors=factors,
        named=frozenset(wanted),
        runs=done,
        others=others,
        clips=clips,
        classes=classes,
        correct=correct,
    )


def cluster_pattern(pattern: str) -> Callable[[str], str]:
    """The cluster of a clip: what a regular expression finds in its id, its first group if any.

    Raises:
        ValueError: If it is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"clusters must be a regular expression (got {pattern!r}: {error})"
        ) from None

    def cluster_of(clip: str) -> str:
        found = compiled.search(clip)
        if found is None:
            raise ValueError(f"clusters must match every clip's id: {pattern!r} not in {clip!r}")
        return found.group(min(1, compiled.groups)) or ""

    return cluster_of


def _read_runs(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        # a level may be called none or NA: text stays text
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a table: {error}") from error
    if missing := [name for name in (*FIRST, *AFTER) if name not in table.columns]:
        raise DataError(f"{path}: columns missing: {', '.join(missing)}")
    for name in ("seed", *NUMBERS):
        try:
            table[name] = pd.to_numeric(table[name].replace("", None))
        except ValueError as error:
            raise DataError(f"{path}: {name} must be a number: {error}") from error
    if table["seed"].isna().any() or (table["seed"] % 1 != 0).any():
        raise DataError(f"{path}: seed must be an integer in every run")
    table["seed"] = table["seed"].astype(int)
    truth = table["control"].str.lower()
    if wrong := sorted(set(truth) - {"true", "false"}):
        raise DataError(f"{path}: control must be true or false (got {wrong[0]!r})")
    table["control"] = truth == "true"
    return table


def _wanted_levels(control: str, factors: tuple[str, ...]) -> dict[str, str]:
    """The levels of `factor=level[,factor=level]`."""
    wanted = {}
    for term in control.split(","):
        factor, equals, level = (part.strip() for part in term.partition("="))
        if not equals or factor not in factors:
            raise ValueError(
                f"control must be factor=level with a factor of {', '.join(factors)} (got {term!r})"
            )
        wanted[factor] = level
    return wanted


def _check_runs(path: Path, table: pd.DataFrame, done: pd.DataFrame) -> None:
    if done.empty:
        raise DataError(f"{path}: no run is done")
    if (again := table["run"].duplicated()).any():
        raise DataError(f"{path}: run {table['run'][again].iloc[0]} is there twice")
    same = done.duplicated(["levels", "control", "seed"], keep=False)
    if same.any():
        first = done[same].iloc[0]
        twins = done.query("levels == @first.levels and control == @first.control")
        runs = ", ".join(twins.loc[twins["seed"] == first["seed"], "run"])
        raise DataError(f"{path}: one run a configuration and seed: {runs} have the same")
    if len(digests := sorted(set(done["data"]))) > 1:
        raise DataError(f"{path}: all runs must have the same data (got {', '.join(digests)})")


def _read_predictions(
    path: Path, runs: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clips `[C]`, their classes `[C]`, what each run has right `[R, C]`, and its MCA `[R]`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        table = pd.read_parquet(path, columns=["run", "clip", "label", "predicted"])
    except Exception as error:  # pyarrow raises types of its own
        raise DataError(f"{path}: not a table of predictions: {error}") from error
    groups = dict(tuple(table.groupby("run", sort=False)))
    clips: np.ndarray | None = None
    labels = np.zeros(0, int)
    predicted = []
    for run in runs:
        if run not in groups:
            raise DataError(f"{path}: run {run} is done and has no predictions")
        own = groups[run].sort_values("clip", kind="stable")
        if own["clip"].duplicated().any():
            clip = own.loc[own["clip"].duplicated(), "clip"].iloc[0]
            raise DataError(f"{path}: run {run} has clip {clip} twice")
        ids = own["clip"].to_numpy(str)
        if clips is None:
            clips, labels = ids, own["label"].to_numpy(int)
        elif not np.array_equal(ids, clips):
            only = sorted(set(ids) ^ set(clips))[0]
            raise DataError(
                f"{path}: all runs must be tested on the same clips: runs {runs[0]} and {run} have "
                f"{len(clips)} and {len(ids)}, and {only} is of one alone"
            )
        if not np.array_equal(own["label"].to_numpy(int), labels):
            raise DataError(f"{path}: runs {runs[0]} and {run} have different labels for a clip")
        predicted.append(own["predicted"].to_numpy(int))
    assert clips is not None
    correct = np.stack(predicted) == labels
    return clips, labels, correct, accuracies(_outcomes(labels, correct))["mca"]


def _outcomes(labels: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Right, and wrong, clips of each class of each run, as metrics count them `[R, K, 3]`."""
    member = np.eye(labels.max() + 1, dtype=int)[labels]  # [C, K]
    right = correct.astype(int) @ member
    return np.stack([right, np.zeros_like(right), member.sum(axis=0) - right], axis=-1)


def level_key(level: str) -> tuple[int, float, str]:
    """How a level is sorted: the empty one, numbers in their order, words in theirs."""
    try:
        return (1, float(level), level) if level else (0, 0.0, "")
    except ValueError:
        return (2, 0.0, level)
