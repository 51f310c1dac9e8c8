"""Heatmaps of tokens over video frames: matplotlib figures without global state.

The frames are those that the backbone took, cropped and resized, so that the grid of tokens covers
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from torch import Tensor

from taghead.explain.plots.frames import (
    MAX_COLUMNS,
    Frames,
    frame_panels,
    middle_frames,
    show_frame,
)

WARM = LinearSegmentedColormap.from_list("warm", ["#ffd98a", "#f58a3c", "#d1332e", "#7a0f3d"])
COLD = LinearSegmentedColormap.from_list("cold", ["#a9cbf5", "#4f8fe0", "#1f55b0", "#0b2a66"])
MAX_OPACITY = 0.8
BACKGROUND = 0.75  # grey level of a pale frame, behind the colours of the bar


class ClipHeat(NamedTuple):
    """One row of `compare_heat`: frames, a value for each token, and a title.

    Shapes:
        - **frames** `[T_in, H_in, W_in, 3]`, uint8
        - **values** `[T, H, W]`
    """

    frames: Frames
    values: Tensor
    title: str = ""


def token_heat(frames: Frames, values: Tensor, *, title: str = "", label: str = "weight") -> Figure:
    """Heatmap of a value for each token, over the clip's frames.

    One panel shows one token frame, over the middle one of its video frames. If a value is
    negative, values are blue below 0 and red above.

    Args:
        frames: The clip's frames.
        values: A value for each token: `attention.rollout()[0]`, `token_saliency(...)[0]`, ...
        title: The figure's title.
        label: Label of the colour bar.

    Shapes:
        - **frames** `[T_in, H_in, W_in, 3]`, uint8, T_in a multiple of T
        - **values** `[T, H, W]`

    Raises:
        ValueError: If the shapes do not match.
    """
    return _heat([ClipHeat(frames, values, "")], title, label, MAX_COLUMNS)


def compare_heat(clips: Sequence[ClipHeat], *, title: str = "", label: str = "weight") -> Figure:
    """Heatmaps of several clips, or of one for several classes: a row for each, one colour scale.

    Args:
        clips: The rows, with the same number of token frames.
        title: The figure's title.
        label: Label of the colour bar.

    Raises:
        ValueError: If the numbers of token frames differ.
    """
    lengths = [len(clip.values) for clip in clips]
    if len(set(lengths)) != 1:
        raise ValueError(f"clips must have the same number of token frames (got {lengths})")
    return _heat(clips, title, label, lengths[0])


class HeatScale:
    """A colour scale: warm colours, or warm above 0 and cold below it if a value is negative.

    The smaller a value's magnitude, the more of the frame shows through.

    Args:
        values: All values that are drawn with this scale.
    """

    def __init__(self, values: Tensor) -> None:
        flat = values.detach().float().cpu()
        top = float(flat.abs().max()) or 1.0
        self.is_signed = bool(flat.min() < 0)
        self.norm = CenteredNorm(0, top) if self.is_signed else Normalize(float(flat.min()), top)

    def rgba(self, values: np.ndarray) -> np.ndarray:
        """RGBA colours of values, `[...]` -> `[..., 4]`."""
        return self._colours(np.asarray(self.norm(values)))

    def bar(self) -> ScalarMappable:
        """The argument of a colour bar: the colours as they look on a pale frame."""
        rgba = self._colours(np.linspace(0, 1, 256))
        opacity = rgba[:, 3:]
        blended = rgba[:, :3] * opacity + BACKGROUND * (1 - opacity)
        return ScalarMappable(self.norm, ListedColormap(blended))

    def _colours(self, normed: np.ndarray) -> np.ndarray:
        signed = (normed - 0.5) * 2 if self.is_signed else normed
        strength = np.abs(signed).clip(0, 1)
        rgba = np.where((signed < 0)[..., None], COLD(strength), WARM(strength))
        rgba[..., 3] = MAX_OPACITY * strength**0.65
        return rgba


def _heat(clips: Sequence[ClipHeat], title: str, label: str, columns: int) -> Figure:
    scale = HeatScale(torch.cat([clip.values.detach().flatten().cpu() for clip in clips]))
    images = [middle_frames(clip.frames, len(clip.values)) for clip in clips]
    columns = min(columns, len(images[0])) if len(clips) == 1 else columns
    _, height, width, _ = images[0].shape
    figure, axes = frame_panels(sum(map(len, images)), columns, width / height, title)
    panels = [
        (clip, t, shown[t])
        for clip, shown in zip(clips, images, strict=True)
        for t in range(len(shown))
    ]
    for axis, (clip, t, image) in zip(axes, panels, strict=True):
        show_frame(axis, image, t if clip is clips[0] else None)
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
    """Draws the values of one token frame, resized to the panel."""
    weights = values.detach().float().cpu()[None, None]
    resized = F.interpolate(weights, size=list(size), mode="bilinear", align_corners=False)
    axis.imshow(scale.rgba(resized[0, 0].numpy()))
