"""A head's forward pass that also returns its attention weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from taghead.attention.edge_attention import EdgeAttention
from taghead.attention.layer_attention import LayerAttention, OperatorAttention
from taghead.attention.weights import check_attentive, edge_weights, in_evaluation
from taghead.graph.baselines import no_edges
from taghead.graph.learned import NoLearnedEdges, is_learned
from taghead.graph.relations import Relation
from taghead.nn.message_passing import run_layers
from taghead.nn.readout import NoTokenWeights, Readout
from taghead.nn.runner import GridRunner
from taghead.operators import propagate


def capture(
    x: Tensor,
    encoder: nn.Module,
    layers: nn.ModuleList,
    readout: Readout,
    classifier: nn.Module,
    relations: tuple[Relation, ...],
    runner: GridRunner,
    jump: nn.Module | None = None,
) -> tuple[Tensor, EdgeAttention]:
    """Logits and attention weights, the weights before any dropout.

    Weights come from dense kernels where operators have one. The logits are those of a plain
    forward pass. The weights are differentiable.

    Args:
        x: The tokens that enter the Transformer: the output of a head's `embed`.
        encoder: The Transformer stage.
        layers: The message-passing layers.
        readout: From all tokens of a clip to one vector.
        classifier: From this vector to logits.
        relations: The layers' relations.
        runner: Runs the layers' operators.
        jump: As in :func:`~taghead.nn.message_passing.run_layers`.

    Shapes:
        - **x** `[B, N, C]`
        - **logits** `[B, K]`

    Raises:
        ValueError: If an operator has no attention weights.
    """
    typed: list[Any] = list(layers)
    for layer in typed:
        for conv in layer.convs.operators():
            check_attentive(conv)
    grid, recorder = runner.grid, AttentionRecorder(layers, runner)
    # [B, N, C]: tokens; [B, layers, heads, N, N]: the Transformer's weights
    x, transformer = encode(encoder, x)
    # [B, N, C]: message passing on the grid
    x = run_layers(layers, x, replace(runner, observer=recorder), jump=jump)
    # [B, T, P, C]
    x = x.unflatten(1, (grid.frames, grid.num_positions))
    weights, reason = _readout_weights(readout, x)
    attention = EdgeAttention(
        grid, relations, x.size(0), recorder.layers(), weights, transformer, reason
    )
    return classifier(readout(x)), attention


def _readout_weights(readout: Readout, x: Tensor) -> tuple[Tensor | None, str]:
    """The readout's weights of tokens, or why it has none."""
    try:
        return readout.weights(x), ""
    except NoTokenWeights as error:
        return None, str(error)


class AttentionRecorder:
    """A runner's observer that records each operator's attention.

    Args:
        layers: The layers that are run, once each.
        runner: Runs their operators.
    """

    def __init__(self, layers: nn.ModuleList, runner: GridRunner) -> None:
        self._runner = runner
        self._features: dict[int, Any] = {
            id(conv): features or "none"
            for convs in (layer.convs for layer in layers)
            for conv, features in convs.operators_with_features()  # type: ignore[union-attr, operator]
        }
        self._is_residual = [bool(layer.residual) for layer in layers]
        self._layer_of = {id(part): i for i, one in enumerate(layers) for part in one.modules()}
        self._operators: list[list[OperatorAttention]] = [[] for _ in layers]

    def __call__(
        self,
        conv: MessagePassing,
        x: Tensor,
        relations: Sequence[Relation],
        x_0: Tensor,
        out: Tensor,
    ) -> None:
        grid, features = self._runner.grid, self._features[id(conv)]
        weights = edge_weights(conv, x, grid, relations, x_0, self._runner.engine, features)
        update_norm = _update_norm(out.detach(), self._without_edges(conv, x, relations, x_0))
        is_transposed = conv.flow == "target_to_source"
        name = type(conv).__name__
        self._operators[self._layer_of[id(conv)]].append(
            OperatorAttention(name, tuple(relations), weights, update_norm, is_transposed)
        )

    @torch.no_grad()
    def _without_edges(
        self, conv: MessagePassing, x: Tensor, relations: Sequence[Relation], x_0: Tensor
    ) -> Tensor:
        """An operator's output without edges: its root weight, bias and self-loops."""
        empty = [
            Relation(r.name, NoLearnedEdges() if is_learned(r.edges) else no_edges)
            for r in relations
        ]
        grid, features = self._runner.grid, self._features[id(conv)]
        with in_evaluation(conv):
            return propagate(conv, x, grid, empty, x_0, edge_features=features, engine="pyg")

    def layers(self) -> tuple[LayerAttention, ...]:
        """The attention of all layers."""
        return tuple(
            LayerAttention(tuple(operators), is_residual)
            for operators, is_residual in zip(self._operators, self._is_residual, strict=True)
        )


def _update_norm(out: Tensor, without_edges: Tensor) -> Tensor:
    """Norm of the difference that the edges make to each token, 0 within rounding, `[B, N]`."""
    norm = (out - without_edges).norm(dim=-1)
    rounding = torch.finfo(out.dtype).eps ** 0.5 * without_edges.norm(dim=-1)
    return norm.where(norm > rounding, 0)


def encode(encoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Runs the Transformer stage layer by layer, with each layer's attention weights.

    Shapes:
        - **x**, **output** `[B, N, C]`
        - **weights** `[B, layers, heads, N, N]`, none if there are no layers
    """
    if not isinstance(encoder, nn.TransformerEncoder):
        return encoder(x), None
    weights = []
    for layer in encoder.layers:
        assert isinstance(layer, nn.TransformerEncoderLayer)
        weights.append(_self_attention(layer, x))
        x = layer(x)
    return x if encoder.norm is None else encoder.norm(x), torch.stack(weights, dim=1)


def _self_attention(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    """A Transformer layer's attention weights without dropout, `[B, heads, N, N]`."""
    attention = layer.self_attn
    x = (layer.norm1(x) if layer.norm_first else x).transpose(0, 1)  # [N, B, C]
    _, weights = F.multi_head_attention_forward(
        x,
        x,
        x,
        attention.embed_dim,
        attention.num_heads,
        attention.in_proj_weight,
        attention.in_proj_bias,
        attention.bias_k,
        attention.bias_v,
        attention.add_zero_attn,
        0.0,
        attention.out_proj.weight,
        attention.out_proj.bias,
        training=False,
        need_weights=True,
        average_attn_weights=False,
    )
    assert weights is not None
    return weights
