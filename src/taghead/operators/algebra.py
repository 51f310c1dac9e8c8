r"""Linear maps of a grid's tokens: sums over frames, over times and over spatial windows.

.. math::
    M = A \otimes J + B \otimes I + \sum_r c_r \, I_T \otimes V_r \otimes H_r

with T x T matrices A and B, the all-ones matrix J and the identity I over the P positions, and the
sums :math:`V_r`, :math:`H_r` over at most r rows and columns away. Sums, multiples and degree
normalisations of such maps are sums of terms :math:`L M R` with a factor for each token in the
diagonals L and R. Without windows they are one pair (A, B), products too. `docs/algebra.md` derives
this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

Arrays = tuple[np.ndarray | None, ...]
ARRAYS_PER_ROW = 7  # right, left, sums, nodes, diagonal, rows, columns


@dataclass(frozen=True, eq=False)
class Term:
    """One term L M R of a grid matrix, in float64.

    Args:
        sums: The matrix A, applied to the sums over each frame, `[T, T]`, target frame first.
        nodes: The matrix B, applied to each position, `[T, T]`.
        windows: The coefficient of each radius' window sum, which includes the token itself.
        left: A factor for each target, `[T, P]`, or `[T, 1]` if uniform over a frame.
        right: A factor for each source.
    """

    sums: np.ndarray
    nodes: np.ndarray
    windows: Mapping[int, float] = field(default_factory=dict)
    left: np.ndarray | None = None
    right: np.ndarray | None = None

    @property
    def is_scaled(self) -> bool:
        return self.left is not None or self.right is not None

    @property
    def transposed(self) -> Term:
        return Term(self.sums.T, self.nodes.T, self.windows, self.right, self.left)

    def __add__(self, other: Term) -> Term:
        """The sum of two terms without factors."""
        radii = {**self.windows, **other.windows}
        windows = {r: self.windows.get(r, 0.0) + other.windows.get(r, 0.0) for r in radii}
        return Term(self.sums + other.sums, self.nodes + other.nodes, windows)

    def __rmul__(self, factor: float) -> Term:
        windows = {radius: factor * times for radius, times in self.windows.items()}
        sums, nodes = factor * self.sums, factor * self.nodes
        return replace(self, sums=sums, nodes=nodes, windows=windows)

    def scale_targets(self, factors: np.ndarray) -> Term:
        """The term followed by one factor for each token, `[T, P]`, or each frame, `[T, 1]`."""
        if factors.shape[1] == 1 and not self.windows:
            return replace(self, sums=factors * self.sums, nodes=factors * self.nodes)
        return replace(self, left=factors if self.left is None else self.left * factors)


@dataclass(frozen=True, eq=False)
class GridMatrix:
    """A linear map of a grid's tokens, in float64: entry (i, j) is the weight of edge j -> i.

    Args:
        size: Frames, rows and columns of the grid.
        terms: The terms of the sum.
    """

    size: tuple[int, int, int]
    terms: tuple[Term, ...]

    @property
    def num_positions(self) -> int:
        """Positions of a frame, P."""
        return self.size[1] * self.size[2]

    @property
    def identity(self) -> GridMatrix:
        """The identity on the same grid: the self-loops."""
        eye = np.eye(self.size[0])
        return replace(self, terms=(Term(0 * eye, eye),))

    @property
    def transposed(self) -> GridMatrix:
        """The map with sources and targets exchanged."""
        return replace(self, terms=tuple(term.transposed for term in self.terms))

    def __add__(self, other: GridMatrix) -> GridMatrix:
        terms = [*self.terms, *other.terms]
        plain = [term for term in terms if not term.is_scaled]
        merged = [sum(plain[1:], start=plain[0])] if plain else []
        return replace(self, terms=(*merged, *(term for term in terms if term.is_scaled)))

    def __sub__(self, other: GridMatrix) -> GridMatrix:
        return self + -1.0 * other

    def __rmul__(self, factor: float) -> GridMatrix:
        return replace(self, terms=tuple(factor * term for term in self.terms))

    def __matmul__(self, other: GridMatrix) -> GridMatrix:
        """The composition, of maps without windows: first the other map, then this one."""
        (one,), (two,) = self.terms, other.terms
        if one.windows or two.windows:
            raise ValueError("a product of grid matrices must have no windows")
        a, b, c, d = one.sums, one.nodes, two.sums, two.nodes
        return replace(self, terms=(Term(self.num_positions * a @ c + a @ d + b @ c, b @ d),))

    def scale_targets(self, factors: np.ndarray) -> GridMatrix:
        """The map followed by one factor for each token, `[T, P]`, or each frame, `[T, 1]`."""
        return replace(self, terms=tuple(term.scale_targets(factors) for term in self.terms))

    def scale_sources(self, factors: np.ndarray) -> GridMatrix:
        """The map preceded by one factor for each token, `[T, P]`, or each frame, `[T, 1]`."""
        return self.transposed.scale_targets(factors).transposed

    def degrees(self) -> np.ndarray:
        """The weighted in-degree of every token, `[T, P]`, or `[T, 1]` if uniform over a frame."""
        total = np.zeros((self.size[0], 1))
        for term in self.terms:
            x = np.ones_like(total[:, :1]) if term.right is None else term.right
            of_frame = self.num_positions * x if x.shape[1] == 1 else x.sum(1, keepdims=True)
            out = term.sums @ of_frame + term.nodes @ x
            for radius, factor in term.windows.items():
                rows, columns = (band(n, radius) for n in self.size[1:])
                of_grid = np.broadcast_to(x, (len(x), self.num_positions)).reshape(self.size)
                out = out + factor * (rows @ of_grid @ columns).reshape(len(x), -1)
            total = total + (out if term.left is None else term.left * out)
        return total

    def mean(self) -> GridMatrix:
        """The mean over each token's incoming edges; 0 where it has none."""
        return self.scale_targets(1 / np.maximum(self.degrees(), 1))

    def normalized(self, add_self_loops: bool = True) -> GridMatrix:
        r"""The normalisation :math:`D^{-1/2} (A + I) D^{-1/2}`, as in PyG's `gcn_norm`."""
        edges = self + self.identity if add_self_loops else self
        scale = inverse_root(edges.degrees())
        return edges.scale_targets(scale).scale_sources(scale)

    def of_frame_means(self) -> GridMatrix:
        """The same map on the means over each frame, for maps without windows: P is 1."""
        (term,) = self.terms
        nodes = self.num_positions * term.sums + term.nodes
        return GridMatrix((self.size[0], 1, 1), (Term(np.zeros_like(nodes), nodes),))

    def arrays(self) -> Arrays:
        """The arguments of `apply`: `ARRAYS_PER_ROW` arrays for each term and radius.

        A matrix of zeros is None. A diagonal B is stored as its diagonal.
        """
        found: list[np.ndarray | None] = []
        for term in self.terms:
            factors = [None if f is None else f[:, :, None] for f in (term.right, term.left)]
            matrices = _pair(term)
            for radius, factor in term.windows.items():
                rows, columns = (band(n, radius) for n in self.size[1:])
                found += [*factors, *matrices, factor * rows, columns]
                matrices = (None, None, None)
            if not term.windows:
                found += [*factors, *matrices, None, None]
        return tuple(found)


