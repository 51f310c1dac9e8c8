"""Edge features: functions of an edge's offset and relation, and the offsets themselves."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

NUM_OFFSETS = 4  # frames, rows, columns, distance in the frame
OCTAVES = 3.0  # an offset of 7 tokens becomes 1


class EdgeFeatures(nn.Module):
    """The features of edges: a function of each edge's offset and relation.

    A class of your own is built with those of the arguments `grid` and `num_relations` that it
    takes, sets `out_channels`, and defines `forward`.

    Attributes:
        out_channels: The number of an edge's features, D.
        uses_offsets: Whether they depend on the offset; if not, they are one row a relation.

    Shapes:
        - **offset** `[..., 3]`, source minus target in frames, rows and columns
        - **edge_type** `[...]`, the index of the edge's relation
        - **output** `[..., D]`
    """

    out_channels: int
    uses_offsets: bool = True

    def forward(self, offset: Tensor, edge_type: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define forward(offset, edge_type)")

    def of_relations(self, num_relations: int, like: Tensor) -> Tensor:
        """The row of each relation, `[R, D]`, where they do not depend on the offset."""
        edge_type = torch.arange(num_relations, device=like.device)
        return self(like.new_zeros(num_relations, 3), edge_type)


class OffsetFeatures(EdgeFeatures):
    """The offset of an edge and its length in the frame, on a logarithmic scale.

    As :func:`offsets` defines them.

    Shapes:
        - **output** `[..., 4]`
    """

    out_channels = NUM_OFFSETS

    def forward(self, offset: Tensor, edge_type: Tensor) -> Tensor:
        return scaled_offsets(offset)


OFFSET = OffsetFeatures()
EdgeFeaturesLike = EdgeFeatures | Literal["none", "offset"]
"""Edge features, or the name of those that have no parameters."""


def find_features(edge_features: EdgeFeaturesLike) -> EdgeFeatures | None:
    """The edge features that a value stands for; `None` for `none`.

    Raises:
        ValueError: If it is neither `none`, `offset` nor an object.
    """
    if isinstance(edge_features, EdgeFeatures):
        return edge_features
    if edge_features not in ("none", "offset"):
        raise ValueError(
            f"edge_features must be none, offset or an EdgeFeatures (got {edge_features!r})"
        )
    return OFFSET if edge_features == "offset" else None


def scaled_offsets(offset: Tensor) -> Tensor:
    """Offsets and their length in the frame, on the logarithmic scale of :func:`offsets`.

    Shapes:
        - **offset** `[..., 3]`
        - **output** `[..., 4]`
    """
    offset = torch.cat([offset, offset[..., 1:].norm(dim=-1, keepdim=True)], dim=-1)
    return offset.sign() * offset.abs().log1p() / (OCTAVES * torch.log(offset.new_tensor(2.0)))


def differences(pos: Tensor, edge_index: Tensor) -> Tensor:
    """The position of each edge's source minus that of its target, `[E, 3]`."""
    source, target = edge_index
    return pos[source] - pos[target]


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
    return scaled_offsets(differences(pos, edge_index))
