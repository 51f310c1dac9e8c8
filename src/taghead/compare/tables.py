"""The tables of a sweep, `runs.csv` and `predictions.parquet`, read and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from taghead.errors import DataError, one_line

Levels = tuple[str, ...]

MEASUREMENTS = [
    *("top1", "mca", "val_top1", "num_train", "num_test", "parameters", "head_parameters"),
    *("head_gflop", "head_latency_ms", "train_sec", "epochs"),
]
COLUMNS = [
    *("run", "sweep", "seed", "control", "status", "error", *MEASUREMENTS),
    *("data", "commit", "torch", "pyg", "started", "config"),
]
"""All columns but those of the factors, which stand between `sweep` and `seed`."""

ROUNDING = 1e-4  # the most that a stored accuracy may differ from that of the stored predictions


@dataclass(frozen=True)
class SweepTable:
    """The runs of one sweep, and the correctness of their predictions on the same clips.

    Args:
        folder: The folder it is stored in.
        factors: The names of its factors.
        control_factors: The factors that `control` names, in which a control may differ from its
            configurations.
        runs: The runs that are done, a row each, sorted; `levels` has the levels of the factors.
        not_done: The other runs.
        clips: Ids of the test clips, sorted.
        classes: The classes of the test clips.
        correct: Whether each run's prediction for each clip is correct.

    Shapes:
        - **clips**, **classes** `[C]`, **correct** `[R, C]`
    """

    folder: Path
    factors: list[str]
    control_factors: list[str]
    runs: pd.DataFrame
    not_done: pd.DataFrame
    clips: np.ndarray
    classes: np.ndarray
    correct: np.ndarray

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.runs["sweep"].iloc[0]

    def clusters(self, pattern: re.Pattern[str]) -> np.ndarray:
        """The index of each clip's cluster `[C]`: clips in whose ids the same text is found.

        Args:
            pattern: A regular expression; its first group counts, if it has any.

        Raises:
            ValueError: If a clip's id has no match.
        """
        found = [pattern.search(clip) for clip in self.clips]
        if None in found:
            clip = str(self.clips[found.index(None)])
            raise ValueError(
                f"clusters must match every clip's id: {pattern.pattern!r} not in {clip!r}"
            )
        texts = [match.group(min(1, pattern.groups)) or "" for match in found if match]
        return np.unique(texts, return_inverse=True)[1]

    def format_levels(self, levels: Levels) -> str:
        """`factor=level, factor=level`, without the factors that do not apply."""
        pairs = zip(self.factors, levels, strict=True)
        return ", ".join(f"{factor}={level}" for factor, level in pairs if level) or "no factor"


def cluster_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression of :meth:`SweepTable.clusters`, from its text.

    Raises:
        ValueError: If it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"clusters must be a regular expression (got {pattern!r}: {error})"
        ) from None


def level_key(level: str) -> tuple[int, float, str]:
    """A sort key of levels: the empty level, then numbers by value, then text."""
    try:
        return (1, float(level), level) if level else (0, 0.0, "")
    except ValueError:
        return (2, 0.0, level)


def read_table(folder: str | Path, control: str | None = None) -> SweepTable:
    """Reads `runs.csv` and `predictions.parquet` of a folder.

    Args:
        folder: A sweep's folder.
        control: Which runs are controls, `factor=level[,factor=level]`; those that the table marks
            if None.

    Raises:
        DataError: If a column is missing or breaks its rule, a run is there twice, runs were tested
            on other clips or data, or a stored accuracy is not that of the predictions.
        ValueError: If `control` names no factor.
    """
    path = Path(folder) / "runs.csv"
    table = _read_runs(path)
    names = list(table.columns)
    factors = names[names.index("sweep") + 1 : names.index("seed")]
    if not factors:
        raise DataError(f"{path}: there must be a column for each factor between sweep and seed")
    wanted = {} if control is None else _control_levels(control, factors)
    if wanted:
        table["control"] = (table[list(wanted)] == list(wanted.values())).all(axis=1)
    table["levels"] = list(table[factors].itertuples(index=False, name=None))
    keys = zip(table["levels"], table["seed"], table["run"], table.index, strict=True)
    order = sorted(([*map(level_key, levels)], *others) for levels, *others in keys)
    table = table.loc[[index for *_, index in order]].reset_index(drop=True)
    is_done = table["status"] == "done"
    runs, not_done = (table[rows].reset_index(drop=True) for rows in (is_done, ~is_done))
    _check_runs(path, table, runs)
    clips, classes, correct = _read_predictions(path.with_name("predictions.parquet"), runs["run"])
    _, number = np.unique(classes, return_inverse=True)
    member = np.eye(number.max() + 1)[number]  # [C, K]
    mca = (correct @ member / member.sum(axis=0)).mean(axis=1)
    for column, recomputed in (("top1", correct.mean(axis=1)), ("mca", mca)):
        wrong = ~(np.abs(runs[column] - recomputed) <= ROUNDING)
        if wrong.any():
            run, stored = runs.loc[wrong, ["run", column]].iloc[0]
            raise DataError(
                f"{path}: {column} of run {run} must be that of its predictions, "
                f"{recomputed[wrong][0]:.6f} (got {stored})"
            )
        runs[column] = recomputed
    return SweepTable(Path(folder), factors, list(wanted), runs, not_done, clips, classes, correct)


def _load(path: Path, reader: Callable[..., pd.DataFrame], **options: Any) -> pd.DataFrame:
    try:
        return reader(path, **options)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except Exception as error:  # pandas and pyarrow raise types of their own
        raise DataError(f"{path}: not a table of {path.stem}: {one_line(error)}") from error


def _read_runs(path: Path) -> pd.DataFrame:
    # a level may be named none or NA: text stays text
    table = _load(path, pd.read_csv, dtype=str, keep_default_na=False)
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise DataError(f"{path}: columns missing: {', '.join(missing)}")
    for name in ("seed", *MEASUREMENTS):
        try:
            table[name] = pd.to_numeric(table[name].replace("", None)).astype(float)
        except ValueError as error:
            raise DataError(f"{path}: {name} must be a number: {error}") from error
        if np.isinf(table[name]).any():
            raise DataError(f"{path}: {name} must be a finite number (got inf)")
    if (table["seed"] % 1 != 0).any():  # an empty one as well
        raise DataError(f"{path}: seed must be an integer in every run")
    table["seed"] = table["seed"].astype(int)
    control = table["control"].str.lower()
    if wrong := sorted(set(control) - {"true", "false"}):
        raise DataError(f"{path}: control must be true or false (got {wrong[0]!r})")
    table["control"] = control == "true"
    return table


def _control_levels(control: str, factors: list[str]) -> dict[str, str]:
    """The levels of `factor=level[,factor=level]`."""
    levels = {}
    for term in control.split(","):
        factor, equals, level = (part.strip() for part in term.partition("="))
        if not equals or factor not in factors:
            raise ValueError(
                f"control must be factor=level with a factor of {', '.join(factors)} (got {term!r})"
            )
        levels[factor] = level
    return levels


def _check_runs(path: Path, table: pd.DataFrame, done: pd.DataFrame) -> None:
    if not table["control"].any():
        raise DataError(
            f"{path}: no run is a control: the column control is false in every row, and --control "
            "names the factors that make one, such as relations=none"
        )
    if done.empty:
        raise DataError(f"{path}: no run is done")
    if (again := table["run"].duplicated()).any():
        raise DataError(f"{path}: run {table['run'][again].iloc[0]} is there twice")
    for _, same in done.groupby(["levels", "control", "seed"], sort=False)["run"]:
        if len(same) > 1:
            runs = ", ".join(same)
            raise DataError(f"{path}: one run a configuration and seed: {runs} have the same")
    for found, rule in (
        (table["sweep"], "the runs must be of one sweep"),
        (done["data"], "all runs must have the same data"),
    ):
        if found.nunique() > 1:
            raise DataError(f"{path}: {rule} (got {', '.join(sorted(set(found)))})")


def _read_predictions(path: Path, runs: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips `[C]`, their classes `[C]`, and the correctness of each run `[R, C]`."""
    table = _load(path, pd.read_parquet, columns=["run", "clip", "label", "predicted"])
    table = table[table["run"].isin(runs)]
    for run in runs[~runs.isin(table["run"])]:
        raise DataError(f"{path}: run {run} is done and has no predictions")
    for _, row in table[table.duplicated(["run", "clip"])].iterrows():
        raise DataError(f"{path}: run {row['run']} has clip {row['clip']} twice")
    predicted = table.pivot(index="run", columns="clip", values="predicted").loc[runs]
    counts = predicted.notna().sum(axis=1)
    for clip in map(str, predicted.columns[predicted.isna().any()]):
        with_clip = predicted[clip].notna()
        one, other = str(with_clip.idxmax()), str(with_clip.idxmin())
        raise DataError(
            f"{path}: all runs must be tested on the same clips: runs {one} and {other} have "
            f"{counts[one]} and {counts[other]}, and {clip} is of one alone"
        )
    labels = table.groupby("clip")["label"]
    if (different := labels.nunique() > 1).any():
        raise DataError(f"{path}: runs have different labels for a clip: {different.idxmax()}")
    clips, classes = predicted.columns.to_numpy(str), labels.first().to_numpy(int)
    return clips, classes, predicted.to_numpy() == classes
