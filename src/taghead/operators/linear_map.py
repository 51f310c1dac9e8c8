r"""Linear maps on a grid's tokens that treat the positions of a frame alike: two T x T matrices.

.. math::
    \mathbf{y}_{t,p} = \sum_s A_{t,s} \sum_q \mathbf{x}_{s,q} + \sum_s B_{t,s} \mathbf{x}_{s,p}

that is :math:`A \otimes J + B \otimes I` with the all-ones matrix :math:`J` over the P positions.
Sums, multiples, products and degree normalisations of such maps are such maps again, so a whole
propagation of any number of steps is one pair of matrices. `docs/algebra.md` derives this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A map of a grid's tokens, in float64.

    Args:
        sums: The matrix A, applied to the sums over each frame.
        nodes: The matrix B, applied to each position.
        num_positions: Positions of a frame, P.

    Shapes:
        - **sums**, **nodes** `[T, T]`, target frame first
    """

    sums: np.ndarray
    nodes: np.ndarray
    num_positions: int

    @classmethod
    def zero(cls, num_frames: int, num_positions: int) -> LinearMap:
        """The map to zero."""
        return cls(np.zeros((num_frames,) * 2), np.zeros((num_frames,) * 2), num_positions)

    @property
    def identity(self) -> LinearMap:
        """The identity on the same grid; as edges, the self-loops."""
        return LinearMap(np.zeros_like(self.sums), np.eye(len(self.nodes)), self.num_positions)

    def __add__(self, other: LinearMap) -> LinearMap:
        return LinearMap(self.sums + other.sums, self.nodes + other.nodes, self.num_positions)

    def __sub__(self, other: LinearMap) -> LinearMap:
        return self + -1.0 * other

    def __rmul__(self, factor: float) -> LinearMap:
        return LinearMap(factor * self.sums, factor * self.nodes, self.num_positions)

    def __matmul__(self, other: LinearMap) -> LinearMap:
        """The composition: first the other map, then this one."""
        a, b, c, d = self.sums, self.nodes, other.sums, other.nodes
        return LinearMap(self.num_positions * a @ c + a @ d + b @ c, b @ d, self.num_positions)

    def scale_targets(self, factors: np.ndarray) -> LinearMap:
        """The map followed by one factor per frame."""
        rows = factors[:, None]
        return LinearMap(rows * self.sums, rows * self.nodes, self.num_positions)

    def scale_sources(self, factors: np.ndarray) -> LinearMap:
        """The map preceded by one factor per frame."""
        return LinearMap(self.sums * factors, self.nodes * factors, self.num_positions)

    def degrees(self) -> np.ndarray:
        """The sum of the weights that arrive at a node of each frame, `[T]`."""
        return self.num_positions * self.sums.sum(1) + self.nodes.sum(1)

    @property
    def transposed(self) -> LinearMap:
        """The map with sources and targets exchanged."""
        return LinearMap(self.sums.T, self.nodes.T, self.num_positions)

    def source_degrees(self) -> np.ndarray:
        """The sum of the weights that leave a node of each frame, `[T]`."""
        return self.transposed.degrees()

    def of_frame_means(self) -> LinearMap:
        """What the map does to the means over each frame: a map of one position a frame."""
        nodes = self.num_positions * self.sums + self.nodes
        return LinearMap(np.zeros_like(nodes), nodes, 1)

    def mean(self) -> LinearMap:
        """Each node's sum over its edges, divided by their number; 0 where it has none."""
        return self.scale_targets(1 / np.maximum(self.degrees(), 1))

    def gcn(self, add_self_loops: bool = True) -> LinearMap:
        r"""The normalisation :math:`D^{-1/2} (A + I) D^{-1/2}`, as in PyG's `gcn_norm`."""
        edges = self + self.identity if add_self_loops else self
        degrees = edges.degrees()
        scale = np.where(degrees > 0, degrees, np.inf) ** -0.5
        return edges.scale_targets(scale).scale_sources(scale)

    def arrays(self) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """What `apply` needs: A, B, and in B's place its diagonal if it has nothing else.

        A matrix of zeros is None.
        """
        sums = self.sums if self.sums.any() else None
        diagonal = np.diagonal(self.nodes)
        if not np.array_equal(self.nodes, np.diag(diagonal)):
            return sums, self.nodes, None
        return sums, None, diagonal[:, None, None].copy() if diagonal.any() else None


def apply(matrices: Sequence[Tensor | None], x: Tensor) -> Tensor:
    """Applies a linear map, given as the tensors of `LinearMap.arrays`.

    Under autocast it keeps the type of x, as PyG's sums over edges do.

    Shapes:
        - **x**, **output** `[..., T, P, C]`
    """
    device_type = x.device.type
    if torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            return _apply(x, *matrices)
    return _apply(x, *matrices)


def _apply(x: Tensor, sums: Tensor | None, nodes: Tensor | None, diagonal: Tensor | None) -> Tensor:
    out = None
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
    return zeros_from(x) if out is None else out


def zeros_from(x: Tensor) -> Tensor:
    """Zeros like x that depend on it, as an empty sum over edges does."""
    return x.masked_fill(x.new_ones((), dtype=torch.bool), 0.0)
