"""The Time-Aligned Graph Head: tokens, positions, Transformer, message passing, classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args, overload

from torch import Tensor, nn
from torch_geometric.nn import TransformerConv

from taghead.attention.edge_attention import EdgeAttention
from taghead.class_paths import written
from taghead.components import AnyComponent, ComponentLike, as_component, path_of, to_plain
from taghead.errors import check_choices, check_counts
from taghead.graph.convert import grid_of, to_tokens
from taghead.graph.grid import Grid
from taghead.graph.learned import is_learned
from taghead.graph.relations import as_relations
from taghead.nn.capture import capture
from taghead.nn.edge_features import edge_features_component
from taghead.nn.frame_means import first_layer_on_frame_means, frame_means
from taghead.nn.graph_model import GraphModel
from taghead.nn.jumping import Jump, Jumping
from taghead.nn.layer_operators import LayerOperators
from taghead.nn.message_passing import (
    MessagePassingLayer,
    Mode,
    TypedOperator,
    auxiliary_loss,
    relation_aggregation,
    run_layers,
)
from taghead.nn.norms import LAYER_NORM, NORMS
from taghead.nn.own_heads import GIVEN, PARTS, noting
from taghead.nn.paper import paper_options
from taghead.nn.positions import POSITIONS
from taghead.nn.readout import build_readout, readout_component
from taghead.nn.runner import GridRunner, check_edge_options
from taghead.nn.transformer import transformer
from taghead.operators import Engine, Operator

# the best in experiments/RESULTS.md
DEFAULT_OPERATOR = Operator(TransformerConv, heads=4)
DEFAULT_RELATIONS = ("intra_frame", "past_3f", "future_3f")
MAX_DEFAULT_CHANNELS = 512
MAX_LAYERS = 1000  # of either kind; more are a slip, and building them takes minutes


class TAGHead(nn.Module):
    """A graph head for the feature map of a 3D video backbone.

    Follows `TAG-Head: Time-Aligned Graph Head for Plug-and-Play Fine-grained Action Recognition
    <https://arxiv.org/abs/2604.11498>`_; `TAGHead.paper` gives the paper's own setting.

    Args:
        in_channels: Width of the backbone's feature map.
        num_classes: Number of classes K.
        grid: The feature map's (T, H, W). Other grids are accepted; the positions are resized.
        channels: Width of the tokens; when not given that of the backbone, but at most 512, the
            paper's width: the cost of the head grows with its square.
        positions: `full`, one vector a node, or `factorised`, one a frame, row and column;
            `laplacian` or `random_walk`, PyG's encodings of the relations' graph; or a module of
            your own (:mod:`~taghead.nn.positions`).
        positions_std: Standard deviation of the initial positions; the paper's is 1.
        encoder_layers: Transformer layers, 2 in the paper; 0 leaves the stage out.
        encoder_heads: Attention heads of each Transformer layer.
        encoder_channels: Width of the feed-forward network of each Transformer layer.
        encoder_norm: LayerNorm before (`pre`) or after (`post`) each block.
        encoder_dropout: Dropout of the Transformer layers.
        conv: The message-passing operator: any of PyG's by name, or a module with
            `forward(x, edge_index, ...)`; a mapping of one for each relation, in which `default`
            stands for the others; or a list of one for each layer. TransformerConv, whose four
            heads share the width, when not given.
        mode: How relations meet operators: `per_relation`, an operator for each, their outputs
            aggregated by `relation_aggr`; `union`, one on all edges, as in the paper; `edge_type`,
            one on all edges that gets each edge's type; `none`, no graph: a baseline.
        relations: The relations by name: `intra_frame`; `time_aligned`; with any integers
            `time_2f`, `past_3f`, `future_3f`, `window_1p` and `motion_1p`, whose edges are computed
            from the tokens at the graph's input; the baselines `no_edges`, `shuffled_0_intra`,
            `shuffled_0_time`, `random_0_intra`, `random_0_time`, with any seeds; the class path of
            a rule of your own; or a `Relation` of any edges. When not given, a token's frame, and
            its position in the three frames before and in the three after.
        relation_aggr: How the relations' outputs are aggregated in mode `per_relation`: `sum`,
            `mean`, `max`, `cat`, or an aggregation of PyG.
        graph_layers: Message-passing layers.
        graph_norm: A norm before the operator (`pre`), after the sum (`post`), or none.
        graph_norm_layer: Which norm: torch's LayerNorm, or one of PyG's, such as `GraphNorm`.
        graph_activation: Nonlinearity after the operator, as PyG names it, or none.
        graph_dropout: Dropout after the nonlinearity.
        graph_residual: Whether each layer's input is added to its output.
        graph_feed_forward: Width of a feed-forward network after each layer's operators, as in a
            Transformer; 0 for none.
        jumping_knowledge: What the readout gets of all layers' outputs: their concatenation
            (`cat`), brought to the tokens' width by a linear layer, their maximum (`max`), or a
            learned mean (`lstm`); the last layer's when not given.
        edge_features: The `edge_attr` of operators that take one: `none`; `offset`, the signed
            offset from target to source in frames, rows and columns, and the distance in the frame;
            `relative`, a learned table of these offsets; `relation`, a learned row for each
            relation; or an :class:`~taghead.operators.EdgeFeatures` of your own. The head sets the
            operators' `edge_dim`.
        edge_dropout: Probability that an edge is dropped, drawn anew at every training step, layer
            and relation. Training then runs through PyG; evaluation uses all edges and the chosen
            `engine`.
        readout: `mean`, as in the paper; `attention`, a learned weighted mean; `frame_mean_max`,
            the maximum of frame means; `last_frame`; all frame means in order (`frame_sequence`);
            `temporal_conv`, `gru` or `frame_transformer` over them; one of PyG's aggregations; or a
            :class:`~taghead.nn.readout.Readout` of your own.
        engine: How operators run: `dense`, as tensor algebra on the grid; `pyg`, on edge lists; or
            `auto`, dense where the operator and its options have a dense kernel. The results are
            the same.

    Operators, relations, readout, positions, norm, edge features and aggregation of relations are
    given as a name,
    as a class path with options (`{"class_path": ..., "init_args": {...}}`), or as an object: a
    class, a `functools.partial` of one, a module that is copied, or a function. Each layer and
    relation has a module of its own.

    Shapes:
        - **feature_map** `[B, in_channels, T, H, W]`
        - **output** `[B, num_classes]`, logits; with `return_attention=True` also the
          `EdgeAttention` of all layers

    Raises:
        ValueError: If an argument is invalid; the message names it and the rule.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        grid: Grid | tuple[int, int, int],
        *,
        channels: int | None = None,
        positions: ComponentLike = "full",
        positions_std: float = 0.02,
        encoder_layers: int = 0,
        encoder_heads: int = 8,
        encoder_channels: int = 1024,
        encoder_norm: Literal["pre", "post"] = "pre",
        encoder_dropout: float = 0.1,
        conv: ComponentLike | None = None,
        mode: Mode = "per_relation",
        relations: Sequence[ComponentLike] = DEFAULT_RELATIONS,
        relation_aggr: ComponentLike = "sum",
        graph_layers: int = 1,
        graph_norm: Literal["pre", "post"] | None = "pre",
        graph_norm_layer: ComponentLike = LAYER_NORM,
        graph_activation: str | None = "gelu",
        graph_dropout: float = 0.1,
        graph_residual: bool = True,
        graph_feed_forward: int = 0,
        jumping_knowledge: Jumping | None = None,
        edge_features: ComponentLike = "none",
        edge_dropout: float = 0.0,
        readout: ComponentLike = "mean",
        engine: Engine = "auto",
    ) -> None:
        options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        self.grid = grid if isinstance(grid, Grid) else Grid(*grid)
        self._options = {name: written(value) for name, value in options.items()}
        channels = min(in_channels, MAX_DEFAULT_CHANNELS) if channels is None else channels
        check_counts(in_channels=in_channels, num_classes=num_classes, channels=channels)
        check_counts(graph_layers=graph_layers)
        for name, count in {"graph_layers": graph_layers, "encoder_layers": encoder_layers}.items():
            if count > MAX_LAYERS:
                raise ValueError(f"{name} must be at most {MAX_LAYERS} (got {count})")
        check_choices(
            mode=(mode, get_args(Mode)),
            encoder_norm=(encoder_norm, ("pre", "post")),
            graph_norm=(graph_norm, ("pre", "post", None)),
            jumping_knowledge=(jumping_knowledge, (*get_args(Jumping), None)),
        )
        check_edge_options(engine, edge_dropout)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.engine = engine
        self.edge_dropout = edge_dropout
        self.relations = tuple(r.built(channels) for r in as_relations(relations))
        learned: dict[str, Any] = {r.name: r.edges for r in self.relations if is_learned(r.edges)}
        self.learned_edges = nn.ModuleDict(learned)
        if mode != "none" and not self.relations:
            raise ValueError(
                f"relations must not be empty in mode {mode} (got []); mode none has no graph"
            )
        conv = DEFAULT_OPERATOR if conv is None else conv
        self.operators = LayerOperators(conv, self.relations, graph_layers, mode)
        aggregation = relation_aggregation(relation_aggr)
        self.components: dict[str, AnyComponent] = {
            "positions": as_component(positions, "positions", POSITIONS),
            "graph_norm_layer": as_component(graph_norm_layer, "graph_norm_layer", NORMS),
            "readout": readout_component(readout),
        }
        self._options["relation_aggr"] = aggregation
        features = edge_features_component(edge_features)
        self._options["edge_features"] = features or "none"

        self.projection = (
            nn.Identity() if channels == in_channels else nn.Linear(in_channels, channels)
        )
        given = {"channels": channels, "grid": self.grid, "std": positions_std}
        if self.components["positions"].cls is not None:  # a function takes these three
            given["relations"] = self.relations
        self.positions = self.components["positions"].build(given)
        self.encoder = transformer(
            channels, encoder_layers, encoder_heads, encoder_channels, encoder_norm, encoder_dropout
        )
        self.layers = nn.ModuleList(
            MessagePassingLayer(
                channels,
                TypedOperator(
                    channels,
                    self.operators.of(layer),
                    self.relations,
                    mode,
                    aggregation,
                    features,
                    self.grid,
                    layer + 1,
                ),
                graph_norm,
                graph_activation,
                graph_dropout,
                graph_residual,
                self.components["graph_norm_layer"],
                graph_feed_forward,
            )
            for layer in range(0 if mode == "none" else graph_layers)
        )
        self.jump: Jump | None = None
        if jumping_knowledge is not None and len(self.layers):
            self.jump = Jump(channels, graph_layers, jumping_knowledge)
        self.readout = build_readout(self.components["readout"], channels, self.grid)
        width = self.readout.out_channels
        self.classifier = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))

    @property
    def operator(self) -> Any:
        """The operator of all layers and relations; if they differ, all of them."""
        return self.operators.single or self.operators

    @classmethod
    def paper(cls, dataset: Literal["haa500", "gym99", "gym288"]) -> TAGHead:
        """The paper's head for R(2+1)D-34 on one of its datasets.

        Raises:
            ValueError: If the paper has no such dataset.
        """
        return cls(**paper_options(dataset))

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
            return self._forward_with_attention(feature_map)
        grid = grid_of(feature_map)
        # [B, in_channels, T, H, W] -> [B, N, channels], N = T*H*W
        x = self.tokens(feature_map)
        # [B, N, channels]: with a learnable 3D position
        x = self.positions(x, grid)
        # [B, N, channels]: with global context
        x = self.encoder(x)
        # [B, N, channels], or [B, T, channels] where the readout needs frame means alone
        x = self.refine(x, grid, all_tokens=False)
        # [B, readout.out_channels]
        x = self.readout(x.unflatten(1, (grid.frames, -1)))
        # [B, num_classes]
        return self.classifier(x)

    def tokens(self, feature_map: Tensor) -> Tensor:
        """The feature map's tokens, projected to the head's width.

        Shapes:
            - **feature_map** `[B, in_channels, T, H, W]`
            - **output** `[B, N, channels]`

        Raises:
            ValueError: If the feature map has another number of channels.
        """
        if feature_map.size(1) != self.in_channels:
            raise ValueError(
                f"feature_map must have {self.in_channels} channels (got {feature_map.size(1)})"
            )
        return self.projection(to_tokens(feature_map))

    def embed(self, feature_map: Tensor) -> Tensor:
        """The tokens that enter the Transformer: projected, with positions.

        Shapes:
            - **feature_map** `[B, in_channels, T, H, W]`
            - **output** `[B, N, channels]`
        """
        grid = grid_of(feature_map)
        return self.positions(self.tokens(feature_map), grid)

    def encode(self, feature_map: Tensor) -> Tensor:
        """The tokens that enter the graph: projected, with positions, through the Transformer.

        Shapes:
            - **feature_map** `[B, in_channels, T, H, W]`
            - **output** `[B, N, channels]`
        """
        return self.encoder(self.embed(feature_map))

    def refine(self, x: Tensor, grid: Grid, all_tokens: bool = True) -> Tensor:
        """Message passing on a grid's tokens.

        Args:
            x: The tokens.
            grid: The grid of the tokens.
            all_tokens: Whether the output has every token; otherwise the last layers run on frame
                means where the readout needs no more and the result is the same.

        Shapes:
            - **x** `[B, N, channels]`
            - **output** `[B, N, channels]`, or `[B, T, channels]` with the same frame means
        """
        runner, layers = self._runner(grid), list(self.layers)
        first = len(layers)
        if not all_tokens and self.jump is None:
            first = first_layer_on_frame_means(self.layers, self.readout, runner)
        out = run_layers(layers[:first], x, runner, jump=self.jump)
        if first == len(layers):
            return out
        return run_layers(layers[first:], frame_means(out, grid), runner, frame_means(x, grid))

    def _runner(self, grid: Grid) -> GridRunner:
        return GridRunner(grid, self.engine, self.edge_dropout)

    def _forward_with_attention(self, feature_map: Tensor) -> tuple[Tensor, EdgeAttention]:
        return capture(
            self.embed(feature_map),
            self.encoder,
            self.layers,
            self.readout,
            self.classifier,
            self.relations,
            self._runner(grid_of(feature_map)),
            self.jump,
        )

    def graph_model(self) -> GraphModel:
        """All parts after the Transformer as a PyG model that shares this head's parameters."""
        parts = self.layers, self.readout, self.classifier, self.grid
        return GraphModel(*parts, self.edge_dropout, self.jump)

    def auxiliary_loss(self) -> Tensor | None:
        """The sum of its operators' own losses after a forward pass in training, if any has one."""
        return auxiliary_loss(self.layers)

    def config(self) -> dict[str, Any]:
        """The arguments that rebuild this head, as JSON-serialisable values.

        Raises:
            ValueError: If an operator, a relation or another part was given as a function or an
                object, or the head's class was made in a function: no file can hold them.
        """
        found: dict[str, Any] = {
            "grid": [self.grid.frames, self.grid.height, self.grid.width],
            "relations": [relation.to_config() for relation in self.relations],
            "conv": self.operators.to_config(),
        }
        options = {**self._options, **found, **self.components}
        config = {
            name: to_plain(value, name) if isinstance(value, AnyComponent) else value
            for name, value in options.items()
        }
        if type(self) is TAGHead:
            return config
        try:
            return {"class_path": path_of(type(self)), "init_args": self._own_config(config)}
        except ValueError as error:
            raise ValueError(f"head: {error}") from error

    def _own_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a subclass, whose parts are written as those of this class."""
        given: dict[str, Any] = getattr(self, GIVEN, config)
        parts = {"grid", "conv", "relations", *PARTS}
        return {
            name: config[name] if name in parts and value is not None else to_plain(value, name)
            for name, value in given.items()
        }

    def __init_subclass__(cls, **options: Any) -> None:
        """Has heads of one's own note their arguments, for :meth:`config`."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = noting(cls.__init__)  # type: ignore[method-assign]
