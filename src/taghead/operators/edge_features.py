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
        - **output** `[1, D]` for each part, `[T, D]` for aggregated self-loops
    """
    return [
        loop_features(hood, edge_attr, fill_value)
        if part.relation == LOOP
        else edge_attr[part.relation : part.relation + 1]
        for part in hood.parts
    ]


def loop_features(hood: Neighbourhood, edge_attr: Tensor, fill_value: FillValue) -> Tensor:
    """The features of a self-loop in each frame, `[T, D]`, or in all, `[1, D]`."""
    if fill_value is None:
        return torch.ones_like(edge_attr[:1])
    if isinstance(fill_value, (int, float)):
        return torch.full_like(edge_attr[:1], fill_value)
    if isinstance(fill_value, Tensor):
        return fill_value.to(edge_attr).expand_as(edge_attr[:1])
    arguments = (*hood.key[:1], len(edge_attr), _degrees_by_relation(hood))
    (counts,) = constants(edge_counts, arguments, edge_attr.dtype, edge_attr.device)
    assert counts is not None
    return _FILLS[fill_value](counts, edge_attr)


def _largest(counts: Tensor, edge_attr: Tensor) -> Tensor:
    absent = (counts == 0).unsqueeze(-1)
    largest = edge_attr.expand(len(counts), -1, -1).masked_fill(absent, -torch.inf).amax(1)
    return largest.masked_fill(largest.isneginf(), 0.0)


_FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.matmul,
    "add": torch.matmul,
    "mean": lambda counts, e: counts @ e / counts.sum(1, keepdim=True).clamp(min=1),
    "max": _largest,
    "min": lambda counts, e: -_largest(counts, -e),
    "mul": lambda counts, e: (e ** counts.unsqueeze(-1)).prod(1),
}


def _degrees_by_relation(hood: Neighbourhood) -> tuple[tuple[int, tuple[int, ...]], ...]:
    places = [place for place in hood.places if place != LOOP]
    return tuple((place, hood.of_relation(place).degrees()) for place in places)


def edge_counts(
    frames: int, relations: int, degrees: tuple[tuple[int, tuple[int, ...]], ...]
) -> tuple[np.ndarray]:
    """Recipe: how many edges of each relation arrive at a token of each frame, `[T, R]`."""
    counts = np.zeros((frames, relations))
    for place, numbers in degrees:
        counts[:, place] = numbers
    return (counts,)


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
