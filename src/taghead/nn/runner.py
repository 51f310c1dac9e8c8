"""Runners: run the operators of a head on the tokens of a grid, or on an edge list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

import torch
from torch import Tensor, nn

from taghead import operators
from taghead.errors import check_choices
from taghead.graph.edge_features import EdgeFeatures, differences
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.operators import Engine

Observer = Callable[[nn.Module, Tensor, Sequence[Relation], Tensor, Tensor], None]
"""Called after each operator with (conv, x, relations, x_0, output)."""


class Runner(Protocol):
    """Runs one operator on tokens over the union of the relations' edges.

    Args:
        conv: The operator.
        x: Its input.
        relations: The relations; an edge's type is the index of its relation.
        x_0: The input of the first layer.
        features: The features of the edges, if any.
    """

    def __call__(
        self,
        conv: nn.Module,
        x: Tensor,
        relations: Sequence[Relation],
        x_0: Tensor,
        features: EdgeFeatures | None = None,
    ) -> Tensor: ...

    def batch_of(self, x: Tensor) -> tuple[Tensor, int]:
        """The clip of each row of `x`, `[M]`, and the number of clips."""


@dataclass
class GridRunner:
    """Runs operators on the tokens of a grid, or on their means over each frame.

    Args:
        grid: The grid of the tokens.
        engine: As in `operators.propagate`.
        edge_dropout: As in `operators.propagate`.
        observer: Called after each operator.

    Shapes:
        - **x**, **x_0** `[B, N, C]`, or `[B, T, C]` for an operator that commutes with frame means
        - **output** `[B, N, C_out]`, or `[B, T, C_out]`
    """

    grid: Grid
    engine: Engine = "auto"
    edge_dropout: float = 0.0
    observer: Observer | None = None

    def __call__(
        self,
        conv: nn.Module,
        x: Tensor,
        relations: Sequence[Relation],
        x_0: Tensor,
        features: EdgeFeatures | None = None,
    ) -> Tensor:
        if x.size(1) != self.grid.num_nodes:
            return operators.propagate_means(conv, x, self.grid, relations, x_0)
        out = operators.propagate(
            conv,
            x,
            self.grid,
            relations,
            x_0,
            edge_features=features or "none",
            edge_dropout=self.edge_dropout,
            engine=self.engine,
        )
        if self.observer is not None:
            self.observer(conv, x, relations, x_0, out)
        return out

    def batch_of(self, x: Tensor) -> tuple[Tensor, int]:
        """The clip of each token of `[B, N, C]`, and B."""
        batch = torch.arange(x.size(0), device=x.device).repeat_interleave(x.size(1))
        return batch, x.size(0)


@dataclass
class EdgeListRunner:
    """Runs operators on given edge indices, through PyG.

    Args:
        edge_index_dict: Each relation's edges.
        batch: Each token's clip.
        pos: Each token's (t, y, x), for operators and edge features that use it.
        edge_dropout: As in `operators.propagate`.

    Shapes:
        - **edge_index_dict[relation]** `[2, E]`
        - **batch** `[M]`, **pos** `[M, 3]`
        - **x**, **x_0** `[M, C]`
        - **output** `[M, C_out]`

    Raises:
        ValueError: If a relation's edges, or the positions that edge features need, are missing.
    """

    edge_index_dict: Mapping[tuple[str, str, str], Tensor]
    batch: Tensor
    pos: Tensor | None = None
    edge_dropout: float = 0.0

    def __call__(
        self,
        conv: nn.Module,
        x: Tensor,
        relations: Sequence[Relation],
        x_0: Tensor,
        features: EdgeFeatures | None = None,
    ) -> Tensor:
        edges = [self._edges_of(relation) for relation in relations]
        types = [e.new_full((e.size(1),), i) for i, e in enumerate(edges)]
        arguments = {"edge_index": torch.cat(edges, dim=1), "edge_type": torch.cat(types)}
        if features is not None:
            offset = self._offsets(arguments["edge_index"], x, features)
            arguments["edge_attr"] = features(offset, arguments["edge_type"])
        arguments = operators.with_learned_weights(arguments | {"x_0": x_0}, relations)
        dropout = self.edge_dropout if conv.training else 0.0
        arguments = operators.drop_edges(arguments, dropout) | {"batch": self.batch}
        if self.pos is not None:
            arguments["pos"] = self.pos
        return operators.run_operator(conv, x, **arguments)

    def batch_of(self, x: Tensor) -> tuple[Tensor, int]:
        """The clip of each token, and the number of clips."""
        return self.batch, int(self.batch.max()) + 1 if self.batch.numel() else 0

    def _offsets(self, edge_index: Tensor, x: Tensor, features: EdgeFeatures) -> Tensor:
        """Each edge's source minus target in (t, y, x), `[E, 3]`; zeros where none are used."""
        if not features.uses_offsets:
            return x.new_zeros(edge_index.size(1), 3)
        if self.pos is None:
            name = type(features).__name__
            raise ValueError(
                f"edge_features {name} needs pos_dict, the tokens' (t, y, x) (got None)"
            )
        return differences(self.pos.to(x), edge_index)

    def _edges_of(self, relation: Relation) -> Tensor:
        if relation not in self.edge_index_dict:
            raise ValueError(
                f"edge_index_dict must have the head's relation {relation.name!r} (got "
                f"{', '.join(r[1] for r in self.edge_index_dict)}); to_hetero_data takes "
                f"head.relations"
            )
        return self.edge_index_dict[relation]


def check_edge_options(engine: Engine, edge_dropout: float) -> None:
    """Checks the engine and edge dropout of a head.

    Raises:
        ValueError: If one is invalid, or the engine does not support the other.
    """
    check_choices(engine=(engine, get_args(Engine)))
    if not isinstance(edge_dropout, int | float) or not 0 <= edge_dropout < 1:
        raise ValueError(f"edge_dropout must be at least 0 and below 1 (got {edge_dropout!r})")
    if edge_dropout and engine == "dense":
        raise ValueError(
            f"edge_dropout must be 0 with engine dense (got {edge_dropout}): it needs an edge "
            f"list, which engine auto uses in training"
        )
