"""Edge features from positions: the offset of an edge's source from its target."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

EdgeFeatures = Literal["none", "offset"]
NUM_OFFSETS = 4  # frames, rows, columns, distance in the frame
OCTAVES = 3.0  # an offset of 7 tokens becomes 1


def edge_width(edge_features: EdgeFeatures) -> int | None:
    """The number of features of an edge; None without features.

    Raises:
        ValueError: If `edge_features` is neither `none` nor `offset`.
    """
    if edge_features not in get_args(EdgeFeatures):
        choices = ", ".join(get_args(EdgeFeatures))
        raise ValueError(f"edge_features must be one of {choices} (got {edge_features!r})")
    return NUM_OFFSETS if edge_features == "offset" else None


def offsets(pos: Tensor, edge_index: Tensor) -> Tensor:
    r"""The offset of each edge's source from its target, and their distance in the frame.

    Frames, rows, columns and distance are on the logarithmic scale of `Swin Transformer V2
    <https://arxiv.org/abs/2111.09883>`_: nearby offsets stay distinct, an offset of 7 tokens is 1,
    and a value means the same on a grid of any size.

    .. math:: \mathrm{sign}(d) \log_2(1 + |d|) / 3

    Shapes:
        - **pos** `[M, 3]`, (t, y, x)
        - **edge_index** `[2, E]`
        - **output** `[E, 4]`
    """
    source, target = edge_index
    offset = pos[source] - pos[target]
    offset = torch.cat([offset, offset[:, 1:].norm(dim=1, keepdim=True)], dim=1)
    return offset.sign() * offset.abs().log1p() / (OCTAVES * torch.log(offset.new_tensor(2.0)))
