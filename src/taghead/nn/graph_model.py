"""A head's graph part as a PyG model, on any graph with its node and edge types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch_geometric.nn import Aggregation, MessagePassing

from taghead import operators
from taghead.graph.relations import Relation
from taghead.nn.readout import FrameMeanMaxAggregation

if TYPE_CHECKING:
    from taghead.nn.head import TAGHead


class GraphModel(nn.Module):
    """Message passing, readout and classifier of a head, with PyG's signature.

    It takes any heterogeneous graph with the node type `token` and the head's relations, so PyG's
    explainers, loaders and transforms work on it. It shares its parameters with the head.

    Shapes:
        - **x_dict["token"]** `[M, channels]`: what the head's `encode` gives, M tokens in all
        - **edge_index_dict[relation]** `[2, E]`
        - **batch_dict["token"]** `[M]`: each token's clip; one clip when not given
        - **pos_dict["token"]** `[M, 3]`, (t, y, x): for operators that use positions, for edge
          features, and for the readout `frame_mean_max` on graphs of another grid than the head's
        - **output** `[B, num_classes]`, logits

    Raises:
        ValueError: If positions are needed and not given.
    """

    def __init__(self, head: TAGHead) -> None:
        super().__init__()
        self.training = head.training  # PyG's Explainer sets all parts back to what this says
        self.grid = head.grid
        self.layers = head.layers
        self.edge_features = head.edge_features
        self.edge_dropout = head.edge_dropout
        self.aggregation: Aggregation = head.readout.aggregation()  # type: ignore[operator]
        self.classifier = head.classifier

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
        edges_of: dict[tuple[str, str, str], Tensor],
        batch: Tensor | None,
        pos: Tensor | None,
    ) -> Tensor:
        """The same with the tokens' own tensors.

        Shapes:
            - **x** `[M, channels]`, **batch** `[M]`, **pos** `[M, 3]`
            - **output** `[B, num_classes]`
        """
        batch = x.new_zeros(x.size(0), dtype=torch.long) if batch is None else batch
        available = {"batch": batch} if pos is None else {"batch": batch, "pos": pos}

        def run(
            conv: MessagePassing, x: Tensor, relations: Sequence[Relation], x_0: Tensor
        ) -> Tensor:
            for relation in relations:
                if relation not in edges_of:
                    raise ValueError(
                        f"edge_index_dict must have the head's relation {relation.name!r} (got "
                        f"{', '.join(r[1] for r in edges_of)}); to_hetero_data takes head.relations"
                    )
            edges = [edges_of[relation] for relation in relations]
            types = [e.new_full((e.size(1),), i) for i, e in enumerate(edges)]
            of_edges = {"edge_index": torch.cat(edges, dim=1), "edge_type": torch.cat(types)}
            if self.edge_features == "offset":
                if pos is None:
                    raise ValueError("edge_features offset needs pos_dict, the tokens' (t, y, x)")
                of_edges["edge_attr"] = operators.offsets(pos.to(x), of_edges["edge_index"])
            of_edges = operators.without_some(of_edges, self.edge_dropout if conv.training else 0.0)
            return operators.run(conv, x, x_0=x_0, **of_edges, **available)

        x_0 = x
        for layer in self.layers:
            x = layer(x, x_0, run)
        return self.classifier(self._pooled(x, batch, pos))

    def _pooled(self, x: Tensor, batch: Tensor, pos: Tensor | None) -> Tensor:
        if not isinstance(self.aggregation, FrameMeanMaxAggregation):
            return self.aggregation(x, batch)
        pos = self._positions(batch) if pos is None else pos
        return self.aggregation(x, batch, frame=pos[:, 0].long())

    def _positions(self, batch: Tensor) -> Tensor:
        """Each token's (t, y, x), `[M, 3]`, on graphs of the head's own grid."""
        nodes = self.grid.num_nodes
        if not (batch.bincount() == nodes).all():
            raise ValueError(
                f"readout frame_mean_max needs pos_dict, the tokens' (t, y, x), on graphs that do "
                f"not have the {nodes} tokens of {self.grid} each"
            )
        return self.grid.positions().to(batch.device).repeat(len(batch) // nodes, 1)


class EdgeListModel(GraphModel):
    """The same with one list of edges, for a head with one operator on all of them.

    PyG's explainers mask an operator's messages by the model's list of edges; that list is this one
    in modes `union` and `edge_type`.

    Shapes:
        - **x** `[M, channels]`
        - **edge_index** `[2, E]`, relation after relation
        - **edge_type** `[E]`: the place of each edge's relation, in ascending order
        - **batch** `[M]`, **pos** `[M, 3]`
        - **output** `[B, num_classes]`, logits
    """

    def __init__(self, head: TAGHead) -> None:
        super().__init__(head)
        self.relations = head.relations

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        edge_index: Tensor,
        edge_type: Tensor,
        batch: Tensor | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        edges_of = {r: edge_index[:, edge_type == i] for i, r in enumerate(self.relations)}
        return self.classify(x, edges_of, batch, pos)  # type: ignore[arg-type]
