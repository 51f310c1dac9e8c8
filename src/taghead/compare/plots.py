"""Plots of a sweep: differences to the control, accuracy over cost, levels of two factors."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from taghead.compare.results import Configuration, Results
from taghead.compare.statistics import CONFIDENCE
from taghead.compare.tables import level_key

# Okabe and Ito's colours, distinct for colour-blind readers; markers encode the same
COLOURS = {"better": "#0072B2", "worse": "#D55E00", "undecided": "#7F7F7F", "control": "#000000"}
MARKERS = {"better": "^", "worse": "v", "undecided": "o", "control": "s"}
LEGEND = {
    "better": "better than its control",
    "worse": "worse than its control",
    "undecided": "undecided",
    "control": "control",
}
FRONT_COLOUR = "#009E73"
DPI = 150
MARKER_PIXELS = 6  # half a marker's size
MAX_LABELLED = 14  # of more points, only controls and the Pareto front have labels
MAX_PANELS = 6  # more heat maps are not drawn


def draw_figures(results: Results, folder: Path, stem: str) -> dict[str, str]:
    """Draws the plots for which a sweep has data.

    Args:
        results: The sweep.
        folder: The folder of the files.
        stem: The beginning of each file's name.

    Returns:
        The caption of each plot, by the name of its file.
    """
    captions = {}
    if results.comparisons:
        name = f"{stem}-differences.png"
        forest_plot(results, folder / name)
        captions[name] = (
            "Differences in Top-1 to each configuration's control, with 95% intervals for new "
            "seeds and new clips (not corrected for the number of comparisons). Colours and "
            "markers say what remains after Holm's correction."
        )
    if any(np.isfinite(c.mean("head_gflop")) for c in results.configurations):
        name = f"{stem}-cost.png"
        pareto_plot(results, folder / name)
        captions[name] = (
            "Top-1 beside the head's GFLOP. Bars are 95% intervals over the seeds alone: all "
            "points are tested on the same clips. The line joins those that no cheaper one beats."
        )
    if (axes_factors := _heat_map_factors(results)) is not None:
        name = f"{stem}-factors.png"
        heat_maps(results, *axes_factors, folder / name)
        captions[name] = (
            "Differences in Top-1 to the control by the levels of factors, in points; bold with a "
            "star where they remain after Holm's correction. Empty cells were not run."
        )
    return captions


def forest_plot(results: Results, path: Path) -> None:
    """The differences with their intervals, one comparison a row, the largest on top."""
    names = {id(c): results.display_name(c.configuration) for c in results.comparisons}
    rows = sorted(results.comparisons, key=lambda c: (c.top1.mean, names[id(c)]))
    figure = Figure(figsize=(8.5, 1.3 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=1)
    for y, row in enumerate(rows):
        colour = COLOURS[row.verdict]
        if not np.isnan(row.top1.low):
            interval = [100 * row.top1.low, 100 * row.top1.high]
            axes.plot(interval, [y, y], color=colour, linewidth=1.8)
        axes.plot(100 * row.top1.mean, y, MARKERS[row.verdict], color=colour, markersize=6)
        if y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color="#F3F3F3", zorder=0, linewidth=0)
    axes.set_yticks(range(len(rows)), [names[id(row)] for row in rows], parse_math=False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="y", length=0)
    is_one = len({row.control.levels for row in rows}) == 1
    control = results.display_name(rows[0].control) if is_one else "each one's control"
    axes.set_xlabel(f"Top-1 less that of {control} (points)", parse_math=False)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    _finish(axes, [row.verdict for row in rows])
    _save(figure, path)


def pareto_plot(results: Results, path: Path) -> None:
    """Mean Top-1 over the head's cost, with the Pareto front."""
    shown = [c for c in results.configurations if np.isfinite(c.mean("head_gflop"))]
    verdicts = {id(c.configuration): c.verdict for c in results.comparisons}
    cost = np.array([c.mean("head_gflop") for c in shown])
    top1 = np.array([100 * c.mean("top1") for c in shown])
    reach = np.array([_seed_interval(configuration) for configuration in shown])
    kinds = ["control" if c.is_control else verdicts.get(id(c), "undecided") for c in shown]
    front = pareto_front(cost, top1)
    figure = Figure(figsize=(8.5, 5.6), layout="constrained")
    axes = figure.subplots()
    for x, y, kind, half in zip(cost, top1, kinds, reach, strict=True):
        axes.plot([x, x], [y - half, y + half], color=COLOURS[kind], linewidth=1, alpha=0.45)
        zorder = 3.5 if kind == "control" else 3
        axes.plot(x, y, MARKERS[kind], color=COLOURS[kind], markersize=7, zorder=zorder)
    axes.plot(
        cost[front],
        top1[front],
        color=FRONT_COLOUR,
        linewidth=1.5,
        drawstyle="steps-post",
        zorder=1,
    )
    if cost.min() > 0 and cost.max() > 8 * cost.min():
        axes.set_xscale("log")
    axes.margins(x=0.18, y=0.1)
    axes.set_xlabel("GFLOP of the head, one clip")
    axes.set_ylabel("Top-1 (%), mean over seeds")
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.plot([], [], color=FRONT_COLOUR, label="Pareto front")
    _finish(axes, kinds)
    labelled = [
        i for i, c in enumerate(shown) if len(shown) <= MAX_LABELLED or c.is_control or i in front
    ]
    labels = {i: results.display_name(shown[i]) for i in labelled}
    corners = [(cost[after], top1[before]) for before, after in pairwise(front)]
    bars = [
        (x, y + side)
        for x, y, half in zip(cost, top1, reach, strict=True)
        for side in (-half, half)
    ]
    label_points(axes, np.column_stack([cost, top1]), labels, np.array(bars + corners))
    _save(figure, path)


