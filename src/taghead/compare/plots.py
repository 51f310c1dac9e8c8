"""Plots of a sweep: differences to the control, accuracy over cost, levels of two factors."""

from __future__ import annotations

from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from taghead.compare.results import Results, varying_factors
from taghead.compare.statistics import CONFIDENCE
from taghead.compare.tables import level_key

# Okabe and Ito's colours, distinct for colour-blind readers; markers encode the same
STYLES = {
    "better": ("^", "#0072B2", "better than its control"),
    "worse": ("v", "#D55E00", "worse than its control"),
    "undecided": ("o", "#7F7F7F", "undecided"),
    "not compared": ("x", "#7F7F7F", "not compared"),
    "control": ("s", "#000000", "control"),
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
    for kind, (draw, caption) in PLOTS.items():
        if (figure := draw(results)) is not None:
            with BytesIO() as drawn:
                figure.savefig(drawn, dpi=DPI)
                palette = Image.open(drawn).convert("RGB").quantize(255)  # a quarter of the bytes
            palette.save(folder / f"{stem}-{kind}.png", optimize=True)
            captions[f"{stem}-{kind}.png"] = caption
    return captions


def forest_plot(results: Results) -> Figure | None:
    """The differences with their intervals, one comparison a row, the largest on top."""
    rows = results.numbers[results.is_compared].rename_axis("name")
    if rows.empty:
        return None
    rows = rows.sort_values(["difference", "name"])
    figure, axes = _figure(height=1.3 + 0.27 * len(rows))
    y = np.arange(len(rows))
    for odd in y[1::2]:
        axes.axhspan(odd - 0.5, odd + 0.5, color="#F3F3F3", zorder=0, linewidth=0)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(y, rows.index, parse_math=False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="y", length=0)
    controls = results.numbers.index[results.numbers["control"]]
    control = controls[0] if len(controls) == 1 else "each one's control"
    axes.set_xlabel(f"Top-1 less that of {control} (points)", parse_math=False)
    difference, high = 100 * rows["difference"].to_numpy(), 100 * rows["high"].to_numpy()
    _draw_points(axes, difference, y, rows["verdict"], xerr=high - difference)
    return figure


def pareto_plot(results: Results) -> Figure | None:
    """Mean Top-1 over the head's cost, with the Pareto front."""
    is_known = results.numbers["head_gflop"].notna()
    rows, kinds = results.numbers[is_known], results.kinds[is_known]
    if rows.empty:
        return None
    cost, top1 = rows["head_gflop"].to_numpy(), 100 * rows["top1"].to_numpy()
    num_seeds = rows["seeds"].str.count(" ") + 1
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, num_seeds - 1)  # NaN with one seed
    reach = (100 * quantile * rows["top1_sd"] / np.sqrt(num_seeds)).fillna(0).to_numpy()
    front = pareto_front(cost, top1)
    figure, axes = _figure(height=5.6)
    axes.step(cost[front], top1[front], where="post", color=FRONT_COLOUR, label="Pareto front")
    if cost.min() > 0 and cost.max() > 8 * cost.min():
        axes.set_xscale("log")
    axes.margins(x=0.18, y=0.1)
    axes.set_xlabel("GFLOP of the head, one clip")
    axes.set_ylabel("Top-1 (%), mean over seeds")
    _draw_points(axes, cost, top1, kinds, yerr=reach)
    labels = {
        row: name
        for row, name in enumerate(rows.index)
        if len(rows) <= MAX_LABELLED or kinds.iloc[row] == "control" or row in front
    }
    points = np.column_stack([cost, top1])
    corners = np.column_stack([cost[front[1:]], top1[front[:-1]]])
    bars = [points + np.outer(side * reach, [0, 1]) for side in (-1, 1)]
    label_points(axes, points, labels, np.concatenate([*bars, corners]))
    return figure


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


