"""Learned edge features: tables of relative positions, and a row for each relation.

One of your own is a subclass of :class:`~taghead.graph.edge_features.EdgeFeatures`.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from taghead.components import AnyComponent, Component, ComponentLike, as_component
from taghead.errors import check_counts
from taghead.graph.edge_features import EdgeFeatures, OffsetFeatures
from taghead.graph.grid import Grid


class RelativeFeatures(EdgeFeatures):
    """Learned features of relative positions: a row for each offset of source and target.

    As in `Swin Transformer <https://arxiv.org/abs/2103.14030>`_, the rows are a table over the
    offsets in frames, rows and columns. On a smaller grid its centre is used; an offset beyond the
    table has the row of the nearest offset in it.

    Args:
        grid: The grid whose offsets the table has.
        num_relations: The number of relations, R.
        channels: The number of an edge's features, D.
        factorised: Whether the row is the sum of one for frames, one for rows and one for columns.
        by_relation: Whether each relation has a table of its own.
        std: Standard deviation of the initial values.

    Shapes:
        - **tables** `[R or 1, (2T-1)*(2H-1)*(2W-1), D]`; factorised three, `[R or 1, 2T-1, D]`, ...
        - **output** `[..., D]`
    """

    def __init__(
        self,
        grid: Grid,
        num_relations: int,
        channels: int = 16,
        factorised: bool = False,
        by_relation: bool = False,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        check_counts(num_relations=num_relations, channels=channels)
        self.out_channels = channels
        self.limits = (grid.frames - 1, grid.height - 1, grid.width - 1)
        self.axes = [(0,), (1,), (2,)] if factorised else [(0, 1, 2)]
        self.by_relation = by_relation
        self.std = std
        num_tables = num_relations if by_relation else 1
        sizes = [prod(2 * self.limits[axis] + 1 for axis in axes) for axes in self.axes]
        self.tables = nn.ParameterList(torch.empty(num_tables, n, channels) for n in sizes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        for table in self.tables:
            nn.init.normal_(table, std=self.std)

    def forward(self, offset: Tensor, edge_type: Tensor) -> Tensor:
        steps = [
            offset[..., axis].round().long().clamp(-limit, limit) + limit
            for axis, limit in enumerate(self.limits)
        ]
        found = []
        for table, axes in zip(self.tables, self.axes, strict=True):
            index = edge_type if self.by_relation else torch.zeros_like(edge_type)
            for axis in axes:
                index = index * (2 * self.limits[axis] + 1) + steps[axis]
            found.append(F.embedding(index, table.flatten(0, 1)))
        return found[0] if len(found) == 1 else torch.stack(found).sum(0)


class RelationFeatures(EdgeFeatures):
    """Learned features of relations: one row for all edges of a relation.

    Args:
        num_relations: The number of relations, R.
        channels: The number of an edge's features, D.
        std: Standard deviation of the initial values.

    Shapes:
        - **weight** `[R, D]`
        - **output** `[..., D]`
    """

    uses_offsets = False

    def __init__(self, num_relations: int, channels: int = 16, std: float = 0.02) -> None:
        super().__init__()
        check_counts(num_relations=num_relations, channels=channels)
        self.out_channels = channels
        self.std = std
        self.weight = nn.Parameter(torch.empty(num_relations, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, offset: Tensor, edge_type: Tensor) -> Tensor:
        return F.embedding(edge_type, self.weight)


EDGE_FEATURES: dict[str, type[Any] | Component] = {
    "offset": OffsetFeatures,
    "relative": RelativeFeatures,
    "relation": RelationFeatures,
}
"""The edge features by name."""


def edge_features_component(edge_features: ComponentLike) -> AnyComponent | None:
    """The edge features that a value stands for; `None` for `none`.

    Raises:
        ValueError: If it is neither a name, nor a class of `EdgeFeatures` or an object of one.
    """
    value = getattr(edge_features, "value", edge_features)
    if value is None or value == "none":
        return None
    if isinstance(value, str) and "." not in value and value not in EDGE_FEATURES:
        known = ", ".join(("none", *EDGE_FEATURES))
        raise ValueError(f"edge_features must be one of {known} (got {value!r})")
    return as_component(edge_features, "edge_features", EDGE_FEATURES, EdgeFeatures)


def build_edge_features(
    component: AnyComponent | None, grid: Grid, num_relations: int
) -> EdgeFeatures | None:
    """Edge features for a number of relations of a grid, or none.

    Raises:
        ValueError: If they cannot be built, or do not say how many they are.
    """
    if component is None:
        return None
    made = component.build({"grid": grid, "num_relations": num_relations})
    width = getattr(made, "out_channels", None)
    if not isinstance(made, EdgeFeatures) or not isinstance(width, int):
        raise ValueError(
            f"edge_features: {type(made).__name__} must be an EdgeFeatures with the number of an "
            f"edge's features as out_channels (got {width!r})"
        )
    return made
