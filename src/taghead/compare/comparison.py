"""The configurations of a sweep, each beside its control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from taghead.compare.statistics import (
    LEVEL,
    Bootstrap,
    Estimate,
    hierarchical_bootstrap,
    holm,
    paired_difference,
)
from taghead.compare.tables import ABSENT, Levels, SweepTable, level_key
from taghead.errors import DataError


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in the seed alone.

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
        """Over the seeds; NaN with one."""
        return float(self.runs[column].std(ddof=1))


@dataclass(frozen=True)
class Comparison:
    """A configuration less its control, on the seeds that both have.

    Args:
        configuration: One side.
        control: The other side.
        seeds: The seeds of both.
        difference: Of what they have right, seed by seed and clip by clip.
        top1: The difference in Top-1.
        mca: The difference in MCA.
        bootstrap: A second interval and test of Top-1.
        adjusted_p: Of Top-1, after Holm over all comparisons of the sweep; NaN with one seed.

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
        if not self.adjusted_p <= LEVEL:
            return "undecided"
        return "better" if self.top1.mean > 0 else "worse"

    @property
    def uncommon_seeds(self) -> list[int]:
        """Seeds that one side has alone."""
        return sorted(set(self.configuration.seeds) ^ set(self.control.seeds))


@dataclass(frozen=True)
class Effect:
    """The mean difference to the control over all configurations with a level of a factor."""

    factor: str
    level: str
    num_configurations: int
    top1: Estimate


@dataclass(frozen=True)
class Results:
    """What a sweep says.

    Args:
        table: The runs.
        configurations: Controls first, then sorted by their levels.
        comparisons: Of every configuration that shares a seed with its control.
        not_compared: Configurations that share none, with the reason.
        effects: Of each factor with several levels, where the design is balanced in it.
        effect_seeds: The seeds that all comparisons have, on which the effects are.
        unbalanced: The factors in which the design is not balanced.
        num_clusters: How many clusters of test clips there are.
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
        """The factors that have several levels among all configurations, the empty one included."""
        levels = [configuration.levels for configuration in self.configurations]
        each = zip(self.table.factors, zip(*levels, strict=True), strict=True)
        return [factor for factor, own in each if len(set(own)) > 1]


def compare(
    table: SweepTable,
    cluster_of: Callable[[str], str] | None = None,
    num_draws: int = 10_000,
) -> Results:
    """Compares every configuration of a sweep with its control.

    Args:
        table: The runs.
        cluster_of: The cluster of a clip, from its id; clips of a cluster depend on each other.
        num_draws: How often the bootstrap draws seeds and clips.

    Raises:
        DataError: If a configuration has no control or several.
    """
    clusters = None if cluster_of is None else table.clusters(cluster_of)
    configurations = [
        Configuration(runs["levels"].iloc[0], bool(runs["control"].iloc[0]), runs)
        for _, runs in table.runs.groupby(["control", "levels"], sort=False)
    ]
    configurations.sort(key=_place)
    controls = _control_levels(table)
    comparisons, not_compared = [], []
    for configuration in configurations:
        if configuration.is_control:
            continue
        levels = _control_of(table, configuration.levels, controls)
        other = [c for c in configurations if c.is_control and c.levels == levels]
        seeds = sorted(set(configuration.seeds) & set(other[0].seeds)) if other else []
        if not seeds:
            reason = "shares no seed with its control" if other else "no run of its control is done"
            not_compared.append((configuration, reason))
            continue
        difference = _correct(table, configuration, seeds) - _correct(table, other[0], seeds)
        comparisons.append(
            Comparison(
                configuration,
                other[0],
                tuple(seeds),
                difference,
                paired_difference(difference, clusters=clusters),
                paired_difference(difference, table.classes, clusters),
            )
        )
    comparisons = _with_the_others(comparisons, clusters, num_draws)
    common = sorted(set.intersection(*(set(c.seeds) for c in comparisons))) if comparisons else []
    effects, unbalanced = _effects(table, comparisons, common, clusters)
    return Results(
        table,
        configurations,
        comparisons,
        not_compared,
        effects,
        common,
        unbalanced,
        len(table.clips) if clusters is None else len(set(clusters.tolist())),
    )


def _with_the_others(
    comparisons: list[Comparison], clusters: np.ndarray | None, num_draws: int
) -> list[Comparison]:
    """The comparisons with what takes all of them: Holm's correction, and draws of shared clips."""
    adjusted = holm([comparison.top1.p for comparison in comparisons])
    drawn = hierarchical_bootstrap([c.difference for c in comparisons], clusters, num_draws)
    return [
        replace(comparison, bootstrap=bootstrap, adjusted_p=float(p))
        for comparison, bootstrap, p in zip(comparisons, drawn, adjusted, strict=True)
    ]