def heat_maps(results: Results) -> Figure | None:
    """The differences by the two factors with most levels, a panel for each level of the others."""
    compared = results.numbers[results.is_compared]
    levels = results.levels[results.is_compared].replace("", "-")
    several = varying_factors(levels)
    if len(several) < 2:
        return None
    down, across, *_ = sorted(several, key=lambda name: -levels[name].nunique())
    rest = [name for name in several if name not in (down, across)]
    table = levels.assign(points=100 * compared["difference"].to_numpy())
    table["verdict"] = compared["verdict"].to_numpy()
    panels = dict(iter(table.groupby(rest, sort=False))) if rest else {(): table}
    if len(panels) > MAX_PANELS:
        return None
    rows, columns = (sorted(set(table[name]), key=level_key) for name in (down, across))
    num_across = min(len(panels), 3 if len(columns) <= 3 else 2)
    num_down = -(-len(panels) // num_across)
    width = max(1.6 + num_across * (0.4 + 0.95 * len(columns)), 5)
    height = max(0.9 + num_down * (0.75 + 0.42 * len(rows)), 2.4)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(num_down, num_across, squeeze=False, sharex=True, sharey=True)
    limit = max(table["points"].abs().max(), 0.1)
    slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    style: dict[str, Any] = slant if max(map(len, columns)) > 9 else {}
    for axes, (combination, part) in zip(grid.flat, panels.items(), strict=False):
        values = part.pivot(index=down, columns=across, values="points")
        values = values.reindex(index=rows, columns=columns)
        image = axes.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto")
        for _, cell in part.iterrows():
            is_decided = cell["verdict"] != "undecided"
            axes.text(
                columns.index(cell[across]),
                rows.index(cell[down]),
                f"{round(cell['points'], 1) + 0.0:+.1f}{'*' * is_decided}",
                ha="center",
                va="center",
                fontsize=9,
                fontweight="bold" if is_decided else "normal",
                color="white" if abs(cell["points"]) > 0.65 * limit else "black",
            )
        axes.set_xticks(range(len(columns)), columns, parse_math=False, **style)
        axes.set_yticks(range(len(rows)), rows, parse_math=False)
        axes.tick_params(length=0)
        title = ", ".join(f"{name} {level}" for name, level in zip(rest, combination, strict=True))
        axes.set_title(title, fontsize=9, parse_math=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(across, fontsize="medium", parse_math=False)
    figure.supylabel(down, fontsize="medium", parse_math=False)
    figure.colorbar(image, ax=grid, label="difference in Top-1 (points)", shrink=0.9)
    return figure


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.5, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_points(
    axes: Axes, x: np.ndarray, y: np.ndarray, kinds: pd.Series, **reach: np.ndarray
) -> None:
    """Draws points with error bars, styled by kind, and the legend of all that is drawn.

    Args:
        axes: The axes.
        x: Positions.
        y: Positions.
        kinds: The kind of each point.
        reach: Half the length of each bar, as `xerr` or `yerr`.
    """
    for kind, (marker, colour, label) in STYLES.items():
        own = (kinds == kind).to_numpy()
        if own.any():
            style: dict[str, Any] = {name: values[own] for name, values in reach.items()}
            style |= {"fmt": marker, "color": colour, "label": label, "elinewidth": 1.3}
            axes.errorbar(x[own], y[own], **style)
    axes.figure.legend(loc="outside upper center", ncols=5, fontsize=9, frameon=False)


PLOTS = {
    "differences": (
        forest_plot,
        "Differences in Top-1 to each configuration's control, with 95% intervals for new seeds "
        "and new clips (not corrected for the number of comparisons). Colours and markers say what "
        "remains after Holm's correction.",
    ),
    "cost": (
        pareto_plot,
        "Top-1 beside the head's GFLOP. Bars are 95% intervals over the seeds alone: all points "
        "are tested on the same clips. The line joins those that no cheaper one beats.",
    ),
    "factors": (
        heat_maps,
        "Differences in Top-1 to the control by the levels of factors, in points; bold with a star "
        "where they remain after Holm's correction. Empty cells were not run.",
    ),
}