def pareto_front(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the Pareto-optimal points (low cost, high value), sorted by cost."""
    order = np.lexsort((-value, cost))
    before = np.concatenate([[-np.inf], np.maximum.accumulate(value[order])[:-1]])
    return order[value[order] > before]


def label_points(axes: Axes, points: np.ndarray, labels: dict[int, str], avoid: np.ndarray) -> None:
    """Writes labels beside their points, without overlap with labels, markers and given positions.

    The axes' limits must be final.

    Args:
        axes: The axes.
        points: The points.
        labels: The label of each point that has one, by its index.
        avoid: Further positions to avoid.

    Shapes:
        - **points** `[M, 2]`, **avoid** `[L, 2]`, x and y
    """
    from adjustText import adjust_text

    FigureCanvasAgg(axes.figure.get_figure(root=True)).draw()  # computes the layout
    sides = MARKER_PIXELS * np.array(list(product((-1, 0, 1), repeat=2)))
    markers = axes.transData.transform(points)[:, None] + sides
    markers = axes.transData.inverted().transform(markers.reshape(-1, 2))
    style: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4, "in_layout": False}
    style["bbox"] = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
    adjust_text(
        [
            axes.text(x, y, text, fontsize=8, parse_math=False, **style)
            for (x, y), text in zip(points[[*labels]], labels.values(), strict=True)
        ],
        *np.concatenate([markers, avoid]).T,
        ax=axes,
        expand=(1.05, 1.4),
        force_text=(0.5, 1.0),
        force_static=(0.1, 0.3),
        iter_lim=200,  # a limit in seconds would give other plots on other machines
        arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.7},
    )


def heat_maps(results: Results, down: str, across: str, rest: list[str], path: Path) -> None:
    """The differences by two factors, a panel for each combination of the others' levels."""
    table = _level_table(results)
    ticks = {name: sorted(set(table[name]), key=level_key) for name in (down, across, *rest)}
    panels = [
        (levels, part)
        for levels in product(*(ticks[name] for name in rest))
        if len(part := table[(table[rest] == list(levels)).all(axis=1)])
    ]
    columns = min(len(panels), 3 if len(ticks[across]) <= 3 else 2)
    lines = -(-len(panels) // columns)
    width = 1.6 + columns * (0.4 + 0.95 * len(ticks[across]))
    height = 0.9 + lines * (0.75 + 0.42 * len(ticks[down]))
    figure = Figure(figsize=(max(width, 5), max(height, 2.4)), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    reach = max(float(table["difference"].abs().max()), 0.1)
    for axes, (levels, part) in zip(grid.flat, panels, strict=False):
        values = part.pivot(index=down, columns=across, values="difference")
        values = values.reindex(index=ticks[down], columns=ticks[across])
        image = axes.imshow(values, cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto")
        for _, row in part.iterrows():
            column, line = ticks[across].index(row[across]), ticks[down].index(row[down])
            _write_cell(axes, column, line, row["difference"], row["verdict"], reach)
        axes.set_xticks(range(len(ticks[across])), ticks[across], parse_math=False)
        axes.set_yticks(range(len(ticks[down])), ticks[down], parse_math=False)
        axes.tick_params(length=0)
        if max(map(len, ticks[across])) > 9:
            for text in axes.get_xticklabels():
                text.set(rotation=30, ha="right", rotation_mode="anchor")
        title = ", ".join(f"{name} {level}" for name, level in zip(rest, levels, strict=True))
        axes.set_title(title, fontsize=9, parse_math=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel(across, parse_math=False)
    for axes in grid[:, 0]:
        axes.set_ylabel(down, parse_math=False)
    figure.colorbar(image, ax=grid, label="difference in Top-1 (points)", shrink=0.9)
    _save(figure, path)


def _heat_map_factors(results: Results) -> tuple[str, str, list[str]] | None:
    """The two factors with most levels, rows first, and the other factors; None if too few."""
    table = _level_table(results)
    counts = {name: table[name].nunique() for name in results.table.factors if len(table)}
    several = [name for name, count in counts.items() if count > 1]
    if len(several) < 2:
        return None
    down, across = sorted(several, key=lambda name: -counts[name])[:2]
    rest = [name for name in several if name not in (down, across)]
    num_panels = len(table[rest].drop_duplicates()) if rest else 1
    return (down, across, rest) if num_panels <= MAX_PANELS else None


def _level_table(results: Results) -> pd.DataFrame:
    """One row for each comparison: levels (`-` if not applicable), difference, verdict."""
    rows = []
    for comparison in results.comparisons:
        levels = [level or "-" for level in comparison.configuration.levels]
        row: dict[str, object] = dict(zip(results.table.factors, levels, strict=True))
        rows.append(row | {"difference": 100 * comparison.top1.mean, "verdict": comparison.verdict})
    return pd.DataFrame(rows)


def _write_cell(
    axes: Axes, column: int, line: int, difference: float, verdict: str, reach: float
) -> None:
    is_decided = verdict != "undecided"
    axes.text(
        column,
        line,
        f"{round(difference, 1) + 0.0:+.1f}{'*' * is_decided}",
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold" if is_decided else "normal",
        color="white" if abs(difference) > 0.65 * reach else "black",
    )


def _seed_interval(configuration: Configuration) -> float:
    """Half the interval of the mean over seeds, in points; 0 with one seed."""
    count = len(configuration.runs)
    if count < 2:
        return 0.0
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    return float(100 * quantile * configuration.deviation("top1") / np.sqrt(count))


def _finish(axes: Axes, kinds: list[str]) -> None:
    """Adds the legend of the markers, and removes lines that show no data."""
    for kind in MARKERS:
        if kind in kinds:
            axes.plot([], [], MARKERS[kind], color=COLOURS[kind], label=LEGEND[kind])
    handles, _ = axes.get_legend_handles_labels()
    handles.sort(key=lambda handle: handle.get_label() == "Pareto front")  # comes last
    axes.figure.legend(
        handles=handles, loc="outside upper center", ncols=5, fontsize=9, frameon=False
    )
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    """Writes a PNG with a palette, a quarter of the size, and without a date or a version."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=DPI, metadata={"Software": None})
    with Image.open(drawn) as image:
        palette = image.convert("RGB").quantize(255, dither=Image.Dither.NONE)
        palette.save(path, "PNG", optimize=True, dpi=(DPI, DPI))
