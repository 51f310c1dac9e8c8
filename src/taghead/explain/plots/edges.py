"""Edges of the graph drawn over video frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import withStroke

from taghead.explain.plots.frames import (
    MAX_COLUMNS,
    Frames,
    frame_panels,
    middle_frames,
    show_frame,
)
from taghead.graph.grid import Grid

GAPS_INCHES = 0.35  # between panels, for arrows from frame to frame
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito


def edges_on_frames(frames: Frames, grid: Grid, edges: pd.DataFrame, *, title: str = "") -> Figure:
    """Edges drawn over the clip's frames: within a panel in space, from panel to panel in time.

    An arrow points from source to target. Its width and opacity grow with its weight, relative to
    the largest weight of its relation. A ring is a self-loop.

    Args:
        frames: The clip's frames.
        grid: The grid of tokens.
        edges: A table of edges, as `attention.strongest(...)` and `attention.incoming(...)` give
            it, or several of them concatenated.
        title: The figure's title.

    Shapes:
        - **frames** `[T_in, H_in, W_in, 3]`, uint8, T_in a multiple of T

    Raises:
        ValueError: If the number of frames is no multiple of the grid's.
    """
    shown = middle_frames(frames, grid.frames)
    columns = min(grid.frames, MAX_COLUMNS)
    figure, axes = frame_panels(
        grid.frames, columns, shown.shape[2] / shown.shape[1], title, GAPS_INCHES
    )
    for t, (axis, image) in enumerate(zip(axes, shown, strict=True)):
        show_frame(axis, image, t)
    scale = np.array([shown.shape[2] / grid.width, shown.shape[1] / grid.height])  # pixels
    names = [str(name) for name in edges.relation.unique()]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    edges = edges.reset_index(drop=True)  # concatenated tables repeat row labels
    size = edges.weight.abs()
    strength = (size / size.groupby(edges.relation).transform("max")).fillna(0)
    table = edges.assign(strength=strength).sort_values("strength", kind="stable")
    for edge in table.to_dict("records"):  # the strongest last, on top
        ends = []
        for end in ("source", "target"):
            position = np.array([edge[f"{end}_x"], edge[f"{end}_y"]])
            ends.append((axes[edge[f"{end}_t"]], (position + 0.5) * scale - 0.5))
        distance = abs(edge["source_t"] - edge["target_t"])
        _draw_edge(figure, ends, distance, colours[edge["relation"]], edge["strength"])
    if names:
        lines = [Line2D([], [], color=colours[name], linewidth=2, label=name) for name in names]
        figure.legend(
            handles=lines, loc="outside lower center", ncols=len(names), frameon=False, fontsize=7
        )
    return figure


def _draw_edge(
    figure: Figure,
    ends: list[tuple[Axes, np.ndarray]],
    distance: int,
    colour: str,
    strength: float,
) -> None:
    """Draws an arrow between two panels' points, over `distance` frames; a ring for a self-loop."""
    (from_axis, source), (to_axis, target) = ends
    opacity = 0.15 + 0.85 * strength**2
    if from_axis is to_axis and np.array_equal(source, target):
        from_axis.plot(
            *source, "o", markersize=5, markerfacecolor="none", color=colour, alpha=opacity
        )
        return
    bend = -0.1 / distance if distance else 0.15  # a flat arc stays on the panels
    arrow = ConnectionPatch(
        tuple(source),
        tuple(target),
        "data",
        "data",
        axesA=from_axis,
        axesB=to_axis,
        arrowstyle="-|>",
        connectionstyle=f"arc3,rad={bend}",
        mutation_scale=2 + 4.5 * strength,
        linewidth=0.3 + 0.9 * strength,
        color=colour,
        alpha=opacity,
        shrinkA=0,
        shrinkB=1,
        path_effects=[withStroke(linewidth=1.2 + 0.9 * strength, foreground="white")],
    )
    arrow.set_in_layout(False)
    figure.add_artist(arrow)
    from_axis.plot(*source, "o", markersize=2, markeredgewidth=0, color=colour, alpha=opacity)
