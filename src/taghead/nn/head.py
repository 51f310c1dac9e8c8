"""The Time-Aligned Graph Head: positions, Transformer, typed graph, readout, classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast, get_args, overload

from torch import Tensor, nn
from torch_geometric.nn import APPNP, MessagePassing, TransformerConv

from taghead import operators
from taghead.attention.edge_attention import EdgeAttention
from taghead.errors import check_choices, check_counts
from taghead.graph.convert import grid_of, to_tokens
from taghead.graph.grid import Grid
from taghead.graph.relations import RELATIONS, Relation, combine
from taghead.nn.capture import capture
from taghead.nn.graph_model import GraphModel
from taghead.nn.message_passing import MessagePassingLayer, Mode, RelationAggregation, TypedOperator
from taghead.nn.positions import PositionalEncoding
from taghead.nn.readout import OF_FRAME_MEANS, READOUTS
from taghead.nn.transformer import transformer
from taghead.operators import EdgeFeatures, Engine, Operator, OperatorFactory, as_operator
from taghead.operators.kernel import class_of, has_hooks

# experiments/RESULTS.md says why
DEFAULT_OPERATOR = Operator(TransformerConv, heads=4)
DEFAULT_RELATIONS = ("intra_frame", "past(reach=3)", "future(reach=3)")
WIDEST = 512  # channels, unless more are asked for
PAPER = {  # classes, frames of the grid, width of the Transformer's feed-forward network
    "haa500": (500, 4, 512),
    "gym99": (99, 8, 1024),
    "gym288": (288, 8, 2048),
}
Observe = Callable[[MessagePassing, Tensor, Sequence[Relation], Tensor, Tensor], None]
"""Is called with an operator, x, its relations, x_0 and its output."""


class TAGHead(nn.Module):
    """A graph head for the feature map of a 3D video backbone.

    Follows `TAG-Head: Time-Aligned Graph Head for Plug-and-Play Fine-grained Action Recognition
    <https://arxiv.org/abs/2604.11498>`_; `TAGHead.paper` gives the paper's own setting.

    Args:
        in_channels: Width of the backbone's feature map.
        num_classes: Number of classes K.
        grid: The feature map's (T, H, W). Other grids are accepted; the positions are resized.
        channels: Width of the tokens; when not given the backbone's own, but at most 512, the
            paper's: the head's cost grows with its square.
        positions: `full`, one vector a node, or `factorised`, one a frame, row and column.
        positions_std: Standard deviation of the initial positions; the paper's is 1.
        encoder_layers: Transformer layers, 2 in the paper; 0 leaves the stage out.
        encoder_heads: Attention heads of each.
        encoder_channels: Width of their feed-forward network.
        encoder_norm: Whether the LayerNorm stands before (`pre`) or after (`post`) each block.
        encoder_dropout: Dropout of the Transformer layers.
        conv: The message-passing operator: a PyG class, a partial of one with options, or a
            function of (in_channels, out_channels). TransformerConv, whose four heads share the
            width, when not given.
        mode: How relations meet operators: `per_relation`, an operator for each, their outputs
            joined by `relation_aggr`; `union`, one on all edges, as in the paper; `edge_type`, one
            on all edges that is told each edge's relation; `none`, no graph: the control.
        relations: The edge sets: `intra_frame`, `time_aligned`, `past`, `future` (these three also
            as `past(reach=2)`), `spatial_window(radius=1)`, `motion_aligned(radius=1)`, which
            follows the features of the tokens that enter the graph; the controls `no_edges`,
            `shuffled_intra`, `shuffled_time`, `random_intra`, `random_time` (the last four also as
            `random_time(seed=1)`); or a `Relation` of any edges. When not given, a token's frame,
            and its position in the three frames before and in the three after.
        relation_aggr: How the relations' outputs meet in mode `per_relation`.
        graph_layers: Message-passing layers.
        graph_norm: LayerNorm before the operator (`pre`), after the sum (`post`), or none.
        graph_activation: Nonlinearity after the operator, as PyG names it, or none.
        graph_dropout: Dropout after the nonlinearity.
        graph_residual: Whether each layer's input is added to its output.
        edge_features: What operators that take `edge_attr` are told of an edge: `none`; or
            `offset`, how many frames, rows and columns its source is away, with a sign, and the
            distance in the frame. The head fills in their `edge_dim`. They run through PyG.
        edge_dropout: Probability that an edge leaves the graph of an operator, drawn anew at every
            training step, layer and relation. Training then runs through PyG; evaluation has all
            edges, and runs as `engine` says.
        readout: `mean`, as in the paper; `attention`, a learned weighted mean; or
            `frame_mean_max`, the maximum over the frames of the mean over each.
        engine: How operators run: `dense`, as tensor algebra on the grid; `pyg`, on edge lists; or
            `auto`, dense where the operator and its options allow it. The numbers are the same.

    Shapes:
        - **feature_map** `[B, in_channels, T, H, W]`
        - **output** `[B, num_classes]`, logits; with `return_attention=True` also the
          `EdgeAttention` of all layers

    Raises:
        ValueError: If an argument breaks its rule; the message names both.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        grid: Grid | tuple[int, int, int],
        *,
        channels: int | None = None,
        positions: Literal["full", "factorised"] = "full",
        positions_std: float = 0.02,
        encoder_layers: int = 0,
        encoder_heads: int = 8,
        encoder_channels: int = 1024,
        encoder_norm: Literal["pre", "post"] = "pre",
        encoder_dropout: float = 0.1,
        conv: OperatorFactory | None = None,
        mode: Mode = "per_relation",
        relations: Sequence[str | tuple[str, str, str]] = DEFAULT_RELATIONS,
        relation_aggr: RelationAggregation = "sum",
        graph_layers: int = 1,
        graph_norm: Literal["pre", "post"] | None = "pre",
        graph_activation: str | None = "gelu",
        graph_dropout: float = 0.1,
        graph_residual: bool = True,
        edge_features: EdgeFeatures = "none",
        edge_dropout: float = 0.0,
        readout: Literal["mean", "frame_mean_max", "attention"] = "mean",
        engine: Engine = "auto",
    ) -> None:
        options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        self.grid = grid if isinstance(grid, Grid) else Grid(*grid)
        self.operator = DEFAULT_OPERATOR if conv is None else as_operator(conv)
        self._options = options
        channels = min(in_channels, WIDEST) if channels is None else channels
        check_counts(
            in_channels=in_channels,
            num_classes=num_classes,
            channels=channels,
            graph_layers=graph_layers,
        )
        check_choices(
            mode=(mode, get_args(Mode)),
            relation_aggr=(relation_aggr, get_args(RelationAggregation)),
            encoder_norm=(encoder_norm, ("pre", "post")),
            graph_norm=(graph_norm, ("pre", "post", None)),
            readout=(readout, tuple(READOUTS)),
            engine=(engine, get_args(Engine)),
            edge_features=(edge_features, get_args(EdgeFeatures)),
        )
        if engine == "dense" and edge_features != "none":
            raise ValueError(f"edge_features must be none with engine dense (got {edge_features})")
        if not isinstance(edge_dropout, int | float) or not 0 <= edge_dropout < 1:
            raise ValueError(f"edge_dropout must be at least 0 and below 1 (got {edge_dropout!r})")
        if edge_dropout and engine == "dense":
            raise ValueError(
                f"edge_dropout must be 0 with engine dense (got {edge_dropout}): edges leave an "
                f"edge list; engine auto has one in training, and none in evaluation"
            )
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.engine = engine
        self.edge_features = edge_features
        self.edge_dropout = edge_dropout
        self.relations = combine(relations)

        self.projection = (
            nn.Identity() if channels == in_channels else nn.Linear(in_channels, channels)
        )
        self.positions = PositionalEncoding(channels, self.grid, positions, positions_std)
        self.encoder = transformer(
            channels, encoder_layers, encoder_heads, encoder_channels, encoder_norm, encoder_dropout
        )
        self.layers = nn.ModuleList(
            MessagePassingLayer(
                channels,
                TypedOperator(
                    channels, self.operator, self.relations, mode, relation_aggr, edge_features
                ),
                graph_norm,
                graph_activation,
                graph_dropout,
                graph_residual,
            )
            for _ in range(0 if mode == "none" else graph_layers)
        )
        self.readout = READOUTS[readout](channels)
        self.classifier = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, num_classes))

    @classmethod
    def paper(cls, dataset: Literal["haa500", "gym99", "gym288"]) -> TAGHead:
        """The paper's head for R(2+1)D-34 on one of its datasets.

        Raises:
            ValueError: If the paper has no such dataset.
        """
        if dataset not in PAPER:
            raise ValueError(f"dataset must be one of {', '.join(PAPER)} (got {dataset!r})")
        num_classes, frames, encoder_channels = PAPER[dataset]
        return cls(
            in_channels=512,
            num_classes=num_classes,
            grid=(frames, 7, 7),
            positions_std=1.0,
            encoder_layers=2,
            encoder_channels=encoder_channels,
            encoder_norm="post",
            encoder_dropout=0.5,
            conv=Operator(APPNP, K=2, alpha=0.1),
            mode="union",
            relations=RELATIONS,
            graph_norm=None,
            graph_activation=None,
            graph_dropout=0.0,
            graph_residual=False,
        )

    @overload
    def forward(self, feature_map: Tensor) -> Tensor: ...

    @overload
    def forward(
        self, feature_map: Tensor, return_attention: Literal[True]
    ) -> tuple[Tensor, EdgeAttention]: ...

    def forward(
        self, feature_map: Tensor, return_attention: bool = False
    ) -> Tensor | tuple[Tensor, EdgeAttention]:
        if return_attention:
            return capture(self, feature_map)
        # [B, C, T, H, W] -> [B, N, C]: tokens with global context
        x = self.encode(feature_map)
        # [B, N, C]: typed message passing on the grid; [B, T, C] where the rest needs frame means
        x = self.refine(x, grid_of(feature_map), all_tokens=False)
        # [B, C]: one vector a clip
        x = self.readout(x.unflatten(1, (feature_map.size(2), -1)))
        # [B, K]
        return self.classifier(x)

    def encode(self, feature_map: Tensor) -> Tensor:
        """The tokens that enter the graph: projected, with positions, through the Transformer.

        Shapes:
            - **feature_map** `[B, in_channels, T, H, W]`
            - **output** `[B, N, channels]`
        """
        return self.encoder(self.embed(feature_map))

    def embed(self, feature_map: Tensor) -> Tensor:
        """The tokens that enter the Transformer: projected, with positions.

        Shapes:
            - **feature_map** `[B, in_channels, T, H, W]`
            - **output** `[B, N, channels]`
        """
        grid = grid_of(feature_map)
        if feature_map.size(1) != self.in_channels:
            raise ValueError(
                f"feature_map must have {self.in_channels} channels (got {feature_map.size(1)})"
            )
        return self.positions(self.projection(to_tokens(feature_map)), grid)

    def refine(
        self, x: Tensor, grid: Grid, all_tokens: bool = True, observe: Observe | None = None
    ) -> Tensor:
        """Message passing on a grid's tokens.

        Args:
            x: The tokens.
            grid: The grid that they lie on.
            all_tokens: Whether every token is wanted, or only their mean: then the last layers run
                on the means over each frame, where that is exact.
            observe: Is told of every operator that ran: what went in, and what came out.

        Shapes:
            - **x** `[B, N, channels]`
            - **output** `[B, N, channels]`, or `[B, T, channels]` with the same mean
        """

        def run(
            conv: MessagePassing, x: Tensor, relations: Sequence[Relation], x_0: Tensor
        ) -> Tensor:
            if x.size(1) != grid.num_nodes:
                return operators.propagate_means(conv, x, grid, relations, x_0)
            out = operators.propagate(
                conv,
                x,
                grid,
                relations,
                x_0,
                edge_features=self.edge_features,
                edge_dropout=self.edge_dropout,
                engine=self.engine,
            )
            if observe is not None:
                observe(conv, x, relations, x_0, out)
            return out

        x_0 = x
        first_on_means = len(self.layers) if all_tokens else self._first_on_means(grid)
        for i, layer in enumerate(self.layers):
            if i == first_on_means:
                x, x_0 = frame_means(x, grid), frame_means(x_0, grid)
            x = layer(x, x_0, run)
        return x

    def _first_on_means(self, grid: Grid) -> int:
        """The first layer from which on frame means are all that the readout needs."""
        first = len(self.layers)
        if self.engine == "pyg" or class_of(self.readout) not in OF_FRAME_MEANS:
            return first
        if has_hooks(self.readout) or (self.edge_dropout and self.training):
            return first
        for layer in reversed(self.layers):
            if class_of(layer) is not MessagePassingLayer:
                break
            if not cast(MessagePassingLayer, layer).commutes_with_means(grid):
                break
            first -= 1
        return first

    def graph_model(self) -> GraphModel:
        """What follows the Transformer, as a PyG model that shares this head's parameters."""
        return GraphModel(self)

    def config(self) -> dict[str, Any]:
        """The arguments that make this head again, as JSON can hold them.

        Raises:
            ValueError: If the operator or a relation was given as a function, or the head is of a
                class of its own: no file can hold them.
        """
        if type(self) is not TAGHead:
            raise ValueError(f"head: a {type(self).__name__} cannot be written to a file")
        grid = [self.grid.frames, self.grid.height, self.grid.width]
        relations = [relation.expression for relation in self.relations]
        conv = self.operator.to_config()
        return {**self._options, "grid": grid, "relations": relations, "conv": conv}


def frame_means(x: Tensor, grid: Grid) -> Tensor:
    """Tokens `[B, N, C]` -> their mean over each frame `[B, T, C]`."""
    return x.unflatten(1, (grid.frames, grid.num_positions)).mean(dim=2)
