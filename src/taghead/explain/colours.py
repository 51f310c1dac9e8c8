"""Colours of heat over a pale frame: the nearer a number to none, the more of the frame shows."""

from __future__ import annotations

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, LinearSegmentedColormap, ListedColormap, Normalize
from torch import Tensor

WARM = LinearSegmentedColormap.from_list("warm", ["#ffd98a", "#f58a3c", "#d1332e", "#7a0f3d"])
COLD = LinearSegmentedColormap.from_list("cold", ["#a9cbf5", "#4f8fe0", "#1f55b0", "#0b2a66"])
STRONGEST = 0.8  # opacity
UNDER = 0.75  # the grey of a pale frame, behind the colours of the bar


class HeatScale:
    """From numbers to colours: warm, or warm above 0 and cold below it if some are negative.

    Args:
        values: All numbers that are shown together.
    """

    def __init__(self, values: Tensor) -> None:
        found = values.detach().float().cpu()
        top = float(found.abs().max()) or 1.0
        self.is_signed = bool(found.min() < 0)
        self.norm = CenteredNorm(0, top) if self.is_signed else Normalize(float(found.min()), top)

    def rgba(self, values: np.ndarray) -> np.ndarray:
        """Colours with opacity, `[..., 4]`."""
        return self._of_shares(np.asarray(self.norm(values)))

    def bar(self) -> ScalarMappable:
        """What a colour bar takes: the colours as they look on a pale frame."""
        rgba = self._of_shares(np.linspace(0, 1, 256))
        opacity = rgba[:, 3:]
        mixed = rgba[:, :3] * opacity + UNDER * (1 - opacity)
        return ScalarMappable(self.norm, ListedColormap(mixed))

    def _of_shares(self, shares: np.ndarray) -> np.ndarray:
        signed = (shares - 0.5) * 2 if self.is_signed else shares
        strength = np.abs(signed).clip(0, 1)
        rgba = np.where((signed < 0)[..., None], COLD(strength), WARM(strength))
        rgba[..., 3] = STRONGEST * strength**0.65
        return rgba
