"""Where an edge comes from, seen from where it goes: features of edges that positions give."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch_geometric.nn import (
    CGConv,
    GATConv,
    GATv2Conv,
    GENConv,
    GeneralConv,
    GINEConv,
    GMMConv,
    HEATConv,
    MessagePassing,
    NNConv,
    PDNConv,
    PNAConv,
    ResGatedGraphConv,
    RGATConv,
    TransformerConv,
)

EdgeFeatures = Literal["none", "offset"]
NUM_OFFSETS = 4  # frames, rows, columns, distance in the frame
OCTAVES = 3.0  # an offset of 7 tokens becomes 1

TAKING_EDGES: tuple[type[MessagePassing], ...] = (
    CGConv,
    GATConv,
    GATv2Conv,
    GENConv,
    GINEConv,
    GMMConv,
    GeneralConv,
    HEATConv,
    NNConv,
    PDNConv,
    PNAConv,
    RGATConv,
    ResGatedGraphConv,
    TransformerConv,
)
"""PyG's operators that take features of edges of any sign."""


def edge_width(edge_features: EdgeFeatures) -> int | None:
    """How many features an edge has; none without features.

    Raises:
        ValueError: If there is no such choice.
    """
    if edge_features not in get_args(EdgeFeatures):
        choices = ", ".join(get_args(EdgeFeatures))
        raise ValueError(f"edge_features must be one of {choices} (got {edge_features!r})")
    return NUM_OFFSETS if edge_features == "offset" else None


def offsets(pos: Tensor, edge_index: Tensor) -> Tensor:
    r"""An edge's source minus its target, and how far apart they are in the frame.

    Frames, rows, columns and distance are on the logarithmic scale of `Swin Transformer V2
    <https://arxiv.org/abs/2111.09883>`_: neighbours stay well apart, 7 tokens are 1, and a number
    means the same on a grid of any size.

    .. math:: \mathrm{sign}(d) \log_2(1 + |d|) / 3

    Shapes:
        - **pos** `[M, 3]`, (t, y, x)
        - **edge_index** `[2, E]`
        - **output** `[E, 4]`
    """
    source, target = edge_index
    way = pos[source] - pos[target]
    way = torch.cat([way, way[:, 1:].norm(dim=1, keepdim=True)], dim=1)
    return way.sign() * way.abs().log1p() / (OCTAVES * torch.log(way.new_tensor(2.0)))


def check_takes_edges(conv: MessagePassing, names: tuple[str, ...]) -> None:
    """Refuses an operator that edge features would not reach.

    Args:
        conv: The operator.
        names: The arguments of its `forward`.

    Raises:
        ValueError: If it takes none, with the names of those that do; or was built for none.
    """
    name = type(conv).__name__
    if "edge_attr" not in names:
        known = ", ".join(cls.__name__ for cls in TAKING_EDGES)
        raise ValueError(f"edge_features: {name} takes no edge_attr; operators that do are {known}")
    if None in (getattr(conv, "lin_edge", conv), getattr(conv, "in_edge_channels", conv)):
        raise ValueError(
            f"edge_features: {name} was built without features of edges; its edge_dim must be "
            f"{NUM_OFFSETS}"
        )
