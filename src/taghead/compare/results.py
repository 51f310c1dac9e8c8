"""The results of a sweep: its configurations, each compared with its control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

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


@dataclass(frozen=True)
class Configuration:
    """Runs that differ only in the seed.

    Args:
        levels: Levels of the sweep's factors.
        is_control: Whether it is a control.
        runs: Its runs that are done, by seed.
    """

    levels: Levels
    is_control: bool
    runs: pd.DataFrame

    @property
    def seeds(self) -> list[int]:
        return self.runs["seed"].tolist()

    def mean(self, column: str) -> float:
        return float(self.runs[column].astype(float).mean())

    def deviation(self, column: str) -> float:
        """The standard deviation over the seeds; NaN with one."""
        return float(self.runs[column].std(ddof=1))


@dataclass(frozen=True)
class Comparison:
    """The difference of a configuration to its control, on the seeds that both have.

    Args:
        configuration: The configuration.
        control: Its control.
        seeds: The seeds of both.
        difference: Difference in correctness (1 or 0), by seed and clip.
        top1: The difference in Top-1.
        mca: The difference in MCA.
        bootstrap: A second interval and test of Top-1.
        adjusted_p: The p-value of Top-1, Holm-adjusted over all comparisons; NaN with one seed.

    Shapes:
        - **difference** `[S, C]`
    """

    configuration: Configuration
    control: Configuration
    seeds: tuple[int, ...]
    difference: np.ndarray = field(repr=False)
    top1: Estimate
    mca: Estimate
    bootstrap: Bootstrap = Bootstrap(np.nan, np.nan, np.nan)  # noqa: RUF009
    adjusted_p: float = np.nan

    @property
    def verdict(self) -> str:
        if not self.adjusted_p <= ALPHA:
            return "undecided"
        return "better" if self.top1.mean > 0 else "worse"

    @property
    def unshared_seeds(self) -> set[int]:
        """Seeds of only one of the two."""
        return set(self.configuration.seeds) ^ set(self.control.seeds)

    def cost_ratio(self, column: str) -> float:
        """The configuration's mean cost over the control's; NaN where that is 0 or unknown."""
        cost = self.control.mean(column)
        return self.configuration.mean(column) / cost if cost > 0 else float("nan")


@dataclass(frozen=True)
class Effect:
    """The mean difference to the control over all configurations with a level of a factor."""

    factor: str
    level: str
    num_configurations: int
    top1: Estimate


@dataclass(frozen=True)
class Results:
    """The results of a sweep.

    Args:
        table: The runs.
        configurations: Controls first, then sorted by their levels.
        comparisons: The comparison of every configuration that shares a seed with its control.
        not_compared: The other configurations, with the reason.
        effects: The effects of each factor with several levels in which the design is balanced.
        effect_seeds: The seeds that all comparisons have, on which effects are computed.
        unbalanced: The factors in which the design is not balanced.
        num_clusters: The number of clusters of test clips.
    """

    table: SweepTable
    configurations: list[Configuration]
    comparisons: list[Comparison]
    not_compared: list[tuple[Configuration, str]]
    effects: list[Effect]
    effect_seeds: list[int]
    unbalanced: list[str]
    num_clusters: int

    def varying(self) -> list[str]:
        """The factors with several levels among all configurations, the empty level included."""
        levels = [configuration.levels for configuration in self.configurations]
        each = zip(self.table.factors, zip(*levels, strict=True), strict=True)
        return [factor for factor, own in each if len(set(own)) > 1]

    def display_name(self, configuration: Configuration) -> str:
        """The levels of the varying factors; numbers come with their factor's name."""
        words = []
        hidden = ABSENT if configuration.is_control else ("",)
        for factor, level in zip(self.table.factors, configuration.levels, strict=True):
            if factor in self.varying() and level not in hidden:
                is_number = level_key(level)[0] == 1
                words.append(f"{factor.replace('_', ' ')} {level}" if is_number else level)
        name = " · ".join(words)
        return f"control: {name}".removesuffix(": ") if configuration.is_control else name

    def to_frame(self) -> pd.DataFrame:
        """All numbers, with a row for each configuration, and the ids of its runs."""
        compared = {id(c.configuration): c for c in self.comparisons}
        rows = []
        for own in self.configurations:
            row: dict[str, object] = {
                "sweep": self.table.name,
                "configuration": self.table.format_levels(own.levels),
                "control": own.is_control,
                "seeds": " ".join(map(str, own.seeds)),
                "runs": " ".join(own.runs["run"]),
            }
            for name in ("top1", "mca"):
                row |= {name: own.mean(name), f"{name}_sd": own.deviation(name)}
            for name in ("parameters", "head_parameters", "head_gflop", "head_latency_ms"):
                row[name] = own.mean(name)
            row["train_sec"] = own.mean("train_sec")
            if id(own) in compared:
                row |= self._comparison_columns(compared[id(own)])
            rows.append(row)
        return pd.DataFrame(rows)

    def _comparison_columns(self, comparison: Comparison) -> dict[str, object]:
        control, top1, mca = comparison.control, comparison.top1, comparison.mca
        is_common = control.runs["seed"].isin(comparison.seeds)
        return {
            "control_configuration": self.table.format_levels(control.levels),
            "control_runs": " ".join(control.runs.loc[is_common, "run"]),
            "compared_seeds": " ".join(map(str, comparison.seeds)),
            **{"difference": top1.mean, "low": top1.low, "high": top1.high, "error": top1.error},
            **{"degrees_of_freedom": top1.freedom, "p": top1.p, "p_holm": comparison.adjusted_p},
            "verdict": comparison.verdict,
            **{f"bootstrap_{k}": v for k, v in comparison.bootstrap._asdict().items()},
            **{"mca_difference": mca.mean, "mca_low": mca.low, "mca_high": mca.high},
            "gflop_ratio": comparison.cost_ratio("head_gflop"),
            "latency_ratio": comparison.cost_ratio("head_latency_ms"),
        }


