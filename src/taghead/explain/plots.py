"""Pictures of what a head attended to, on the frames: matplotlib figures, ready for a paper.

They hold no global state: save one with `save_figure`, or as any matplotlib figure. Frames are
those that the backbone saw, cropped and resized, so that the grid of tokens covers them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import withStroke
from torch import Tensor

from taghead.explain.colours import HeatScale
from taghead.graph.grid import Grid

WIDTH_INCHES = 7.0  # of a page of two columns
MARGIN_INCHES = 0.9  # for the colour bar
GAPS_INCHES = 0.35  # between frames that edges join
MAX_COLUMNS = 8
PALE = 0.6  # how much of white is mixed into the frames under heat and edges
FRAME_LINE = "#9aa3b0"
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
Frames = np.ndarray | Tensor


class ClipHeat(NamedTuple):
    """A row of `compare`.

    Shapes:
        - **frames** `[T_in, H_in, W_in, 3]`, uint8
        - **values** `[T, H, W]`
    """

    frames: Frames
    values: Tensor
    title: str = ""


def token_heat(frames: Frames, values: Tensor, *, title: str = "", label: str = "weight") -> Figure:
    """Heat of the tokens on the frames that they come from.

    One panel shows one frame of tokens, over the middle one of the video frames behind it. Signed
    values are blue below 0 and red above. The colour bar shows the colours as on a pale frame.

    Args:
        frames: The clip's frames.
        values: A number for each token, as `attention.rollout()[0]` or `token_saliency(...)[0]`.
        title: The figure's title.
        label: What the numbers are.

    Shapes:
        - **frames** `[T_in, H_in, W_in, 3]`, uint8, T_in a multiple of T
        - **values** `[T, H, W]`

    Raises:
        ValueError: If the shapes do not go together.
    """
    return _heat([ClipHeat(frames, values, "")], title, label, MAX_COLUMNS)


def compare(clips: Sequence[ClipHeat], *, title: str = "", label: str = "weight") -> Figure:
    """Heat of several clips, or of one for several classes: a row for each, in the same colours.

    Args:
        clips: The rows, of the same number of frames of tokens.
        title: The figure's title.
        label: What the numbers are.

    Raises:
        ValueError: If the rows do not go together.
    """
    lengths = [len(clip.values) for clip in clips]
    if len(set(lengths)) != 1:
        raise ValueError(f"clips must have the same number of frames of tokens (got {lengths})")
    return _heat(clips, title, label, lengths[0])


def edges_on_frames(frames: Frames, grid: Grid, edges: pd.DataFrame, *, title: str = "") -> Figure:
    """Edges on the frames: within a frame from position to position, in time from panel to panel.

    An arrow points from source to target; the wider and the less transparent, the larger its
    weight beside the largest of its relation. A ring is a self-loop.

    Args:
        frames: The clip's frames.
        grid: The grid of tokens.
        edges: What to draw: `attention.strongest(...)` or `attention.incoming(...)`, or several
            of them joined.
        title: The figure's title.

    Shapes:
        - **frames** `[T_in, H_in, W_in, 3]`, uint8, T_in a multiple of T

    Raises:
        ValueError: If the number of frames is no multiple of the grid's.
    """
    shown = _middle_frames(frames, grid.frames)
    columns = min(grid.frames, MAX_COLUMNS)
    figure, axes = _panels(
        grid.frames, columns, shown.shape[2] / shown.shape[1], title, GAPS_INCHES
    )
    for t, (axis, image) in enumerate(zip(axes, shown, strict=True)):
        _show(axis, image, t)
    scale = np.array([shown.shape[2] / grid.width, shown.shape[1] / grid.height])  # pixels
    names = [str(name) for name in edges.relation.unique()]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    edges = edges.reset_index(drop=True)  # rows of joined tables have numbers twice
    size = edges.weight.abs()
    strength = (size / size.groupby(edges.relation).transform("max")).fillna(0)
    table = edges.assign(strength=strength).sort_values("strength", kind="stable")
    for edge in table.to_dict("records"):  # the strongest last, on top
        ends = []
        for end in ("source", "target"):
            place = np.array([edge[f"{end}_x"], edge[f"{end}_y"]])
            ends.append((axes[edge[f"{end}_t"]], (place + 0.5) * scale - 0.5))
        apart = abs(edge["source_t"] - edge["target_t"])
        _draw_edge(figure, ends, apart, colours[edge["relation"]], edge["strength"])
    if names:
        lines = [Line2D([], [], color=colours[name], linewidth=2, label=name) for name in names]
        figure.legend(
            handles=lines, loc="outside lower center", ncols=len(names), frameon=False, fontsize=7
        )
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure as PNG, PDF or SVG, by the file's ending, with text that stays text."""
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
        figure.savefig(path, dpi=300, bbox_inches="tight", pad_inches=0.02)


