"""Motion-aligned edges: each token's best feature matches in the frames before and after."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from taghead.graph.edges import DynamicEdges, RelationKind, time_aligned_edges
from taghead.graph.grid_shape import GridShape

TIE = 1e-6  # cosines that differ by less count as equal: rounding makes such differences


@dataclass(frozen=True)
class MotionEdges(DynamicEdges):
    """Directed edges from the most similar token of the frame before, and of the frame after.

    Similarity is the cosine of the features, among the tokens at most `radius` rows and columns
    away. Ties go to the nearest token, so that a still clip has the edges of `time_aligned`;
    the number of edges is the same, 2*(T-1)*P. The choice has no gradient.

    Args:
        radius: The largest distance in rows and in columns.
    """

    radius: int

    @torch.no_grad()
    def edges_of(self, x: Tensor, grid: GridShape) -> Tensor:
        before, after = self.matches(x, grid)
        nodes = torch.arange(grid.num_nodes, device=x.device)
        frame = (nodes // grid.num_positions).view(-1, 1) * grid.num_positions
        # [B, T, P, 2]: the position in the frame before and after; some frames are outside the grid
        matches = torch.stack([F.pad(before, (0, 0, 1, 0)), F.pad(after, (0, 0, 0, 1))], dim=-1)
        step = torch.tensor([-grid.num_positions, grid.num_positions], device=x.device)
        source = matches.flatten(1, 2) + frame + step
        inside = (frame + step >= 0) & (frame + step < grid.num_nodes)
        target = time_aligned_edges(grid)[1].to(x.device)
        source = source[:, inside]
        return torch.stack([source, target.expand_as(source)], dim=1)

    def matches(self, x: Tensor, grid: GridShape) -> tuple[Tensor, Tensor]:
        """The best match of each token in the frame before its own, and in the frame after.

        Shapes:
            - **x** `[B, N, C]`
            - **output** two `[B, T-1, P]`: positions in frames 0 to T-2 for the tokens of frames 1
              to T-1, and positions in frames 1 to T-1 for those of frames 0 to T-2
        """
        nearness, inside = self._nearness(grid, x.device)
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.detach().to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
            x = x.unflatten(1, (grid.frames, grid.num_positions))
            # [B, T-1, P, P]: positions of the later frame before those of the earlier
            cosine = x[:, 1:] @ x[:, :-1].transpose(-2, -1)
        before = _best_match(cosine, nearness, inside)
        after = _best_match(cosine.transpose(-2, -1), nearness, inside)
        return before, after

    def _nearness(self, grid: GridShape, device: torch.device) -> tuple[Tensor, Tensor]:
        """A rank by distance for each target and source, and whether the source is in the window.

        Shapes:
            - **output** two `[P, P]`, target before source
        """
        position = grid.positions()[: grid.num_positions, 1:].to(device)
        offset = position.unsqueeze(0) - position.unsqueeze(1)  # [P, P, 2], source minus target
        row, column = offset.unbind(-1)
        rank = (row.square() + column.square()) * (2 * grid.height) + row + grid.height
        rank = rank * (2 * grid.width) + column + grid.width
        return rank, offset.abs().amax(-1) <= self.radius


def _best_match(cosine: Tensor, nearness: Tensor, inside: Tensor) -> Tensor:
    """The best-matching source of each target: `[..., P, P]` -> `[..., P]`."""
    cosine = cosine.masked_fill(~inside, -torch.inf)
    is_best = cosine >= cosine.amax(-1, keepdim=True) - TIE
    last = torch.iinfo(nearness.dtype).max
    return nearness.where(is_best, last).argmin(-1)


KINDS = (RelationKind("motion_aligned", "motion_{}p", MotionEdges, "radius", 1),)
"""The relations of this module's rule."""
