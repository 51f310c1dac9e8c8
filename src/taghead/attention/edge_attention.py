"""`EdgeAttention`: the attention weights of a head, and queries on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from taghead.attention import queries
from taghead.attention.dense_weights import DenseWeights, to_dense_weights
from taghead.attention.layer_attention import LayerAttention, WeightedEdges
from taghead.attention.rollout import Stage, rollout
from taghead.graph.edge_index import repeat_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation, RelationLike, find_relation

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class EdgeAttention:
    """The attention of a head on a batch of clips: `head(feature_map, return_attention=True)`.

    `attention[i]` is that of one clip. Layers are counted from 0, or from the last as -1.

    Args:
        grid: The grid of tokens.
        relations: The head's relations.
        num_clips: Number of clips B.
        layers: The attention of each message-passing layer.
        readout: The weight of each token in the clip's vector, if the readout has such weights.
        transformer: The weights of the Transformer stage, if there is one.
        no_rollout: Why the readout has no weights of tokens, and so there is no rollout.

    Shapes:
        - **readout** `[B, N]`; each clip's sum to 1
        - **transformer** `[B, layers, heads, N, N]`, target before source; rows sum to 1
    """

    grid: Grid
    relations: tuple[Relation, ...]
    num_clips: int
    layers: tuple[LayerAttention, ...]
    readout: Tensor | None
    transformer: Tensor | None = None
    no_rollout: str = ""

    def __getitem__(self, clip: int) -> EdgeAttention:
        if not -self.num_clips <= clip < self.num_clips:
            raise IndexError(f"clip must be below {self.num_clips} (got {clip})")
        clip %= self.num_clips
        return replace(self._map(lambda weights: weights[clip : clip + 1]), num_clips=1)

    def detach(self) -> EdgeAttention:
        """A copy without gradients."""
        return self._map(Tensor.detach)

    # The weights

    def edge_index(self, layer: int, relation: RelationLike) -> Tensor:
        """The edges that have weights, of the batch of clips.

        These are all edges of the relation, except self-loops of a custom relation where the
        operator replaces them with its own.

        Shapes:
            - **output** `[2, B*E]`, each clip's sorted by target, then source
        """
        relation = self.relation(relation)
        operator = self.layer(layer).operator_of(relation)
        edges = operator.edges.edge_index[:, operator.is_of(relation)]
        return repeat_edges(edges, self.num_clips, self.grid.num_nodes)

    def weights(self, layer: int, relation: RelationLike) -> Tensor:
        """The weights of `edge_index(layer, relation)`.

        If one operator takes the union of all relations, a target's weights sum to 1 over all
        relations and self-loops together.

        Shapes:
            - **output** `[B*E, heads]`
        """
        return self.weighted_edges(layer, relation).alpha.flatten(0, 1)

    def self_loops(self, layer: int, relation: RelationLike) -> Tensor | None:
        """The weights of the self-loops that the relation's operator adds, if it adds them.

        Shapes:
            - **output** `[B*N, heads]`
        """
        loops = self.layer(layer).operator_of(self.relation(relation)).edges.loops
        return None if loops is None else loops.flatten(0, 1)

    def as_pyg(self, layer: int, relation: RelationLike) -> tuple[Tensor, Tensor]:
        """All weights of the relation's operator, as PyG's `return_attention_weights=True` gives.

        Shapes:
            - **edge_index** `[2, M]`: the edges of all its relations, then its own self-loops
            - **alpha** `[M, heads]`
        """
        edges = self.layer(layer).operator_of(self.relation(relation)).edges
        edge_index = repeat_edges(edges.edge_index, self.num_clips, self.grid.num_nodes)
        alpha = edges.alpha.flatten(0, 1)
        if edges.loops is None:
            return edge_index, alpha
        nodes = torch.arange(self.num_clips * self.grid.num_nodes, device=alpha.device)
        own = nodes.expand(2, -1)
        return torch.cat([edge_index, own], 1), torch.cat([alpha, edges.loops.flatten(0, 1)])

    def dense(self, layer: int, relation: RelationLike) -> DenseWeights:
        """The weights as a dense tensor, 0 where the mask has no edge.

        Shapes:
            - **weights** `[B, heads, T, P, P]` within frames, `[B, heads, T, P, K]` in time: K is 2
              for `time_aligned`, the frame before and the one after
            - **mask** `[T, P, P]` or `[T, P, K]`

        Raises:
            ValueError: If the relation is a custom or a baseline one, or its edges are dynamic.
        """
        relation = self.relation(relation)
        operator = self.layer(layer).operator_of(relation)
        edges = operator.weighted_edges(relation)
        return to_dense_weights(self.grid, relation, edges, operator.is_transposed)

    def edge_scores(self, layer: int | None = None) -> dict[str, Tensor]:
        """A score for every edge that is comparable across relations.

        It is the weight divided by the uniform weight of the target's softmax (2 for a weight of
        1/2 among four), mean over layers and heads. The weights themselves would only rank the
        relations, as a token has many neighbours in its frame and few in time.

        Args:
            layer: One layer instead of the mean over all.

        Shapes:
            - **output** `[B*E]` for each relation's name
        """
        layers = self.layers if layer is None else [self.layer(layer)]
        return {
            relation.name: torch.stack(
                [
                    one.relative_weights(relation, self.grid.num_nodes).mean(2).flatten()
                    for one in layers
                ]
            ).mean(0)
            for relation in self.relations
        }

    def weighted_edges(self, layer: int, relation: RelationLike) -> WeightedEdges:
        """Sources, targets and weights of a relation's edges, as node indices within a clip."""
        return self.layer(layer).weighted_edges(self.relation(relation))

    # Queries

    def strongest(
        self,
        k: int = 10,
        *,
        clip: int = 0,
        layer: int | None = None,
        relation: RelationLike | None = None,
        head: int | None = None,
    ) -> pd.DataFrame:
        """The k edges of a clip with the largest weights.

        Edges that are alone in their target's softmax are left out: their weight is always 1, such
        as that of `past_1f` to the second frame.

        Args:
            k: Number of edges.
            clip: Index of the clip.
            layer: Index of the layer; all layers if not given.
            relation: The relation; all of them if not given.
            head: The head; the mean over them if not given.

        Returns:
            One row an edge, the strongest first: layer, relation, source and target as nodes and
            as (t, y, x), weight.

        Raises:
            ValueError: If an argument is out of range.
        """
        indices = range(len(self.layers)) if layer is None else [self._layer_index(layer)]
        layers = {i: self.layers[i] for i in indices}
        relations = self.relations if relation is None else [self.relation(relation)]
        return queries.strongest_edges(self.grid, layers, relations, k, clip, head)

    def incoming(
        self,
        token: queries.Token,
        *,
        clip: int = 0,
        layer: int = -1,
        head: int | None = None,
    ) -> pd.DataFrame:
        """A token's incoming edges, the largest weight first.

        Args:
            token: A node, or (t, y, x).
            clip: Index of the clip.
            layer: Index of the layer.
            head: The head; the mean over them if not given.

        Returns:
            Rows as of `strongest`; the relation of the operator's own self-loops is `self_loop`.

        Raises:
            ValueError: If an argument is out of range.
        """
        index = self._layer_index(layer)
        return queries.incoming_edges(
            self.grid, index, self.layers[index], self.relations, token, clip, head
        )

    def flow(self) -> pd.DataFrame:
        """The share of each relation in the messages of each layer; a layer's shares sum to 1.

        With one operator per relation it is a share of norms: the norm of the difference between
        the operator's output with and without the relation's edges, divided by the sum of these
        norms over relations; root weight, bias and self-loops cancel in the difference. With one
        operator for the union it is a share of weights: the sum of absolute weights on the
        relation's edges, divided by that on all edges and self-loops. Both are means over tokens,
        clips and heads; tokens without edges do not count.

        Returns:
            One row for each layer and relation: layer, relation, share, measure (`added` or
            `weight`). Shares are 0 where no token has an edge.
        """
        return queries.relation_shares(self.layers)

    def entropy(self, layer: int, relation: RelationLike) -> Tensor:
        """Normalised entropy of a relation's weights: 0 on one neighbour, 1 if uniform.

        It is the entropy of the weights at each target, scaled to sum to 1 over the relation,
        divided by that of uniform weights; the mean over heads and over those positions of a frame
        that have at least two neighbours.

        Shapes:
            - **output** `[B, T]`; NaN in frames without such a position
        """
        return queries.entropy(self.grid, self.weighted_edges(layer, relation))

    def change_along_time(self, layer: int, relation: RelationLike) -> Tensor:
        """Distance of a relation's weights to those of the frame before.

        It is the total variation distance at each target (half the sum of the absolute
        differences), mean over heads and positions.

        Shapes:
            - **output** `[B, T-1]`; NaN between frames whose tokens have other neighbours

        Raises:
            ValueError: If the relation has no dense weights; see `dense`.
        """
        return queries.change_along_time(self.dense(layer, relation))

    def rollout(self, through: Stage = "all") -> Tensor:
        """Attention rollout: the weight of each token of the feature map in the clip's vector.

        Follows `Quantifying Attention Flow in Transformers <https://arxiv.org/abs/2005.00928>`_:
        the matrices of all layers, mean over heads, are multiplied, each averaged with the identity
        if the layer has a residual connection; the readout's weights come last. A message-passing
        layer's matrix is the sum of its relations' absolute weights and self-loops, with rows
        normalised to sum to 1; a token without neighbours keeps its weight. Norms, values and MLPs
        are left out.

        Args:
            through: Which stages count beside the readout.

        Shapes:
            - **output** `[B, T, H, W]`; each clip's sum to 1

        Raises:
            ValueError: If there is no such stage, or the readout has no weights of tokens
                (`no_rollout` says why).
        """
        if self.readout is None:
            raise ValueError(self.no_rollout)
        weights = rollout(self.readout, self.layers, self.transformer, through)
        return weights.unflatten(1, (self.grid.frames, self.grid.height, self.grid.width))

    def layer(self, index: int) -> LayerAttention:
        """The attention of one layer.

        Raises:
            ValueError: If there is no such layer.
        """
        return self.layers[self._layer_index(index)]

    def relation(self, relation: RelationLike) -> Relation:
        """The head's relation with a name or an edge type.

        Raises:
            ValueError: If the head has no such relation.
        """
        return find_relation(self.relations, relation)

    def _layer_index(self, layer: int) -> int:
        """The index of a layer, counted from the first."""
        count = len(self.layers)
        if not -count <= layer < count:
            raise ValueError(f"layer must be below {count}, the number of layers (got {layer})")
        return layer % count

    def _map(self, function: Callable[[Tensor], Tensor]) -> EdgeAttention:
        layers = tuple(layer.map(function) for layer in self.layers)
        readout, transformer = (
            None if weights is None else function(weights)
            for weights in (self.readout, self.transformer)
        )
        return replace(self, layers=layers, readout=readout, transformer=transformer)