def _heat(clips: Sequence[ClipHeat], title: str, label: str, columns: int) -> Figure:
    scale = HeatScale(torch.cat([clip.values.detach().flatten().cpu() for clip in clips]))
    images = [_middle_frames(clip.frames, len(clip.values)) for clip in clips]
    columns = min(columns, len(images[0])) if len(clips) == 1 else columns
    _, height, width, _ = images[0].shape
    figure, axes = _panels(sum(map(len, images)), columns, width / height, title)
    panels = [
        (clip, t, shown[t])
        for clip, shown in zip(clips, images, strict=True)
        for t in range(len(shown))
    ]
    for axis, (clip, t, image) in zip(axes, panels, strict=True):
        _show(axis, image, t if clip is clips[0] else None)
        _overlay(axis, scale, clip.values[t], image.shape[:2])
        if t == 0 and clip.title:
            axis.set_ylabel(clip.title, fontsize=7, parse_math=False)
    bar = figure.colorbar(scale.bar(), ax=axes, fraction=0.03, pad=0.01, aspect=15 * len(clips))
    bar.set_label(label, fontsize=7)
    bar.outline.set_linewidth(0.5)
    bar.ax.tick_params(labelsize=6, width=0.5, length=2)
    bar.ax.yaxis.get_offset_text().set_fontsize(6)
    return figure


def _overlay(axis: Axes, scale: HeatScale, values: Tensor, size: tuple[int, ...]) -> None:
    """Heat resized to the frame."""
    found = values.detach().float().cpu()[None, None]
    resized = F.interpolate(found, size=list(size), mode="bilinear", align_corners=False)
    axis.imshow(scale.rgba(resized[0, 0].numpy()))


def _panels(
    count: int, columns: int, aspect: float, title: str, margin: float = MARGIN_INCHES
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of frames, `aspect` times as wide as high."""
    rows = -(-count // columns)
    side = (WIDTH_INCHES - margin) / max(columns, 3)
    height = rows * (side / aspect + 0.12) + 0.15 + 0.25 * bool(title)
    figure = Figure(figsize=(side * columns + margin, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in grid:
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set(linewidth=0.5, color=FRAME_LINE)
    for axis in grid[count:]:
        axis.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=9, parse_math=False)
    return figure, list(grid[:count])


def _show(axis: Axes, image: np.ndarray, t: int | None) -> None:
    axis.imshow(image)
    if t is not None:
        axis.set_title(f"t = {t}", fontsize=7, pad=2)


def _middle_frames(frames: Frames, count: int) -> np.ndarray:
    """Of the video frames behind each frame of tokens the middle one, grey and pale.

    Shapes:
        - **output** `[T, H_in, W_in, 3]`, uint8
    """
    found = np.asarray(frames)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[-1] != 3:
        raise ValueError(
            f"frames must be uint8 of the shape [T_in, H_in, W_in, 3] (got {found.dtype} "
            f"{list(found.shape)})"
        )
    if not count or len(found) % count:
        raise ValueError(
            f"frames must be a multiple of {count}, the frames of tokens (got {len(found)})"
        )
    stride = len(found) // count
    chosen = found[stride // 2 :: stride]
    grey = chosen @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    dark, bright = np.percentile(grey, (1, 99))
    shares = ((grey - dark) / max(bright - dark, 1)).clip(0, 1)
    pale = 255 * (shares * (1 - PALE) + PALE)
    return np.repeat(pale[..., None], 3, axis=-1).astype(np.uint8)


def _draw_edge(
    figure: Figure,
    ends: list[tuple[Axes, np.ndarray]],
    apart: int,
    colour: str,
    strength: float,
) -> None:
    (from_axis, source), (to_axis, target) = ends
    opacity = 0.15 + 0.85 * strength**2
    if from_axis is to_axis and np.array_equal(source, target):
        from_axis.plot(
            *source, "o", markersize=5, markerfacecolor="none", color=colour, alpha=opacity
        )
        return
    bend = -0.1 / apart if apart else 0.15  # long arcs are flat, and stay on the panels
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
