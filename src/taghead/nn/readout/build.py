"""Readouts by name, by class path or as an object.

One of your own is a `Readout(channels)`, by its class path; its `__init__` may also take `grid`. To
add one to the package, write its class and add it to `READOUTS` and to `ReadoutName`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch_geometric.nn import Aggregation, aggr

from taghead.components import AnyComponent, Component, ComponentLike, as_component, names_of
from taghead.graph.grid import Grid
from taghead.nn.readout.aggregation import AggregationReadout, output_width
from taghead.nn.readout.base import Readout
from taghead.nn.readout.frames import FrameSequenceReadout, LastFrameReadout
from taghead.nn.readout.temporal import FrameTransformerReadout, GRUReadout, TemporalConvReadout
from taghead.nn.readout.tokens import AttentionReadout, FrameMeanMaxReadout, MeanReadout

ReadoutName = Literal[
    "mean",
    "frame_mean_max",
    "attention",
    "last_frame",
    "frame_sequence",
    "temporal_conv",
    "gru",
    "frame_transformer",
]

READOUTS: dict[ReadoutName, type[Readout]] = {
    "mean": MeanReadout,
    "frame_mean_max": FrameMeanMaxReadout,
    "attention": AttentionReadout,
    "last_frame": LastFrameReadout,
    "frame_sequence": FrameSequenceReadout,
    "temporal_conv": TemporalConvReadout,
    "gru": GRUReadout,
    "frame_transformer": FrameTransformerReadout,
}
"""The readouts by name."""


def readout_component(readout: ComponentLike) -> AnyComponent:
    """The readout that a value stands for: a `Readout`, or an aggregation of PyG.

    Raises:
        ValueError: If it is neither.
    """
    names: dict[str, Any] = names_of(getattr(aggr, name) for name in aggr.__all__)
    found = as_component(
        readout, "readout", {**names, **{str(name): cls for name, cls in READOUTS.items()}}
    )
    if found.cls is not None and not issubclass(found.cls, Readout | Aggregation):
        raise ValueError(
            f"readout must be a Readout or one of PyG's aggregations (got {found.cls!r})"
        )
    return found


def build_readout(component: AnyComponent, channels: int, grid: Grid) -> Readout:
    """A readout of the tokens of a grid.

    Args:
        component: The readout.
        channels: Width of the tokens.
        grid: Their grid; what a class needs of it is filled in where it is not given: `grid`, and
            of PyG's aggregations `deg` and `max_num_elements`.

    Raises:
        ValueError: If it cannot be built, or does not run.
    """
    try:
        made = _made(component, channels, grid)
    except ValueError as error:
        raise ValueError(f"readout: {error}") from error
    if isinstance(made, Aggregation):
        return AggregationReadout(channels, grid, made)
    if not isinstance(made, Readout):
        raise ValueError(f"readout must be a Readout or one of PyG's aggregations (got {made!r})")
    if type(made) not in READOUTS.values():
        made.out_channels = output_width(made, channels, grid)
    return made


def _made(component: AnyComponent, channels: int, grid: Grid) -> Any:
    """What a component builds."""
    if not isinstance(component, Component):
        return component.build({"channels": channels})
    tokens = torch.zeros(grid.num_nodes + 1, dtype=torch.long)
    tokens[-1] = 1  # the histogram of the number of tokens of a clip
    sizes = {"grid": grid, "deg": tokens, "max_num_elements": grid.num_nodes}
    given: dict[str, Any] = component.open_widths(_widths(component.cls, channels))
    given |= {name: value for name, value in sizes.items() if component.is_open(name)}
    return component.make(
        component.arguments(given, lambda name: _widths(component.cls, channels, name))
    )


def _widths(cls: type[Any], channels: int, option: str = "") -> dict[str, int]:
    """The widths of a readout's class, or of a network among its options."""
    found = dict.fromkeys(("channels", "in_channels"), channels)
    if issubclass(cls, Aggregation):
        # a gate has one weight for each token
        found |= {
            "hidden_channels": channels,
            "out_channels": 1 if option == "gate_nn" else channels,
        }
    return found
