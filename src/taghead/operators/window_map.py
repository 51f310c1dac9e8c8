r"""Linear maps on a grid's tokens that tell the positions of a frame apart: sums over windows.

.. math::
    \mathbf{y} = \sum_k L_k \Big(A_k \otimes J + B_k \otimes I
        + \sum_r c_{k,r} \, I_T \otimes V_r \otimes H_r\Big) R_k \, \mathbf{x}

with the sums :math:`V_r`, :math:`H_r` over at most r rows and columns away, and one factor per
token in the diagonals :math:`L_k`, :math:`R_k`. Sums, multiples and degree normalisations of such
maps are such maps again; products are not, so steps of propagation are applied one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from taghead.operators.linear_map import LinearMap, apply, zeros_from

Arrays = tuple[np.ndarray | None, ...]
ROW = 7  # arrays that are applied together


@dataclass(frozen=True, eq=False)
class Term:
    """One term of the sum.

    Args:
        linear: The part that treats positions alike.
        windows: How often each radius' windows are summed, the tokens themselves included.
        left: A factor for each target, `[T, P]`.
        right: A factor for each source, `[T, P]`.
    """

    linear: LinearMap
    windows: dict[int, float]
    left: np.ndarray | None = None
    right: np.ndarray | None = None

    def __add__(self, other: Term) -> Term:
        """The sum of two terms without factors."""
        radii = {**self.windows, **other.windows}
        windows = {r: self.windows.get(r, 0.0) + other.windows.get(r, 0.0) for r in radii}
        return Term(self.linear + other.linear, windows)

    def __rmul__(self, factor: float) -> Term:
        windows = {radius: factor * times for radius, times in self.windows.items()}
        return replace(self, linear=factor * self.linear, windows=windows)

    @property
    def is_scaled(self) -> bool:
        return self.left is not None or self.right is not None


@dataclass(frozen=True, eq=False)
class WindowMap:
    """A map of a grid's tokens with sums over windows, in float64.

    Args:
        size: Rows and columns of a frame.
        terms: The terms of the sum.
    """

    size: tuple[int, int]
    terms: tuple[Term, ...]

    @classmethod
    def of(
        cls, size: tuple[int, int], linear: LinearMap, windows: dict[int, float] | None = None
    ) -> WindowMap:
        """The map of one term without factors."""
        return cls(size, (Term(linear, windows or {}),))

    @property
    def identity(self) -> WindowMap:
        """The identity on the same grid; as edges, the self-loops."""
        return WindowMap.of(self.size, self.terms[0].linear.identity)

    def __add__(self, other: WindowMap) -> WindowMap:
        terms = [*self.terms, *other.terms]
        plain = [term for term in terms if not term.is_scaled]
        merged = [sum(plain[1:], start=plain[0])] if plain else []
        return replace(self, terms=(*merged, *(term for term in terms if term.is_scaled)))

    def __sub__(self, other: WindowMap) -> WindowMap:
        return self + -1.0 * other

    def __rmul__(self, factor: float) -> WindowMap:
        return replace(self, terms=tuple(factor * term for term in self.terms))

    def scale_targets(self, factors: np.ndarray) -> WindowMap:
        """The map followed by one factor per token, `[T, P]`."""
        terms = [replace(t, left=_times(t.left, factors)) for t in self.terms]
        return replace(self, terms=tuple(terms))

    def scale_sources(self, factors: np.ndarray) -> WindowMap:
        """The map preceded by one factor per token, `[T, P]`."""
        terms = [replace(t, right=_times(t.right, factors)) for t in self.terms]
        return replace(self, terms=tuple(terms))

    def degrees(self) -> np.ndarray:
        """The sum of the weights that arrive at every token, `[T, P]`."""
        return self._sums(self.terms)

    def source_degrees(self) -> np.ndarray:
        """The sum of the weights that leave every token, `[T, P]`."""
        turned = [Term(t.linear.transposed, t.windows, t.right, t.left) for t in self.terms]
        return self._sums(turned)

    def _sums(self, terms: Sequence[Term]) -> np.ndarray:
        linear = terms[0].linear
        frames, positions = len(linear.nodes), linear.num_positions
        total = np.zeros((frames, positions))
        for term in terms:
            x = np.ones((frames, positions)) if term.right is None else term.right
            out = (term.linear.sums @ x.sum(1))[:, None] + term.linear.nodes @ x
            for radius, factor in term.windows.items():
                rows, columns = (band(n, radius) for n in self.size)
                windows = rows @ x.reshape(frames, *self.size) @ columns
                out = out + factor * windows.reshape(frames, positions)
            total += out if term.left is None else term.left * out
        return total

    def mean(self) -> WindowMap:
        """Each token's sum over its edges, divided by their number; 0 where it has none."""
        return self.scale_targets(1 / np.maximum(self.degrees(), 1))

    def gcn(self, add_self_loops: bool = True) -> WindowMap:
        r"""The normalisation :math:`D^{-1/2} (A + I) D^{-1/2}`, as in PyG's `gcn_norm`."""
        edges = self + self.identity if add_self_loops else self
        degrees = edges.degrees()
        scale = np.where(degrees > 0, degrees, np.inf) ** -0.5
        return edges.scale_targets(scale).scale_sources(scale)

    def arrays(self) -> Arrays:
        """What `apply_windows` needs, in rows: factors, a linear map's arrays, and two bands."""
        found: list[np.ndarray | None] = []
        for term in self.terms:
            factors = (None if f is None else f[:, :, None] for f in (term.right, term.left))
            scale, linear = tuple(factors), term.linear.arrays()
            for radius, factor in term.windows.items():
                rows, columns = (band(n, radius) for n in self.size)
                found += [*scale, *linear, factor * rows, columns]
                linear = (None, None, None)
            if not term.windows:
                found += [*scale, *linear, None, None]
        return tuple(found)


def _times(one: np.ndarray | None, other: np.ndarray) -> np.ndarray:
    return other if one is None else one * other


def band(size: int, radius: int) -> np.ndarray:
    """Which of a number of places are at most `radius` apart, `[size, size]`."""
    places = np.arange(size)
    return (abs(places[:, None] - places) <= radius).astype(float)


def apply_windows(matrices: Sequence[Tensor | None], size: tuple[int, int], x: Tensor) -> Tensor:
    """Applies a map, given as the tensors of `WindowMap.arrays`; under autocast x keeps its type.

    Args:
        matrices: The tensors.
        size: Rows and columns of a frame.
        x: The tokens.

    Shapes:
        - **x**, **output** `[..., T, P, C]`
    """
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            return apply_windows(matrices, size, x)
    terms = [_row(matrices[i : i + ROW], size, x) for i in range(0, len(matrices), ROW)]
    return sum(terms[1:], start=terms[0])


def _row(matrices: Sequence[Tensor | None], size: tuple[int, int], x: Tensor) -> Tensor:
    right, left, *linear, rows, columns = matrices
    x = x if right is None else x * right
    out = None if linear == [None] * 3 else apply(linear, x)
    if rows is not None and columns is not None:
        windows = (rows @ x.unflatten(-2, size).flatten(-2)).unflatten(-1, (size[1], -1))
        windows = (columns @ windows).flatten(-3, -2)
        out = windows if out is None else out + windows
    out = zeros_from(x) if out is None else out
    return out if left is None else out * left
