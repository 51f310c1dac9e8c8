"""The regular space-time grid of video tokens, and the typed edges between them.

Everything here is a pure function of sizes: no feature, no parameter, no state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from taghead.graph.edges import EdgeRule, intra_frame_edges, time_aligned_edges
from taghead.graph.relations import (
    FUTURE,
    INTRA_FRAME,
    NO_EDGES,
    PAST,
    RELATIONS,
    TIME_ALIGNED,
    Relation,
    TimeAligned,
    as_relation,
    combine,
    custom,
    future,
    motion_aligned,
    past,
    random_intra,
    random_time,
    shuffled_intra,
    shuffled_time,
    spatial_window,
    time_aligned,
)

__all__ = [
    "FUTURE",
    "INTRA_FRAME",
    "NO_EDGES",
    "PAST",
    "RELATIONS",
    "TIME_ALIGNED",
    "EdgeRule",
    "Grid",
    "Relation",
    "TimeAligned",
    "as_relation",
    "combine",
    "custom",
    "future",
    "intra_frame_edges",
    "motion_aligned",
    "past",
    "random_intra",
    "random_time",
    "shuffled_intra",
    "shuffled_time",
    "spatial_window",
    "time_aligned",
    "time_aligned_edges",
]


@dataclass(frozen=True)
class Grid:
    r"""A regular grid of tokens, `frames` x `height` x `width`.

    Node :math:`(t \cdot H + h) \cdot W + w` is the token of frame :math:`t`, row :math:`h` and
    column :math:`w`: the order in which a feature map `[C, T, H, W]` is flattened.

    Args:
        frames: Number of frames T.
        height: Number of rows H.
        width: Number of columns W.

    Raises:
        ValueError: If a size is not a positive integer.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be a positive integer (got {size!r})")

    @property
    def num_positions(self) -> int:
        """Positions of one frame: P = H*W."""
        return self.height * self.width

    @property
    def num_nodes(self) -> int:
        """Tokens in all: N = T*H*W."""
        return self.frames * self.num_positions

    def positions(self) -> Tensor:
        """The (t, y, x) of every node.

        Shapes:
            - **output** `[N, 3]`, int64
        """
        axes = (torch.arange(size) for size in (self.frames, self.height, self.width))
        return torch.cartesian_prod(*axes)

    def edge_index(self, relation: Relation | tuple[str, str, str] | str) -> Tensor:
        """The edges of one relation.

        Shapes:
            - **output** `[2, E]`, int64, sorted by target, then source

        Raises:
            ValueError: If the edges follow a clip's features (`motion_aligned`).
        """
        return as_relation(relation).edges(self)

    def typed_edges(
        self, relations: Iterable[Relation | tuple[str, str, str] | str]
    ) -> tuple[Tensor, Tensor]:
        """The union of several relations' edges; an edge's type is its relation's place.

        Shapes:
            - **edge_index** `[2, E]`, int64, sorted by target, then source, then type
            - **edge_type** `[E]`, int64
        """
        parts = [self.edge_index(relation) for relation in relations]
        if not parts:
            return torch.empty(2, 0, dtype=torch.long), torch.empty(0, dtype=torch.long)
        keys = [
            (target * self.num_nodes + source) * len(parts) + edge_type
            for edge_type, (source, target) in enumerate(parts)
        ]
        key = torch.cat(keys).sort().values
        edge, edge_type = key // len(parts), key % len(parts)
        return torch.stack([edge % self.num_nodes, edge // self.num_nodes]), edge_type
