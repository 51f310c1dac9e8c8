"""The results of a sweep: one table of its configurations, each compared with its control."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from taghead.compare.statistics import (
    ALPHA,
    Bootstrap,
    Estimate,
    hierarchical_bootstrap,
    holm,
    paired_difference,
)
from taghead.compare.tables import Levels, SweepTable, level_key
from taghead.errors import DataError

ABSENT = ("", "none")  # levels of a control for a factor that it does not have
ACCURACIES = ["top1", "mca"]
COSTS = ["parameters", "head_parameters", "head_gflop", "head_latency_ms", "train_sec"]


class Effect(NamedTuple):
    """The mean difference to the control over all configurations with a level of a factor."""

    factor: str
    level: str
    num_configurations: int
    top1: Estimate


@dataclass(frozen=True)
class Results:
    """The results of a sweep. A configuration is the runs that differ in the seed alone.

    Args:
        table: The runs.
        numbers: The columns of `configurations.csv`, a row for each configuration by its display
            name: controls first, then sorted by levels. Those that compare with the control are
            NaN in controls, and where no seed is shared.
        levels: The level of each factor, in the rows of `numbers`.
        not_compared: Why a configuration is not compared, by its levels as text.
        effects: The effects of each factor with several levels in which the design is balanced.
        effect_seeds: The seeds that all comparisons have, on which effects are computed.
        unbalanced: The factors in which the design is not balanced.
        num_clusters: The number of clusters of test clips.
    """

    table: SweepTable
    numbers: pd.DataFrame
    levels: pd.DataFrame
    not_compared: dict[str, str]
    effects: list[Effect]
    effect_seeds: list[int]
    unbalanced: list[str]
    num_clusters: int

    @property
    def is_compared(self) -> np.ndarray:
        """Whether each row has a difference to its control."""
        return self.numbers["difference"].notna().to_numpy()

    @property
    def kinds(self) -> pd.Series:
        """The verdict on each row; `control` or `not compared` where there is none."""
        kinds = self.numbers["verdict"].fillna("not compared")
        return kinds.mask(self.numbers["control"], "control")


def varying_factors(levels: pd.DataFrame) -> list[str]:
    """The factors with several levels, the empty level included."""
    return levels.columns[levels.nunique() > 1].tolist()


def compare_configurations(
    table: SweepTable, cluster_of: re.Pattern[str] | None = None, num_draws: int = 10_000
) -> Results:
    """Compares every configuration of a sweep with its control.

    Args:
        table: The runs.
        cluster_of: What finds the cluster of a clip in its id; clips of a cluster depend on each
            other.
        num_draws: Draws of seeds and clips in the bootstrap.

    Raises:
        DataError: If a configuration has no control or several.
    """
    clusters = None if cluster_of is None else table.clusters(cluster_of)
    runs_of: dict[Any, pd.DataFrame] = dict(
        iter(table.runs.groupby(["control", "levels"], sort=False))
    )
    keys = sorted(runs_of, key=lambda key: not key[0])  # controls first
    levels = pd.DataFrame([own for _, own in keys], columns=table.factors)
    every = pd.concat([table.runs, table.not_done])
    controls = sorted(set(every.loc[every["control"], "levels"]))  # done or not
    pairs: dict[int, tuple[pd.DataFrame, pd.DataFrame]] = {}
    not_compared: dict[str, str] = {}
    for row, (is_control, own) in enumerate(keys):
        if is_control:
            continue
        runs = runs_of[False, own]
        control = runs_of.get((True, _control_of(table, own, controls)), runs.iloc[:0])
        shared = set(runs["seed"]) & set(control["seed"])
        if shared:
            pairs[row] = runs[runs["seed"].isin(shared)], control[control["seed"].isin(shared)]
        else:
            reason = "shares no seed with its control"
            if control.empty:
                reason = "no run of its control is done"
            not_compared[table.format_levels(own)] = reason
    compared, differences = paired_comparisons(table, list(pairs.values()), clusters, num_draws)
    numbers = pd.DataFrame([_measured(table, runs_of[key]) for key in keys])
    numbers = numbers.join(compared.set_axis(list(pairs)))
    numbers.index = pd.Index(list(_display_names(levels, numbers["control"])))
    seeds = [own["seed"] for own, _ in pairs.values()]
    common = sorted(set.intersection(*map(set, seeds))) if seeds else []
    on_common = [d[own.isin(common)] for d, own in zip(differences, seeds, strict=True)]
    effects, unbalanced = _effects(levels.loc[list(pairs)], on_common, clusters)
    num_clusters = len(table.clips) if clusters is None else len(np.unique(clusters))
    return Results(table, numbers, levels, not_compared, effects, common, unbalanced, num_clusters)


def paired_comparisons(
    table: SweepTable,
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]],
    clusters: np.ndarray | None,
    num_draws: int,
) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """Compares configurations with others.

    Args:
        table: The sweep.
        pairs: The runs of each configuration, and of the one that it is compared with on the same
            seeds.
        clusters: Indices of clusters of clips `[C]`.
        num_draws: Draws in the bootstrap. Clips are drawn once for all pairs, and Holm's
            correction is over all.

    Returns:
        The columns of `configurations.csv` that compare, a row for each pair; and the differences
        in correctness (1 or 0), `[S, C]` for each pair.
    """
    differences = [
        table.correct[own.index].astype(float) - table.correct[other.index] for own, other in pairs
    ]
    top1 = _frame([paired_difference(each, clusters=clusters) for each in differences], Estimate)
    mca = _frame(
        [paired_difference(each, table.classes, clusters) for each in differences], Estimate
    )
    drawn = _frame(hierarchical_bootstrap(differences, clusters, num_draws), Bootstrap)
    p_holm = holm(top1["p"].tolist())
    verdict = np.select([~(p_holm <= ALPHA), top1["mean"] > 0], ["undecided", "better"], "worse")
    return (
        pd.DataFrame(
            {
                "control_configuration": [
                    table.format_levels(other["levels"].iloc[0]) for _, other in pairs
                ],
                "control_runs": [_joined(other["run"]) for _, other in pairs],
                "compared_seeds": [_joined(own["seed"]) for own, _ in pairs],
                **{"difference": top1["mean"], "low": top1["low"], "high": top1["high"]},
                **{"error": top1["error"], "degrees_of_freedom": top1["freedom"], "p": top1["p"]},
                **{"p_holm": p_holm, "verdict": verdict},
                **drawn.add_prefix("bootstrap_"),
                **{"mca_difference": mca["mean"], "mca_low": mca["low"], "mca_high": mca["high"]},
                "gflop_ratio": [_ratio(*pair, "head_gflop") for pair in pairs],
                "latency_ratio": [_ratio(*pair, "head_latency_ms") for pair in pairs],
            }
        ),
        differences,
    )


def _frame(
    rows: Sequence[tuple[float, ...]], kind: type[Estimate] | type[Bootstrap]
) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(kind._fields))


def _ratio(own: pd.DataFrame, other: pd.DataFrame, column: str) -> float:
    """The ratio of mean costs; NaN where the other's is 0 or unknown."""
    cost = other[column].mean()
    return own[column].mean() / cost if cost > 0 else np.nan


