"""Pictures of a sweep: differences to the control, accuracy beside cost, levels of two factors."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from taghead.compare.comparison import Configuration, Results
from taghead.compare.labels import place_labels
from taghead.compare.statistics import CONFIDENCE
from taghead.compare.tables import ABSENT, level_key

# Okabe and Ito's colours, which colour-blind people tell apart; markers and words say the same
COLOURS = {"better": "#0072B2", "worse": "#D55E00", "undecided": "#7F7F7F", "control": "#000000"}
MARKERS = {"better": "^", "worse": "v", "undecided": "o", "control": "s"}
DPI = 150
MANY = 14  # more points than these are not all labelled
PANELS = 6  # more heat maps than these are not drawn


def label(results: Results, configuration: Configuration) -> str:
    """The levels in which configurations of the sweep differ; numbers with their factor's name."""
    words = []
    own_way = (ABSENT,) if configuration.is_control else ()
    for factor, level in zip(results.table.factors, configuration.levels, strict=True):
        if factor in results.varying() and level not in ("", *own_way):
            is_number = level_key(level)[0] == 1
            words.append(f"{factor.replace('_', ' ')} {level}" if is_number else level)
    text = " · ".join(words)
    return (f"control: {text}" if text else "control") if configuration.is_control else text


def draw_figures(results: Results, folder: Path, stem: str) -> dict[str, str]:
    """Draws what there is to draw.

    Args:
        results: The sweep.
        folder: Where to.
        stem: What each file's name begins with.

    Returns:
        What each picture shows, by the name of its file.
    """
    drawn = {}
    if results.comparisons:
        name = f"{stem}-differences.png"
        forest_plot(results, folder / name)
        drawn[name] = (
            "Differences in Top-1 to each configuration's control, with 95% intervals for new "
            "seeds and new clips (not corrected for the number of comparisons). Colours and "
            "markers say what remains after Holm's correction."
        )
    if any(np.isfinite(c.mean("head_gflop")) for c in results.configurations):
        name = f"{stem}-cost.png"
        pareto_plot(results, folder / name)
        drawn[name] = (
            "Top-1 beside the head's GFLOP. Bars are 95% intervals over the seeds alone: all "
            "points are tested on the same clips. The line joins those that no cheaper one beats."
        )
    axes = _heat_axes(results)
    if axes is not None:
        name = f"{stem}-factors.png"
        heat_maps(results, axes, folder / name)
        drawn[name] = (
            "Differences in Top-1 to the control by the levels of factors, in points; bold with a "
            "star where they remain after Holm's correction. Empty cells were not run."
        )
    return drawn


