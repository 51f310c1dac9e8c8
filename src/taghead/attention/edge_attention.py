"""What a head attended to: the weights of every layer, relation and head, and what to ask them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from taghead.attention import dense, queries
from taghead.attention.layers import LayerAttention, OperatorAttention, Weighed
from taghead.attention.rollout import rollout
from taghead.graph.convert import repeat_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation, find

if TYPE_CHECKING:
    import pandas as pd

RelationLike = Relation | tuple[str, str, str] | str


@dataclass(frozen=True)
class EdgeAttention:
    """The attention of a head on a batch of clips: `head(feature_map, return_attention=True)`.

    `attention[i]` is that of one clip. Layers are counted from 0, or from the last as -1.

    Args:
        grid: The grid of tokens.
        relations: The head's relations.
        layers: What each message-passing layer attended to.
        readout: What each token counts for in the clip's vector.
        transformer: The weights of the Transformer stage, if there is one.

    Shapes:
        - **readout** `[B, N]`; each clip's sum to 1
        - **transformer** `[B, layers, heads, N, N]`, target before source; rows sum to 1
    """

    grid: Grid
    relations: tuple[Relation, ...]
    layers: tuple[LayerAttention, ...]
    readout: Tensor
    transformer: Tensor | None = None

    @property
    def num_clips(self) -> int:
        return self.readout.size(0)

    def __getitem__(self, clip: int) -> EdgeAttention:
        if not -self.num_clips <= clip < self.num_clips:
            raise IndexError(f"clip must be below {self.num_clips} (got {clip})")
        clip %= self.num_clips
        return self._map(lambda weights: weights[clip : clip + 1])

    def detach(self) -> EdgeAttention:
        """The same without gradients."""
        return self._map(Tensor.detach)

    # The weights

    def edge_index(self, layer: int, relation: RelationLike) -> Tensor:
        """The edges that have weights, of the batch of clips.

        These are all of the relation's edges but for self-loops of a custom relation where the
        operator puts its own in their place.

        Shapes:
            - **output** `[2, B*E]`, each clip's sorted by target, then source
        """
        found, place = self.operator_of(layer, relation)
        edges = found.edges.edge_index[:, found.edges.edge_type == place]
        return repeat_edges(edges, self.num_clips, self.grid.num_nodes)

    def weights(self, layer: int, relation: RelationLike) -> Tensor:
        """The weights of `edge_index(layer, relation)`.

        One operator for all relations has one softmax for all: then they sum to 1 over the
        relations and the self-loops together.

        Shapes:
            - **output** `[B*E, heads]`
        """
        found, place = self.operator_of(layer, relation)
        return found.edges.alpha[:, found.edges.edge_type == place].flatten(0, 1)

    def self_loops(self, layer: int, relation: RelationLike) -> Tensor | None:
        """The weights of the self-loops that the relation's operator adds, if it adds them.

        Shapes:
            - **output** `[B*N, heads]`
        """
        loops = self.operator_of(layer, relation)[0].edges.loops
        return None if loops is None else loops.flatten(0, 1)

    def as_pyg(self, layer: int, relation: RelationLike) -> tuple[Tensor, Tensor]:
        """All that the relation's operator weighed, as `return_attention_weights=True` gives it.

        Shapes:
            - **edge_index** `[2, M]`: the edges of all its relations, then its own self-loops
            - **alpha** `[M, heads]`
        """
        edges = self.operator_of(layer, relation)[0].edges
        edge_index = repeat_edges(edges.edge_index, self.num_clips, self.grid.num_nodes)
        alpha = edges.alpha.flatten(0, 1)
        if edges.loops is None:
            return edge_index, alpha
        nodes = torch.arange(self.num_clips * self.grid.num_nodes, device=alpha.device)
        own = nodes.expand(2, -1)
        return torch.cat([edge_index, own], 1), torch.cat([alpha, edges.loops.flatten(0, 1)])

    def dense(self, layer: int, relation: RelationLike) -> dense.DenseWeights:
        """The weights as a dense tensor, 0 where the mask says that there is no edge.

        Shapes:
            - **weights** `[B, heads, T, P, P]` within frames, `[B, heads, T, P, K]` in time: K is 2
              for `time_aligned`, the frame before and the one after
            - **mask** `[T, P, P]` or `[T, P, K]`

        Raises:
            ValueError: If the relation is a custom one.
        """
        found, _ = self.operator_of(layer, relation)
        weighed = self.weighed(layer, relation)
        return dense.dense_weights(self.grid, self.relation(relation), weighed, found.is_transposed)

    def edge_scores(self, layer: int | None = None) -> dict[str, Tensor]:
        """A number for every edge of every relation, by which edges of all can be ranked.

        It is the weight in multiples of an even share among those that the target's softmax has
        (2 for a weight of 1/2 among four), mean over layers and heads: a token has many neighbours
        in its frame and few in time, so that the weights themselves would rank the relations.

        Args:
            layer: One layer instead of the mean over all.

        Shapes:
            - **output** `[B*E]` for each relation's name
        """
        layers = range(len(self.layers)) if layer is None else [layer]
        return {
            relation.name: torch.stack(
                [queries.multiples(self, i, relation).mean(2).flatten() for i in layers]
            ).mean(0)
            for relation in self.relations
        }

    def weighed(self, layer: int, relation: RelationLike) -> Weighed:
        """Sources, targets and weights of a relation's edges, of one clip's nodes."""
        found, place = self.operator_of(layer, relation)
        chosen = found.edges.edge_type == place
        source, target = found.edges.edge_index[:, chosen].flip([0] if found.is_transposed else [])
        return Weighed(source, target, found.edges.alpha[:, chosen])

    def has_choice(self, layer: int, relation: RelationLike) -> Tensor:
        """Of which edges of `weighed` the target's softmax has others, self-loops among them.

        Shapes:
            - **output** `[E]`
        """
        found, place = self.operator_of(layer, relation)
        targets = found.edges.edge_index[0 if found.is_transposed else 1]
        degree = torch.bincount(targets, minlength=self.grid.num_nodes)
        degree = degree + (found.edges.loops is not None)
        return degree[targets[found.edges.edge_type == place]] > 1

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

        An edge that is the only one in its target's softmax has weight 1 whatever was learned, as
        that of `past` to the second frame and that of `future` to the last but one: it is left out.

        Args:
            k: How many.
            clip: The clip.
            layer: The layer; all of them if not given.
            relation: The relation; all of them if not given.
            head: The head; the mean over them if not given.

        Returns:
            One row an edge, the strongest first: layer, relation, source and target as nodes and
            as (t, y, x), weight.
        """
        return queries.strongest(self, k, clip, layer, relation, head)

    def listens_to(
        self,
        token: int | tuple[int, int, int],
        *,
        clip: int = 0,
        layer: int = -1,
        head: int | None = None,
    ) -> pd.DataFrame:
        """What a token takes its messages from, the largest weight first.

        Args:
            token: A node, or (t, y, x).
            clip: The clip.
            layer: The layer.
            head: The head; the mean over them if not given.

        Returns:
            Rows as of `strongest`; the relation of the operator's own self-loops is `self_loop`.
        """
        return queries.listens_to(self, token, clip, layer, head)

    def flow(self) -> pd.DataFrame:
        """How much flows along each relation, as shares that sum to 1 in every layer.

        With one operator for each relation, the share is the length of what its edges add to the
        output (the difference to the operator without edges, which its root weight, bias and
        self-loops are left to) over the sum of all lengths; with one for all, the sum of the
        weights' absolute values on the relation's edges over that on all, self-loops among them.
        Both are means over tokens, clips and heads. Tokens that no edge reaches do not count.

        Returns:
            One row for each layer and relation: layer, relation, share, measure (`added` or
            `weight`). Shares are 0 where no token has an edge.
        """
        return queries.flow(self)

    def entropy(self, layer: int, relation: RelationLike) -> Tensor:
        """How evenly a relation's weights are spread: 0 on one neighbour, 1 on all alike.

        It is the entropy of the weights at each target, taken to sum to 1 over the relation, as a
        share of that of uniform weights, and the mean over heads and over those positions of a
        frame that have at least two neighbours.

        Shapes:
            - **output** `[B, T]`; NaN in frames without such a position
        """
        return queries.entropy(self.grid, self.weighed(layer, relation))

    def change_along_time(self, layer: int, relation: RelationLike) -> Tensor:
        """How much a relation's weights differ from those of the frame before.

        It is the total variation distance at each target (half the sum of the absolute
        differences), mean over heads and positions.

        Shapes:
            - **output** `[B, T-1]`; NaN between frames whose tokens have other neighbours

        Raises:
            ValueError: If the relation is a custom one.
        """
        return queries.change_along_time(self.dense(layer, relation))

    def rollout(self, through: Literal["all", "transformer", "graph"] = "all") -> Tensor:
        """How much each token of the feature map counts for the clip, if attention adds up.

        Follows `Quantifying Attention Flow in Transformers <https://arxiv.org/abs/2005.00928>`_:
        the matrices of all layers, mean over heads, are multiplied, each half identity if the
        layer has a residual connection; the readout's weights come last. A message-passing layer's
        matrix is the sum of its relations' weights and self-loops, absolute, its rows made to
        sum to 1; a token without neighbours keeps itself. Norms, values and MLPs are left out.

        Args:
            through: Which stages count beside the readout.

        Shapes:
            - **output** `[B, T, H, W]`; each clip's sum to 1

        Raises:
            ValueError: If there is no such stage.
        """
        return rollout(self, through)

    def operator_of(self, layer: int, relation: RelationLike) -> tuple[OperatorAttention, int]:
        """The operator that a relation's edges went through, and the relation's place there."""
        count = len(self.layers)
        if not -count <= layer < count:
            raise ValueError(f"layer must be below {count}, the number of layers (got {layer})")
        relation = self.relation(relation)
        for operator in self.layers[layer].operators:
            if relation in operator.relations:
                return operator, operator.relations.index(relation)
        raise AssertionError(f"no operator ran on {relation}")

    def relation(self, relation: RelationLike) -> Relation:
        """The head's relation of a name, an expression or an edge type.

        Raises:
            ValueError: If it has none such.
        """
        return find(self.relations, relation)

    def _map(self, function: Callable[[Tensor], Tensor]) -> EdgeAttention:
        layers = tuple(
            replace(layer, operators=tuple(_mapped(o, function) for o in layer.operators))
            for layer in self.layers
        )
        transformer = None if self.transformer is None else function(self.transformer)
        return replace(self, layers=layers, readout=function(self.readout), transformer=transformer)


def _mapped(operator: OperatorAttention, function: Callable[[Tensor], Tensor]) -> OperatorAttention:
    edges = operator.edges
    loops = None if edges.loops is None else function(edges.loops)
    edges = edges._replace(alpha=function(edges.alpha), loops=loops)
    return replace(operator, edges=edges, added=function(operator.added))
