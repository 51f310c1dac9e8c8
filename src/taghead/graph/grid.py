"""The regular space-time grid of video tokens, and the typed edges between them.

Everything here is a pure function of sizes: no feature, no parameter, no state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from taghead.graph.grid_shape import GridShape
from taghead.graph.relations import RelationLike, as_relation


@dataclass(frozen=True)
class Grid(GridShape):
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

    def edge_index(self, relation: RelationLike) -> Tensor:
        """The edges of one relation.

        Shapes:
            - **output** `[2, E]`, int64, sorted by target, then source

        Raises:
            ValueError: If there is no such relation, or its edges are computed from features
                (`motion_1p`).
        """
        return as_relation(relation).edges(self)

    def typed_edges(self, relations: Iterable[RelationLike]) -> tuple[Tensor, Tensor]:
        """The union of several relations' edges; an edge's type is the index of its relation.

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
