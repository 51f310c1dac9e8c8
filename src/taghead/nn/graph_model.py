"""The graph part of a head as a PyG model, on any graph with its node and edge types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from taghead.graph.grid import Grid
from taghead.graph.relations import Relation
from taghead.nn.message_passing import run_layers
from taghead.nn.readout import FrameAggregation, Readout
from taghead.nn.runner import EdgeListRunner


class GraphModel(nn.Module):
    """Message passing, readout and classifier with the signature of a PyG model.

    It takes any heterogeneous graph with the node type `token` and the layers' relations, so PyG's
    explainers, loaders and transforms work with it. It shares its parameters with the head.

    Args:
        layers: The message-passing layers.
        readout: From all tokens of a clip to one vector.
        classifier: From this vector to logits.
        grid: The grid of graphs without positions.
        edge_dropout: As in `operators.propagate`.
        jump: As in :func:`~taghead.nn.message_passing.run_layers`.

    Shapes:
        - **x_dict["token"]** `[M, channels]`: the output of a head's `encode`, M tokens in all
        - **edge_index_dict[relation]** `[2, E]`
        - **batch_dict["token"]** `[M]`: each token's clip; one clip when not given
        - **pos_dict["token"]** `[M, 3]`, (t, y, x): for operators that use positions, for edge
          features, and for readouts of frames (:class:`~taghead.nn.readout.FrameAggregation`) on
          graphs of another grid
        - **output** `[B, num_classes]`, logits

    Raises:
        ValueError: If positions or a relation's edges are needed and not given.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        readout: Readout,
        classifier: nn.Module,
        grid: Grid,
        edge_dropout: float = 0.0,
        jump: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.training = layers.training  # PyG's Explainer restores this mode in all submodules
        self.grid = grid
        self.layers = layers
        self.edge_dropout = edge_dropout
        self.jump = jump
        self.aggregation = readout.aggregation()
        self.classifier = classifier

    def forward(
        self,
        x_dict: dict[str, Tensor],
        edge_index_dict: dict[tuple[str, str, str], Tensor],
        batch_dict: dict[str, Tensor] | None = None,
        pos_dict: dict[str, Tensor] | None = None,
    ) -> Tensor:
        x = x_dict["token"]
        batch = batch_dict["token"] if batch_dict else None
        pos = pos_dict["token"] if pos_dict else None
        return self.classify(x, edge_index_dict, batch, pos)

    def classify(
        self,
        x: Tensor,
        edge_index_dict: Mapping[tuple[str, str, str], Tensor],
        batch: Tensor | None,
        pos: Tensor | None,
    ) -> Tensor:
        """The same, with tensors of the node type `token` in place of dictionaries.

        Shapes:
            - **x** `[M, channels]`, **batch** `[M]`, **pos** `[M, 3]`
            - **output** `[B, num_classes]`
        """
        batch = x.new_zeros(x.size(0), dtype=torch.long) if batch is None else batch
        runner = EdgeListRunner(edge_index_dict, batch, pos, self.edge_dropout)
        # [M, channels]
        x = run_layers(self.layers, x, runner, jump=self.jump)
        # [B, readout.out_channels]
        x = self._aggregate(x, batch, pos)
        # [B, num_classes]
        return self.classifier(x)

    def _aggregate(self, x: Tensor, batch: Tensor, pos: Tensor | None) -> Tensor:
        if not isinstance(self.aggregation, FrameAggregation):
            return self.aggregation(x, batch)
        pos = self._grid_positions(batch) if pos is None else pos
        return self.aggregation(x, batch, frame=pos[:, 0].long())

    def _grid_positions(self, batch: Tensor) -> Tensor:
        """The (t, y, x) of each token, `[M, 3]`, for graphs of this model's grid."""
        num_nodes = self.grid.num_nodes
        if not (batch.bincount() == num_nodes).all():
            raise ValueError(
                f"{type(self.aggregation).__name__} needs pos_dict, the tokens' (t, y, x), on "
                f"graphs that do not have the {num_nodes} tokens of {self.grid} each"
            )
        return self.grid.positions().to(batch.device).repeat(len(batch) // num_nodes, 1)


class EdgeListModel(nn.Module):
    """A graph model on one edge list with edge types, for layers with one operator on all edges.

    PyG's explainers mask an operator's messages by the model's edge list; both are the same list in
    modes `union` and `edge_type`.

    Args:
        model: The graph model.
        relations: Its layers' relations.

    Shapes:
        - **x** `[M, channels]`
        - **edge_index** `[2, E]`, relation after relation
        - **edge_type** `[E]`: the index of each edge's relation, in ascending order
        - **batch** `[M]`, **pos** `[M, 3]`
        - **output** `[B, num_classes]`, logits
    """

    def __init__(self, model: GraphModel, relations: Sequence[Relation]) -> None:
        super().__init__()
        self.training = model.training
        self.model = model
        self.relations = tuple(relations)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        batch: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        edge_index_dict: dict[tuple[str, str, str], Tensor] = {
            r: edge_index[:, edge_type == i] for i, r in enumerate(self.relations)
        }
        return self.model.classify(x, edge_index_dict, batch, pos)
