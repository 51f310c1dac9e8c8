"""Edges that follow what moves: to the best match of features in the frames before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from taghead.graph.edges import FeatureEdges, time_aligned_edges

if TYPE_CHECKING:
    from taghead.graph.grid import Grid

TIE = 1e-6  # cosines that differ by less are equal: rounding makes such differences


@dataclass(frozen=True)
class MotionEdges(FeatureEdges):
    """From the token of the frame before, and of the one after, that looks most like the target.

    That is the one with the largest cosine similarity among those at most `radius` rows and columns
    away. Of equal ones it is the nearest, so that a still clip has the edges of `time_aligned`;
    there are as many: 2*(T-1)*P. The choice has no gradient.

    Args:
        radius: The largest distance in rows and in columns.
    """

    radius: int

    @torch.no_grad()
    def edges_of(self, x: Tensor, grid: Grid) -> Tensor:
        before, after = self.matches(x, grid)
        nodes = torch.arange(grid.num_nodes, device=x.device)
        frame = (nodes // grid.num_positions).view(-1, 1) * grid.num_positions
        # [B, N, 2]: the node in the frame before and in the one after; some are outside the grid
        places = torch.stack([F.pad(before, (0, 0, 1, 0)), F.pad(after, (0, 0, 0, 1))], dim=-1)
        step = torch.tensor([-grid.num_positions, grid.num_positions], device=x.device)
        source = places.flatten(1, 2) + frame + step
        inside = (frame + step >= 0) & (frame + step < grid.num_nodes)
        target = time_aligned_edges(grid)[1].to(x.device)
        found = source[:, inside]
        return torch.stack([found, target.expand_as(found)], dim=1)

    def matches(self, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """The best matches of all frames but the first in those before them, and the way back.

        Shapes:
            - **x** `[B, N, C]`
            - **output** two `[B, T-1, P]`: positions in frames 0 to T-2, and in frames 1 to T-1
        """
        nearness, inside = self._nearness(grid, x.device)
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.detach().to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
            x = x.unflatten(1, (grid.frames, grid.num_positions))
            # [B, T-1, P, P]: positions of the later frame before those of the earlier
            cosine = x[:, 1:] @ x[:, :-1].transpose(-2, -1)
        ways = (cosine, cosine.transpose(-2, -1))
        first, second = (_best(way, nearness, inside) for way in ways)
        return first, second

    def _nearness(self, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
        """A rank for each target and source, the nearest first, and which are near enough."""
        place = grid.positions()[: grid.num_positions, 1:].to(device)
        way = place.unsqueeze(0) - place.unsqueeze(1)  # [P, P, 2], source minus target
        row, column = way.unbind(-1)
        rank = (row.square() + column.square()) * (2 * grid.height) + row + grid.height
        rank = rank * (2 * grid.width) + column + grid.width
        return rank, way.abs().amax(-1) <= self.radius


def _best(cosine: Tensor, nearness: Tensor, inside: Tensor) -> Tensor:
    """The source of each target: `[..., P, P]` -> `[..., P]`."""
    cosine = cosine.masked_fill(~inside, -torch.inf)
    is_best = cosine >= cosine.amax(-1, keepdim=True) - TIE
    last = torch.iinfo(nearness.dtype).max
    return nearness.where(is_best, last).argmin(-1)