def _control_levels(table: SweepTable) -> list[Levels]:
    """The levels of all controls, those included of which no run is done."""
    every = pd.concat([table.runs, table.others])
    return sorted(set(every.loc[every["control"], "levels"]))


def _control_of(table: SweepTable, levels: Levels, controls: list[Levels]) -> Levels:
    """The control that agrees with a configuration on all factors that the control has."""
    agreeing = [
        control
        for control in controls
        if all(
            own in ("", ABSENT, level) or factor in table.named
            for factor, level, own in zip(table.factors, levels, control, strict=True)
        )
    ]
    if len(agreeing) == 1:
        return agreeing[0]
    path = table.folder / "runs.csv"
    if agreeing:
        several = "; ".join(described(table.factors, control) for control in agreeing)
        raise DataError(
            f"{path}: one control a configuration: {described(table.factors, levels)} agrees with "
            f"{several}"
        )
    known = "; ".join(described(table.factors, control) for control in controls)
    raise DataError(
        f"{path}: no control agrees with {described(table.factors, levels)} on the factors that it "
        f"has; controls: {known}. --control names factors in which they differ"
    )


def described(factors: tuple[str, ...], levels: Levels) -> str:
    """`factor=level, factor=level`, without the factors that do not apply."""
    pairs = zip(factors, levels, strict=True)
    return ", ".join(f"{factor}={level}" for factor, level in pairs if level) or "no factor"


def _place(configuration: Configuration) -> tuple[bool, list[tuple[int, float, str]]]:
    return not configuration.is_control, [level_key(level) for level in configuration.levels]


def _correct(table: SweepTable, configuration: Configuration, seeds: list[int]) -> np.ndarray:
    rows = configuration.runs.reset_index().set_index("seed")["index"].loc[seeds]
    return table.correct[rows.to_numpy()].astype(float)


def _effects(
    table: SweepTable,
    comparisons: list[Comparison],
    common: list[int],
    clusters: np.ndarray | None,
) -> tuple[list[Effect], list[str]]:
    """Mean differences by level on common seeds, and the factors in which they would mislead."""
    effects: list[Effect] = []
    unbalanced: list[str] = []
    for place, factor in enumerate(table.factors):
        members: dict[str, list[Comparison]] = {}
        for comparison in comparisons:
            members.setdefault(comparison.configuration.levels[place], []).append(comparison)
        if len(members) < 2:
            continue
        others = [
            sorted(
                c.configuration.levels[:place] + c.configuration.levels[place + 1 :] for c in own
            )
            for own in members.values()
        ]
        if any(own != others[0] for own in others) or len(common) < 2:
            unbalanced.append(factor)
            continue
        for level in sorted(members, key=level_key):
            own = members[level]
            rows = [[c.seeds.index(seed) for seed in common] for c in own]
            mean = np.mean([c.difference[r] for c, r in zip(own, rows, strict=True)], axis=0)
            estimate = paired_difference(mean, clusters=clusters)
            effects.append(Effect(factor, level, len(own), estimate))
    return effects, unbalanced