def _pair(term: Term) -> Arrays:
    sums = term.sums if term.sums.any() else None
    diagonal = np.diagonal(term.nodes)
    if not np.array_equal(term.nodes, np.diag(diagonal)):
        return sums, term.nodes, None
    return sums, None, diagonal[:, None, None].copy() if diagonal.any() else None


def inverse_root(degrees: np.ndarray) -> np.ndarray:
    """The inverse square root of degrees, 0 where a degree is 0."""
    return np.where(degrees > 0, degrees, np.inf) ** -0.5


def band(size: int, radius: int) -> np.ndarray:
    """A mask of the rows (or columns) that are at most `radius` apart, `[size, size]`."""
    index = np.arange(size)
    return (abs(index[:, None] - index) <= radius).astype(float)


def apply(matrices: Sequence[Tensor | None], x: Tensor, size: tuple[int, int]) -> Tensor:
    """Applies a map, given as the tensors of `GridMatrix.arrays`, to tokens `[..., T, P, C]`.

    Under autocast it keeps the dtype of x, as PyG's sums over edges do. `size` is that of a frame.
    """
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            return apply(matrices, x, size)
    if len(matrices) == ARRAYS_PER_ROW:
        return _apply_row(matrices, x, size)
    rows = range(0, len(matrices), ARRAYS_PER_ROW)
    return add_up(_apply_row(matrices[i : i + ARRAYS_PER_ROW], x, size) for i in rows)


def _apply_row(matrices: Sequence[Tensor | None], x: Tensor, size: tuple[int, int]) -> Tensor:
    right, left, sums, nodes, diagonal, rows, columns = matrices
    x, out = x if right is None else x * right, None
    if nodes is not None:
        out = (nodes @ x.flatten(-2)).unflatten(-1, x.shape[-2:])
    elif diagonal is not None:
        out = x * diagonal
    if sums is not None:
        frames = (sums @ x.sum(-2)).unsqueeze(-2)  # [..., T, 1, C]
        if out is None:
            out = frames.expand_as(x)
        else:  # out is new; autograd would copy it, as the view that it is
            out = out + frames if out.requires_grad else out.add_(frames)
    if rows is not None and columns is not None:
        windows = (rows @ x.unflatten(-2, size).flatten(-2)).unflatten(-1, (size[1], -1))
        windows = (columns @ windows).flatten(-3, -2)
        out = windows if out is None else out + windows
    out = zeros_from(x) if out is None else out
    return out if left is None else out * left


def zeros_from(x: Tensor) -> Tensor:
    """Zeros like x that depend on x in the autograd graph, as an empty sum over edges does."""
    return x.masked_fill(x.new_ones((), dtype=torch.bool), 0.0)


def add_up(terms: Iterable[Tensor]) -> Tensor:
    """The sum of tensors."""
    first, *others = terms
    return sum(others, start=first)
