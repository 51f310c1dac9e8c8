"""Panels of grey video frames, the background of heatmaps and edges; and saving of figures."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

WIDTH_INCHES = 7.0  # of a page of two columns
MARGIN_INCHES = 0.9  # for the colour bar
MAX_COLUMNS = 8
PALE = 0.6  # share of white in the frames
FRAME_LINE = "#9aa3b0"
Frames = np.ndarray | Tensor


def frame_panels(
    count: int, columns: int, aspect: float, title: str, margin: float = MARGIN_INCHES
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels, each `aspect` times as wide as high, and their axes."""
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


def show_frame(axis: Axes, image: np.ndarray, t: int | None) -> None:
    """Draws a frame on its panel; `t`, if given, is its title."""
    axis.imshow(image)
    if t is not None:
        axis.set_title(f"t = {t}", fontsize=7, pad=2)


def middle_frames(frames: Frames, count: int) -> np.ndarray:
    """The middle one of the video frames of each token frame, in pale grey.

    Args:
        frames: The clip's frames.
        count: Frames of tokens, T.

    Shapes:
        - **frames** `[T_in, H_in, W_in, 3]`, uint8, T_in a multiple of T
        - **output** `[T, H_in, W_in, 3]`, uint8

    Raises:
        ValueError: If the frames have another dtype, shape or number.
    """
    video = np.asarray(frames)
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
        raise ValueError(
            f"frames must be uint8 of the shape [T_in, H_in, W_in, 3] (got {video.dtype} "
            f"{list(video.shape)})"
        )
    if not count or len(video) % count:
        raise ValueError(
            f"frames must be a multiple of {count}, the token frames (got {len(video)})"
        )
    stride = len(video) // count
    chosen = video[stride // 2 :: stride]
    grey = chosen @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    dark, bright = np.percentile(grey, (1, 99))
    contrast = ((grey - dark) / max(bright - dark, 1)).clip(0, 1)
    pale = 255 * (contrast * (1 - PALE) + PALE)
    return np.repeat(pale[..., None], 3, axis=-1).astype(np.uint8)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Writes a figure as PNG, PDF or SVG, by the file's suffix; text stays text, not outlines."""
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
        figure.savefig(path, dpi=300, bbox_inches="tight", pad_inches=0.02)
