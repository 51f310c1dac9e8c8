"""Frame means: a head's last layers run on them alone where that gives the same logits."""

from __future__ import annotations

from torch import Tensor, nn

from taghead.graph.grid import Grid
from taghead.nn.message_passing import MessagePassingLayer
from taghead.nn.readout import needs_frame_means_only
from taghead.nn.runner import GridRunner
from taghead.operators.kernel import class_of, has_hooks


def frame_means(x: Tensor, grid: Grid) -> Tensor:
    """Tokens `[B, N, C]` -> their mean over each frame `[B, T, C]`."""
    return x.unflatten(1, (grid.frames, grid.num_positions)).mean(dim=2)


def first_layer_on_frame_means(
    layers: nn.ModuleList, readout: nn.Module, runner: GridRunner
) -> int:
    """The index of the first layer that can run on frame means, as can all layers after it.

    Such layers are linear in the tokens and commute with the mean over a frame. The index is the
    number of layers if there is no such layer, or if the engine, the readout or edge dropout needs
    all tokens.
    """
    first = len(layers)
    if runner.engine == "pyg" or not needs_frame_means_only(readout):
        return first
    if has_hooks(readout) or (runner.edge_dropout and layers.training):
        return first
    for layer in reversed(layers):
        if class_of(layer) is not MessagePassingLayer:
            break
        assert isinstance(layer, MessagePassingLayer)
        if not layer.commutes_with_means(runner.grid):
            break
        first -= 1
    return first
