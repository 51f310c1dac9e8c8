"""Labels of points that do not cover each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

GAP = 9.0  # pixels between a point and a label beside it
FARTHER = 60.0  # a step away is as bad as so many covered pixels
MARKER = 6.0  # half a marker's size, pixels


def place_labels(
    axes: Axes, x: np.ndarray, y: np.ndarray, labels: Mapping[int, str], lines: np.ndarray
) -> None:
    """Writes labels beside their points, where neither labels nor points are covered.

    Each label takes the nearest free place around its point, tried in rings; a thin line leads to
    it where it is not next to the point. The axes' limits must be final.

    Args:
        axes: Where to.
        x: Places of all points.
        y: Places of all points.
        labels: The text of each point that has one, by its number.
        lines: Ends of upright and level lines that are better not covered.

    Shapes:
        - **x**, **y** `[M]`
        - **lines** `[L, 2, 2]`, each end x and y
    """
    figure = axes.figure
    canvas = FigureCanvasAgg(figure.get_figure(root=True))
    canvas.draw()  # settles the layout
    renderer = canvas.get_renderer()
    points = axes.transData.transform(np.column_stack([x, y]))
    taken = [Bbox.from_extents(*(point - MARKER), *(point + MARKER)) for point in points]
    ends = axes.transData.transform(lines.reshape(-1, 2)).reshape(-1, 2, 2)
    taken += [Bbox.from_extents(*(e.min(axis=0) - 1), *(e.max(axis=0) + 1)) for e in ends]
    inside = axes.get_window_extent(renderer)
    for number in sorted(labels, key=lambda i: (-y[i], x[i], i)):
        text = axes.annotate(
            labels[number],
            (x[number], y[number]),
            fontsize=8,
            ha="center",
            va="center",
            parse_math=False,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5},
            zorder=4,
            in_layout=False,
        )
        size = np.array(text.get_window_extent(renderer).size) + 4
        place = _free_place(points[number], size, taken, inside)
        taken.append(Bbox.from_bounds(*(place - size / 2), *size))
        text.set_position(tuple(axes.transData.inverted().transform(place)))
        near = np.clip(points[number], place - size / 2, place + size / 2)
        if np.hypot(*(near - points[number])) > 2 * GAP:
            leader = axes.transData.inverted().transform([points[number], near])
            axes.plot(
                *leader.T, color="#999999", linewidth=0.7, zorder=2, scalex=False, scaley=False
            )


def _free_place(point: np.ndarray, size: np.ndarray, taken: list[Bbox], inside: Bbox) -> np.ndarray:
    """The centre of the first place, from near to far, that is free; else the least covered."""
    best, least = point, float("inf")
    for ring in range(16):
        reach = GAP + 14.0 * ring
        for angle in np.deg2rad([0, 180, 90, 270, 45, 135, 225, 315, 22, 158, 202, 338, 68, 112]):
            direction = np.array([np.cos(angle), np.sin(angle)])
            # the label's own half behind the gap, on the side it is on
            centre = point + direction * reach + np.sign(direction.round(3)) * size / 2
            box = Bbox.from_bounds(*(centre - size / 2), *size)
            covered = sum(_overlap(box, other) for other in taken)
            outside = box.width * box.height - _overlap(box, inside)
            badness = covered + 3 * outside + FARTHER * ring
            if badness < least:
                best, least = centre, badness
            if covered + outside == 0:
                return best
    return best


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0.0) * max(height, 0.0)
