"""Questions to a head's attention; `EdgeAttention` has them as methods."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from taghead.attention.dense import DenseWeights
from taghead.graph.grid import Grid

if TYPE_CHECKING:
    from taghead.attention.edge_attention import EdgeAttention, RelationLike
    from taghead.attention.layers import LayerAttention, Weighed

SELF_LOOP = "self_loop"  # stands for the relation of a self-loop that an operator adds


def strongest(
    attention: EdgeAttention,
    k: int,
    clip: int,
    layer: int | None,
    relation: RelationLike | None,
    head: int | None,
) -> pd.DataFrame:
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be a positive integer (got {k!r})")
    layers = range(len(attention.layers)) if layer is None else [layer]
    relations = attention.relations if relation is None else [attention.relation(relation)]
    parts = []
    for i, one in product(layers, relations):
        chosen = attention.has_choice(i, one)
        source, target, alpha = attention.weighed(i, one)
        source, target = source[chosen], target[chosen]
        weight = _of_clip(attention, alpha[:, chosen], clip, head)
        top = weight.topk(min(k, len(weight))).indices
        layer = range(len(attention.layers))[i]
        parts.append(_table(attention.grid, layer, one.name, source[top], target[top], weight[top]))
    return _sorted(parts).head(k)


def listens_to(
    attention: EdgeAttention,
    token: int | tuple[int, int, int],
    clip: int,
    layer: int,
    head: int | None,
) -> pd.DataFrame:
    node = as_node(attention.grid, token)
    layer = range(len(attention.layers))[layer]
    parts = []
    for relation in attention.relations:
        source, target, alpha = attention.weighed(layer, relation)
        chosen = target == node
        weight = _of_clip(attention, alpha[:, chosen], clip, head)
        parts.append(
            _table(attention.grid, layer, relation.name, source[chosen], target[chosen], weight)
        )
    for operator in attention.layers[layer].operators:
        if operator.edges.loops is not None:
            weight = _of_clip(attention, operator.edges.loops[:, node : node + 1], clip, head)
            own = torch.tensor([node])
            parts.append(_table(attention.grid, layer, SELF_LOOP, own, own, weight))
    return _sorted(parts)


def as_node(grid: Grid, token: int | tuple[int, int, int]) -> int:
    """The node of a token that is given as one, or as (t, y, x).

    Raises:
        ValueError: If it lies outside the grid.
    """
    place = (token,) if isinstance(token, int) else tuple(token)
    sizes = (grid.num_nodes,) if isinstance(token, int) else (grid.frames, grid.height, grid.width)
    inside = all(0 <= i < size for i, size in zip(place, sizes, strict=False))
    if len(place) != len(sizes) or not inside:
        raise ValueError(f"token must be a node or (t, y, x) on {grid} (got {token!r})")
    if isinstance(token, int):
        return token
    t, y, x = place
    return (t * grid.height + y) * grid.width + x


def flow(attention: EdgeAttention) -> pd.DataFrame:
    rows: list[tuple[int, str, float, str]] = []
    for i, layer in enumerate(attention.layers):
        one_for_all = len(layer.operators[0].relations) > 1
        shares = _shares_of_weights(layer) if one_for_all else _shares_of_additions(layer)
        measure = "weight" if one_for_all else "added"
        rows += [(i, name, share, measure) for name, share in shares.items()]
    return pd.DataFrame(rows, columns=["layer", "relation", "share", "measure"])


def _shares_of_additions(layer: LayerAttention) -> dict[str, float]:
    added = torch.stack([operator.added for operator in layer.operators])  # [R, B, N]
    total = added.sum(0)
    shares = (added / total)[:, total > 0]
    means = shares.mean(1) if shares.numel() else added.new_zeros(len(added))
    return {
        operator.relations[0].name: float(share)
        for operator, share in zip(layer.operators, means, strict=True)
    }


def _shares_of_weights(layer: LayerAttention) -> dict[str, float]:
    (operator,) = layer.operators
    edges = operator.edges
    sums = {
        relation.name: edges.alpha.detach()[:, edges.edge_type == place].abs().sum()
        for place, relation in enumerate(operator.relations)
    }
    if edges.loops is not None:
        sums[SELF_LOOP] = edges.loops.detach().abs().sum()
    total = sum(float(value) for value in sums.values())
    return {name: float(value) / total if total else 0.0 for name, value in sums.items()}


def multiples(attention: EdgeAttention, layer: int, relation: RelationLike) -> Tensor:
    """Weights in multiples of an even share among all that the target's operator weighs.

    Shapes:
        - **output** `[B, E, heads]`
    """
    found, place = attention.operator_of(layer, relation)
    edges = found.edges
    targets = edges.edge_index[0 if found.is_transposed else 1]
    weights, loops = edges.alpha.detach(), edges.loops
    shape = (weights.size(0), attention.grid.num_nodes, weights.size(2))
    total = weights.new_zeros(shape).index_add(1, targets, weights.abs())
    degree = torch.bincount(targets, minlength=attention.grid.num_nodes)
    if loops is not None:
        total, degree = total + loops.detach().abs(), degree + 1
    even = total / degree.clamp(min=1).view(1, -1, 1)
    chosen = edges.edge_type == place
    even = even[:, targets[chosen]].clamp(min=torch.finfo(weights.dtype).tiny)
    return weights[:, chosen] / even


def entropy(grid: Grid, weighed: Weighed) -> Tensor:
    _, target, alpha = weighed
    weights = alpha.detach().abs()
    shape = (weights.size(0), grid.num_nodes, weights.size(2))
    total = weights.new_zeros(shape).index_add(1, target, weights)
    share = weights / total.index_select(1, target).clamp(min=torch.finfo(weights.dtype).tiny)
    found = weights.new_zeros(shape).index_add(1, target, -torch.special.xlogy(share, share))
    degree = torch.bincount(target, minlength=grid.num_nodes)
    has_choice = degree > 1
    scale = degree.clamp(min=2).log().to(weights)
    spread = (found / scale.view(1, -1, 1)).mean(2).masked_fill(~has_choice, torch.nan)
    return spread.unflatten(1, (grid.frames, -1)).nanmean(2)


def change_along_time(dense: DenseWeights) -> Tensor:
    weights, mask = dense.weights.detach(), dense.mask
    distance = weights.diff(dim=2).abs().sum(-1) / 2  # [B, heads, T-1, P]
    same = (mask[1:] == mask[:-1]).flatten(1).all(1) & mask[1:].flatten(1).any(1)
    return distance.mean((1, 3)).masked_fill(~same, torch.nan)


def _of_clip(attention: EdgeAttention, alpha: Tensor, clip: int, head: int | None) -> Tensor:
    """`[B, E, heads]` -> one clip's `[E]`, of one head or the mean over them."""
    if not 0 <= clip < attention.num_clips:
        raise ValueError(f"clip must be from 0 to {attention.num_clips - 1} (got {clip})")
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
    places = grid.positions()
    for name, nodes in (("source", source.cpu()), ("target", target.cpu())):
        columns[name] = nodes.numpy()
        for axis, values in zip("tyx", places[nodes].unbind(1), strict=True):
            columns[f"{name}_{axis}"] = values.numpy()
    return pd.DataFrame({**columns, "weight": weight.cpu().numpy()})


def _sorted(parts: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values("weight", ascending=False, kind="stable", ignore_index=True)
