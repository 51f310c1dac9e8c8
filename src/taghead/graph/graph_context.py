"""The graph that an operator is built for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils import degree

from taghead.graph.grid import Grid
from taghead.graph.relations import Relation


@dataclass(frozen=True)
class GraphContext:
    """The graph that an operator is built for, from which open options are filled in.

    Args:
        relations: The relations on which it runs.
        grid: The grid of the tokens.
        layer: The index of its layer, from 1.
        is_typed: Whether it gets the type of each edge.
    """

    relations: Sequence[Relation]
    grid: Grid
    layer: int = 1
    is_typed: bool = False

    def degrees(self) -> Tensor:
        """The number of nodes by in-degree on the union of the relations, `[max + 1]`.

        Raises:
            ValueError: If edges are computed from features.
        """
        for relation in self.relations:
            if relation.is_dynamic:
                raise ValueError(f"deg must be given: edges of {relation.name} follow features")
        with torch.device("cpu"):  # edges are cached, also where a model is built without memory
            edge_index, _ = self.grid.typed_edges(self.relations)
        return degree(edge_index[1], self.grid.num_nodes, torch.long).bincount()