def _joined(values: Iterable[Any]) -> str:
    return " ".join(map(str, values))


def _measured(table: SweepTable, runs: pd.DataFrame) -> dict[str, object]:
    """The columns of a configuration's own measurements."""
    means, deviations = runs[ACCURACIES + COSTS].mean(), runs[ACCURACIES].std()
    return {
        "sweep": table.name,
        "configuration": table.format_levels(runs["levels"].iloc[0]),
        "control": bool(runs["control"].iloc[0]),
        "seeds": _joined(runs["seed"]),
        "runs": _joined(runs["run"]),
        **{"top1": means["top1"], "top1_sd": deviations["top1"]},
        **{"mca": means["mca"], "mca_sd": deviations["mca"]},
        **means[COSTS],
    }


def _display_names(levels: pd.DataFrame, is_control: pd.Series) -> Iterable[str]:
    """The levels of the varying factors; numbers come with their factor's name."""
    for (_, row), control in zip(
        levels[varying_factors(levels)].iterrows(), is_control, strict=True
    ):
        words = [
            f"{str(factor).replace('_', ' ')} {level}" if level_key(level)[0] == 1 else level
            for factor, level in row.items()
            if level not in (ABSENT if control else ("",))
        ]
        name = " · ".join(words)
        yield f"control: {name}".removesuffix(": ") if control else name


def _control_of(table: SweepTable, levels: Levels, controls: list[Levels]) -> Levels:
    """The control with the same levels as a configuration, on all factors that the control has."""
    agreeing = [
        control
        for control in controls
        if all(
            own in (*ABSENT, level) or factor in table.control_factors
            for factor, level, own in zip(table.factors, levels, control, strict=True)
        )
    ]
    if len(agreeing) == 1:
        return agreeing[0]
    path, configuration = table.folder / "runs.csv", table.format_levels(levels)
    known = "; ".join(map(table.format_levels, agreeing or controls))
    if agreeing:
        raise DataError(f"{path}: one control a configuration: {configuration} agrees with {known}")
    raise DataError(
        f"{path}: no control agrees with {configuration} on the factors that it has; controls: "
        f"{known}. --control names factors in which they differ"
    )


def _effects(
    levels: pd.DataFrame, differences: list[np.ndarray], clusters: np.ndarray | None
) -> tuple[list[Effect], list[str]]:
    """The effects of levels, and the factors in which those of others are mixed in.

    Shapes:
        - **differences** `[S, C]` of each row of `levels`, on common seeds
    """
    effects: list[Effect] = []
    unbalanced: list[str] = []
    for factor in varying_factors(levels):
        members: dict[Any, pd.DataFrame] = dict(iter(levels.reset_index(drop=True).groupby(factor)))
        others = [sorted(own.drop(columns=factor).to_numpy().tolist()) for own in members.values()]
        if any(each != others[0] for each in others) or len(differences[0]) < 2:
            unbalanced.append(factor)
            continue
        for level in sorted(members, key=level_key):
            own = [differences[row] for row in members[level].index]
            estimate = paired_difference(np.mean(own, axis=0), clusters=clusters)
            effects.append(Effect(factor, level, len(own), estimate))
    return effects, unbalanced