def forest_plot(results: Results, path: Path) -> None:
    """A row a comparison, the largest difference on top."""
    rows = sorted(results.comparisons, key=lambda c: (c.top1.mean, label(results, c.configuration)))
    controls = {c.control.levels for c in rows}
    figure = Figure(figsize=(8.5, 1.3 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    for y, row in enumerate(rows):
        colour = COLOURS[row.verdict]
        if not np.isnan(row.top1.low):
            axes.plot(
                [100 * row.top1.low, 100 * row.top1.high], [y, y], color=colour, linewidth=1.8
            )
        axes.plot(100 * row.top1.mean, y, MARKERS[row.verdict], color=colour, markersize=6)
        if y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color="#F3F3F3", zorder=0, linewidth=0)
    names = [label(results, row.configuration) for row in rows]
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="y", length=0)
    of = label(results, rows[0].control) if len(controls) == 1 else "each one's control"
    axes.set_xlabel(f"Top-1 less that of {of} (points)", parse_math=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    _legend(axes, [kind for kind in MARKERS if any(row.verdict == kind for row in rows)])
    _bare(axes)
    _save(figure, path)


def pareto_plot(results: Results, path: Path) -> None:
    """Mean Top-1 over the head's cost; the control and the points on the front have names."""
    shown = [c for c in results.configurations if np.isfinite(c.mean("head_gflop"))]
    verdicts = {id(c.configuration): c.verdict for c in results.comparisons}
    cost = np.array([c.mean("head_gflop") for c in shown])
    top1 = np.array([100 * c.mean("top1") for c in shown])
    kinds = ["control" if c.is_control else verdicts.get(id(c), "undecided") for c in shown]
    figure = Figure(figsize=(8.5, 5.6), layout="constrained")
    axes = figure.subplots()
    reaches = [_seed_reach(configuration) for configuration in shown]
    for x, y, kind, reach in zip(cost, top1, kinds, reaches, strict=True):
        axes.plot([x, x], [y - reach, y + reach], color=COLOURS[kind], linewidth=1, alpha=0.45)
        above = 3.5 if kind == "control" else 3
        axes.plot(x, y, MARKERS[kind], color=COLOURS[kind], markersize=7, zorder=above)
    front = pareto_front(cost, top1)
    axes.plot(
        cost[front], top1[front], color="#009E73", linewidth=1.5, drawstyle="steps-post", zorder=1
    )
    if cost.min() > 0 and cost.max() > 8 * cost.min():
        axes.set_xscale("log")
    axes.margins(x=0.12, y=0.1)
    axes.set_xlabel("GFLOP of the head, one clip")
    axes.set_ylabel("Top-1 (%), mean over seeds")
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    _legend(axes, [kind for kind in MARKERS if kind in kinds], front=True)
    _bare(axes)
    chosen = [
        i for i, c in enumerate(shown) if len(shown) <= MANY or c.is_control or i in front.tolist()
    ]
    bars = [[(x, y - r), (x, y + r)] for x, y, r in zip(cost, top1, reaches, strict=True)]
    steps = [
        line
        for i, j in pairwise(front)
        for line in (
            [(cost[i], top1[i]), (cost[j], top1[i])],
            [(cost[j], top1[i]), (cost[j], top1[j])],
        )
    ]
    names = {i: label(results, shown[i]) for i in chosen}
    place_labels(axes, cost, top1, names, np.array(bars + steps))
    _save(figure, path)


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Which points no other one beats in cost or value without losing in the other, by cost."""
    order = np.lexsort((-value, cost))
    before = np.concatenate([[-np.inf], np.maximum.accumulate(value[order])[:-1]])
    return order[value[order] > before]


def heat_maps(results: Results, axes_factors: tuple[str, str, list[str]], path: Path) -> None:
    """The differences by two factors, a panel for each combination of the others' levels."""
    down, across, rest = axes_factors
    table = _level_table(results)
    ticks = {name: sorted(set(table[name]), key=level_key) for name in (down, across, *rest)}
    panels = [p for p in product(*(ticks[name] for name in rest)) if len(_panel(table, rest, p))]
    columns = min(len(panels), 3 if len(ticks[across]) <= 3 else 2)
    lines = -(-len(panels) // columns)
    width = 1.6 + columns * (0.4 + 0.95 * len(ticks[across]))
    height = 0.9 + lines * (0.75 + 0.42 * len(ticks[down]))
    figure = Figure(figsize=(max(width, 5), max(height, 2.4)), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    reach = max(float(table["difference"].abs().max()), 0.1)
    for axes, levels in zip(grid.flat, panels, strict=False):
        part = _panel(table, rest, levels)
        values = part.pivot(index=down, columns=across, values="difference")
        values = values.reindex(index=ticks[down], columns=ticks[across])
        image = axes.imshow(values, cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto")
        _cell_texts(axes, part, ticks[down], ticks[across], down, across, reach)
        axes.set_xticks(range(len(ticks[across])), ticks[across], parse_math=False)
        axes.set_yticks(range(len(ticks[down])), ticks[down], parse_math=False)
        axes.tick_params(length=0)
        if max(map(len, ticks[across])) > 9:
            for text in axes.get_xticklabels():
                text.set(rotation=30, ha="right", rotation_mode="anchor")
        named = [f"{name} {level}" for name, level in zip(rest, levels, strict=True)]
        axes.set_title(", ".join(named), fontsize=9, parse_math=False)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(across, parse_math=False)
    for line in grid:
        line[0].set_ylabel(down, parse_math=False)
    figure.colorbar(image, ax=grid, label="difference in Top-1 (points)", shrink=0.9)
    _save(figure, path)


def _heat_axes(results: Results) -> tuple[str, str, list[str]] | None:
    """The two factors with most levels, rows first, and the others; none if they are too few."""
    table = _level_table(results)
    if table.empty:
        return None
    counts = {name: table[name].nunique() for name in results.table.factors}
    several = [name for name in results.table.factors if counts[name] > 1]
    if len(several) < 2:
        return None
    down, across = sorted(several, key=lambda name: -counts[name])[:2]
    rest = [name for name in several if name not in (down, across)]
    num_panels = len(table[rest].drop_duplicates()) if rest else 1
    return (down, across, rest) if num_panels <= PANELS else None


def _level_table(results: Results) -> pd.DataFrame:
    """A row a comparison: its levels (`-` where a factor does not apply), difference, verdict."""
    rows = []
    for comparison in results.comparisons:
        levels = [level or "-" for level in comparison.configuration.levels]
        row: dict[str, object] = dict(zip(results.table.factors, levels, strict=True))
        rows.append(row | {"difference": 100 * comparison.top1.mean, "verdict": comparison.verdict})
    return pd.DataFrame(rows)


def _panel(table: pd.DataFrame, rest: list[str], levels: tuple[str, ...]) -> pd.DataFrame:
    keep = pd.Series(True, index=table.index)
    for name, level in zip(rest, levels, strict=True):
        keep &= table[name] == level
    return table[keep]


def _cell_texts(
    axes: Axes,
    part: pd.DataFrame,
    down_ticks: list[str],
    across_ticks: list[str],
    down: str,
    across: str,
    reach: float,
) -> None:
    for _, row in part.iterrows():
        decided = row["verdict"] != "undecided"
        axes.text(
            across_ticks.index(row[across]),
            down_ticks.index(row[down]),
            f"{round(row['difference'], 1) + 0.0:+.1f}{'*' if decided else ''}",
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold" if decided else "normal",
            color="white" if abs(row["difference"]) > 0.65 * reach else "black",
        )


def _seed_reach(configuration: Configuration) -> float:
    """Half the interval of the mean over seeds, in points; 0 with one seed."""
    count = len(configuration.runs)
    if count < 2:
        return 0.0
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return float(100 * quantile * configuration.deviation("top1") / np.sqrt(count))


def _legend(axes: Axes, kinds: list[str], front: bool = False) -> None:
    words = {
        "better": "better than its control",
        "worse": "worse than its control",
        "undecided": "undecided",
        "control": "control",
    }
    for kind in kinds:
        axes.plot([], [], MARKERS[kind], color=COLOURS[kind], label=words[kind])
    if front:
        axes.plot([], [], color="#009E73", label="Pareto front")
    axes.figure.legend(loc="outside upper center", ncols=5, fontsize=9, frameon=False)


def _save(figure: Figure, path: Path) -> None:
    """Writes a picture with a palette, a quarter of the size, and nothing of the time or place."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=DPI, metadata={"Software": None})
    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(255, dither=Image.Dither.NONE)
        few.save(path, "PNG", optimize=True, dpi=(DPI, DPI))


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
