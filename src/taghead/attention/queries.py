"""Queries on the attention of layers; `EdgeAttention` has them as methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from taghead.attention.dense_weights import DenseWeights
from taghead.attention.layer_attention import LayerAttention, WeightedEdges
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation

SELF_LOOP = "self_loop"  # in the column `relation`, for self-loops that an operator adds

Token = int | tuple[int, int, int]
"""A node's index, or its (t, y, x)."""


def strongest_edges(
    grid: Grid,
    layers: Mapping[int, LayerAttention],
    relations: Sequence[Relation],
    k: int,
    clip: int,
    head: int | None,
) -> pd.DataFrame:
    """The k edges with the largest weights, without those that are alone in their softmax.

    Args:
        grid: The grid.
        layers: The layers to search, by index.
        relations: The relations to search.
        k: Number of edges.
        clip: Index of the clip.
        head: The head; the mean over heads if none.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be a positive integer (got {k!r})")
    tables = []
    for i, layer in layers.items():
        for relation in relations:
            chosen = layer.shares_softmax(relation, grid.num_nodes)
            source, target, alpha = layer.weighted_edges(relation)
            source, target = source[chosen], target[chosen]
            weight = _of_clip(alpha[:, chosen], clip, head)
            top = weight.topk(min(k, len(weight))).indices
            tables.append(_table(grid, i, relation.name, source[top], target[top], weight[top]))
    return _sorted_by_weight(tables).head(k)


def incoming_edges(
    grid: Grid,
    index: int,
    layer: LayerAttention,
    relations: Sequence[Relation],
    token: Token,
    clip: int,
    head: int | None,
) -> pd.DataFrame:
    """A token's incoming edges in a layer, the largest weight first.

    Args:
        grid: The grid.
        index: The layer's index.
        layer: The layer.
        relations: The head's relations.
        token: The token.
        clip: Index of the clip.
        head: The head; the mean over heads if none.
    """
    node = node_index(grid, token)
    tables = []
    for relation in relations:
        source, target, alpha = layer.weighted_edges(relation)
        chosen = target == node
        weight = _of_clip(alpha[:, chosen], clip, head)
        tables.append(_table(grid, index, relation.name, source[chosen], target[chosen], weight))
    for operator in layer.operators:
        if operator.edges.loops is not None:
            weight = _of_clip(operator.edges.loops[:, node : node + 1], clip, head)
            own = torch.tensor([node])
            tables.append(_table(grid, index, SELF_LOOP, own, own, weight))
    return _sorted_by_weight(tables)


def node_index(grid: Grid, token: Token) -> int:
    """The node index of a token that is given as an index or as (t, y, x).

    Raises:
        ValueError: If it is outside the grid.
    """
    indices = (token,) if isinstance(token, int) else tuple(token)
    sizes = (grid.num_nodes,) if isinstance(token, int) else (grid.frames, grid.height, grid.width)
    inside = all(0 <= i < size for i, size in zip(indices, sizes, strict=False))
    if len(indices) != len(sizes) or not inside:
        raise ValueError(f"token must be a node or (t, y, x) on {grid} (got {token!r})")
    if isinstance(token, int):
        return token
    t, y, x = indices
    return (t * grid.height + y) * grid.width + x


def relation_shares(layers: Sequence[LayerAttention]) -> pd.DataFrame:
    """The share of each relation in each layer; `EdgeAttention.flow` has the definition."""
    rows: list[tuple[int, str, float, str]] = []
    for i, layer in enumerate(layers):
        is_union = len(layer.operators[0].relations) > 1
        shares = _shares_of_weights(layer) if is_union else _shares_of_update_norms(layer)
        measure = "weight" if is_union else "added"
        rows += [(i, name, share, measure) for name, share in shares.items()]
    return pd.DataFrame(rows, columns=["layer", "relation", "share", "measure"])


def _shares_of_update_norms(layer: LayerAttention) -> dict[str, float]:
    norms = torch.stack([operator.update_norm for operator in layer.operators])  # [R, B, N]
    total = norms.sum(0)
    shares = (norms / total)[:, total > 0]
    means = shares.mean(1) if shares.numel() else norms.new_zeros(len(norms))
    return {
        operator.relations[0].name: float(share)
        for operator, share in zip(layer.operators, means, strict=True)
    }


def _shares_of_weights(layer: LayerAttention) -> dict[str, float]:
    (operator,) = layer.operators
    alpha, loops = operator.edges.alpha.detach(), operator.edges.loops
    sums = {
        relation.name: alpha[:, operator.is_of(relation)].abs().sum()
        for relation in operator.relations
    }
    if loops is not None:
        sums[SELF_LOOP] = loops.detach().abs().sum()
    total = sum(float(value) for value in sums.values())
    return {name: float(value) / total if total else 0.0 for name, value in sums.items()}


def entropy(grid: Grid, edges: WeightedEdges) -> Tensor:
    """Entropy of a relation's weights, divided by that of uniform weights, `[B, T]`."""
    _, target, alpha = edges
    weights = alpha.detach().abs()
    shape = (weights.size(0), grid.num_nodes, weights.size(2))
    total = weights.new_zeros(shape).index_add(1, target, weights)
    share = weights / total.index_select(1, target).clamp(min=torch.finfo(weights.dtype).tiny)
    found = weights.new_zeros(shape).index_add(1, target, -torch.special.xlogy(share, share))
    degree = torch.bincount(target, minlength=grid.num_nodes)
    of_uniform = degree.clamp(min=2).log().to(weights)
    relative = (found / of_uniform.view(1, -1, 1)).mean(2).masked_fill(degree < 2, torch.nan)
    return relative.unflatten(1, (grid.frames, -1)).nanmean(2)


def change_along_time(dense: DenseWeights) -> Tensor:
    """Total variation distance of each frame's weights to those of the frame before, `[B, T-1]`."""
    weights, mask = dense.weights.detach(), dense.mask
    distance = weights.diff(dim=2).abs().sum(-1) / 2  # [B, heads, T-1, P]
    is_comparable = (mask[1:] == mask[:-1]).flatten(1).all(1) & mask[1:].flatten(1).any(1)
    return distance.mean((1, 3)).masked_fill(~is_comparable, torch.nan)


def _of_clip(alpha: Tensor, clip: int, head: int | None) -> Tensor:
    """`[B, E, heads]` -> one clip's `[E]`, of one head or the mean over them."""
    if not 0 <= clip < len(alpha):
        raise ValueError(f"clip must be from 0 to {len(alpha) - 1} (got {clip})")
    weights = alpha.detach()[clip]
    if head is None:
        return weights.mean(1)
    if not 0 <= head < weights.size(1):
        raise ValueError(f"head must be from 0 to {weights.size(1) - 1} (got {head})")
    return weights[:, head]


def _table(
    grid: Grid, layer: int, relation: str, source: Tensor, target: Tensor, weight: Tensor
) -> pd.DataFrame:
    columns: dict[str, object] = {"layer": layer, "relation": relation}
    positions = grid.positions()
    for name, nodes in (("source", source.cpu()), ("target", target.cpu())):
        columns[name] = nodes.numpy()
        for axis, values in zip("tyx", positions[nodes].unbind(1), strict=True):
            columns[f"{name}_{axis}"] = values.numpy()
    return pd.DataFrame({**columns, "weight": weight.cpu().numpy()})


def _sorted_by_weight(tables: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(tables, ignore_index=True)
    return table.sort_values("weight", ascending=False, kind="stable", ignore_index=True)
