"""Edge features that are equal on all edges of a relation, and those of added self-loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from taghead.operators.constants import constants
from taghead.operators.neighbourhood import Neighbourhood
from taghead.operators.parts import LOOP
from taghead.operators.recipes import adjacency

FillValue = float | Tensor | str | None


def features_of_parts(
    hood: Neighbourhood, edge_attr: Tensor, fill_value: FillValue = None
) -> list[Tensor]:
    """The edge features of each part.

    Args:
        hood: A neighbourhood whose self-loops, if any, are a part of their own.
        edge_attr: One row per relation.
        fill_value: The self-loops' features as PyG takes them: a number, a tensor, or how to
            aggregate the features of the edges that arrive at the token.

    Shapes:
        - **edge_attr** `[R, D]`
        - **output** `[1, 1, D]` for each part, `[T, P or 1, D]` for aggregated self-loops
    """
    return [
        loop_features(hood, edge_attr, fill_value)
        if part.relation == LOOP
        else edge_attr[part.relation].view(1, 1, -1)
        for part in hood.parts
    ]


def loop_features(hood: Neighbourhood, edge_attr: Tensor, fill_value: FillValue) -> Tensor:
    """The features of each token's self-loop, `[T, P or 1, D]`, or of all, `[1, 1, D]`.

    PyG aggregates what arrives at a token even where the flow is from target to source.
    """
    row = edge_attr[:1].unsqueeze(0)
    if fill_value is None:
        return torch.ones_like(row)
    if isinstance(fill_value, (int, float)):
        return torch.full_like(row, fill_value)
    if isinstance(fill_value, Tensor):
        return fill_value.to(edge_attr).expand_as(row)
    edges = hood.transposed if hood.is_transposed else hood
    keys = tuple(edges.of_relation(i).key for i in range(len(edge_attr)))
    (counts,) = constants(edge_counts, (keys,), edge_attr.dtype, edge_attr.device)
    assert counts is not None
    return _FILLS[fill_value](counts, edge_attr)


def _largest(counts: Tensor, edge_attr: Tensor) -> Tensor:
    absent = (counts == 0).unsqueeze(-1)
    edges = edge_attr.expand(*counts.shape[:2], -1, -1)
    largest = edges.masked_fill(absent, -torch.inf).amax(-2)
    return largest.masked_fill(largest.isneginf(), 0.0)


_FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.matmul,
    "add": torch.matmul,
    "mean": lambda counts, e: counts @ e / counts.sum(-1, keepdim=True).clamp(min=1),
    "max": _largest,
    "min": lambda counts, e: -_largest(counts, -e),
    "mul": lambda counts, e: (e ** counts.unsqueeze(-1)).prod(-2),
}


def edge_counts(keys: tuple[tuple, ...]) -> tuple[np.ndarray]:
    """Recipe: how many edges of each relation arrive at each token, `[T, P or 1, R]`."""
    degrees = [adjacency(*key).degrees() for key in keys]
    columns = [found.reshape(len(found), -1) for found in degrees]
    return (np.stack(np.broadcast_arrays(*columns), axis=-1),)


def check_edge_attr(conv: MessagePassing, expected: bool, edge_attr: Tensor | None) -> None:
    """Refuses edge features that are missing, or that an operator was not built for.

    Raises:
        ValueError: If so; the message names the operator.
    """
    if expected and edge_attr is None:
        raise ValueError(f"{conv} was built for edge features: edge_attr must be given (got None)")
    if not expected and edge_attr is not None:
        shape = list(edge_attr.shape)
        raise ValueError(f"{conv} takes no edge features: edge_attr must be None (got {shape})")