def compare_configurations(
    table: SweepTable,
    cluster_of: Callable[[str], str] | None = None,
    num_draws: int = 10_000,
) -> Results:
    """Compares every configuration of a sweep with its control.

    Args:
        table: The runs.
        cluster_of: The cluster of a clip, from its id; clips of a cluster depend on each other.
        num_draws: Draws of seeds and clips in the bootstrap.

    Raises:
        DataError: If a configuration has no control or several.
    """
    clusters = None if cluster_of is None else table.clusters(cluster_of)
    configurations = [
        Configuration(runs["levels"].iloc[0], bool(runs["control"].iloc[0]), runs)
        for _, runs in table.runs.groupby(["control", "levels"], sort=False)
    ]
    configurations.sort(key=lambda own: (not own.is_control, [*map(level_key, own.levels)]))
    by_levels = {own.levels: own for own in configurations if own.is_control}
    every = pd.concat([table.runs, table.not_done])
    controls = sorted(set(every.loc[every["control"], "levels"]))  # done or not
    comparisons, not_compared = [], []
    for own in configurations:
        if own.is_control:
            continue
        control = by_levels.get(_control_of(table, own.levels, controls))
        seeds = sorted(set(own.seeds) & set(control.seeds)) if control else []
        if control is None or not seeds:
            reason = (
                "shares no seed with its control" if control else "no run of its control is done"
            )
            not_compared.append((own, reason))
            continue
        difference = _correct(table, own, seeds) - _correct(table, control, seeds)
        top1 = paired_difference(difference, clusters=clusters)
        mca = paired_difference(difference, table.classes, clusters)
        comparisons.append(Comparison(own, control, tuple(seeds), difference, top1, mca))
    # over all comparisons: the correction, and draws of the same clips
    adjusted = holm([comparison.top1.p for comparison in comparisons])
    drawn = hierarchical_bootstrap([c.difference for c in comparisons], clusters, num_draws)
    comparisons = [
        replace(comparison, bootstrap=bootstrap, adjusted_p=float(p))
        for comparison, bootstrap, p in zip(comparisons, drawn, adjusted, strict=True)
    ]
    common = sorted(set.intersection(*(set(c.seeds) for c in comparisons))) if comparisons else []
    effects, unbalanced = _effects(table, comparisons, common, clusters)
    num_clusters = len(table.clips) if clusters is None else len(set(clusters.tolist()))
    return Results(
        table,
        configurations,
        comparisons,
        not_compared,
        effects,
        common,
        unbalanced,
        num_clusters,
    )


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
    if agreeing:
        several = "; ".join(map(table.format_levels, agreeing))
        raise DataError(
            f"{path}: one control a configuration: {configuration} agrees with {several}"
        )
    known = "; ".join(map(table.format_levels, controls))
    raise DataError(
        f"{path}: no control agrees with {configuration} on the factors that it has; controls: "
        f"{known}. --control names factors in which they differ"
    )


def _correct(table: SweepTable, configuration: Configuration, seeds: list[int]) -> np.ndarray:
    """Correctness (1 or 0) of a configuration's predictions, by seed and clip `[S, C]`."""
    rows = configuration.runs.reset_index().set_index("seed")["index"].loc[seeds]
    return table.correct[rows.to_numpy()].astype(float)


def _effects(
    table: SweepTable,
    comparisons: list[Comparison],
    common: list[int],
    clusters: np.ndarray | None,
) -> tuple[list[Effect], list[str]]:
    """Mean differences by level on common seeds, and the factors in which they are confounded."""
    effects: list[Effect] = []
    unbalanced: list[str] = []
    for index, factor in enumerate(table.factors):
        members: dict[str, list[Comparison]] = {}
        others: dict[str, list[Levels]] = {}
        for comparison in comparisons:
            levels = comparison.configuration.levels
            members.setdefault(levels[index], []).append(comparison)
            others.setdefault(levels[index], []).append(levels[:index] + levels[index + 1 :])
        if len(members) < 2:
            continue
        if len({tuple(sorted(own)) for own in others.values()}) > 1 or len(common) < 2:
            unbalanced.append(factor)
            continue
        for level in sorted(members, key=level_key):
            own = members[level]
            rows = [[c.seeds.index(seed) for seed in common] for c in own]
            mean = np.mean([c.difference[r] for c, r in zip(own, rows, strict=True)], axis=0)
            estimate = paired_difference(mean, clusters=clusters)
            effects.append(Effect(factor, level, len(own), estimate))
    return effects, unbalanced
