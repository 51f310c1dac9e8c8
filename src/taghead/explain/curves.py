"""Deletion and insertion curves: how well a ranking of edges predicts their effect on a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from taghead.attention.weights import in_evaluation
from taghead.explain.saliency import Target, target_classes
from taghead.graph.convert import grid_of
from taghead.graph.edge_index import clip_edges

if TYPE_CHECKING:
    from taghead.nn.head import TAGHead

NORMAL_95 = 1.959964  # standard deviations that hold 95% of a normal distribution


@torch.no_grad()
def edge_curves(
    head: TAGHead,
    feature_map: Tensor,
    scores: Mapping[str, Tensor],
    target: Target = None,
    *,
    steps: int = 10,
    draws: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """A class's probability as edges are deleted, or inserted, the highest-ranked first.

    Follows `RISE <https://arxiv.org/abs/1806.07421>`_ in deletion and insertion, with edges
    instead of pixels: deleted edges leave the graph, and an operator's softmax is over those left.

    Args:
        head: The head.
        feature_map: A backbone's output for one clip.
        scores: A score for every edge, by the relation's name: `attention.edge_scores()`,
            `edge_saliency(...)` or an explainer's; edges of all relations are ranked together.
        target: The class; the predicted one if not given.
        steps: Number of steps from no edge to all edges.
        draws: Number of random orders. At every step each has as many edges of each relation as
            the ranking, so that the effect of a relation as a whole is not credited to the
            ranking.
        seed: Seed of the random orders.

    Shapes:
        - **feature_map** `[1, C, T, H, W]`
        - **scores** `[E]` for each relation

    Returns:
        A row for each curve (`deletion` or `insertion`) and fraction of the edges, 0 to 1: the
        probability in the order of the scores (`ranked`), its mean over random orders (`random`),
        and the interval of 95% of random orders (`low`, `high`) under a normal distribution.

    Raises:
        ValueError: If there are several clips, or an edge has no score.
    """
    if feature_map.size(0) != 1:
        raise ValueError(f"feature_map must hold one clip (got {feature_map.size(0)})")
    for name, number, least in (("steps", steps, 1), ("draws", draws, 2)):
        if not isinstance(number, int) or number < least:
            raise ValueError(f"{name} must be an integer of at least {least} (got {number!r})")
    with in_evaluation(head):
        graph = _ClipGraph(head, feature_map, target)
        flat_scores = graph.concatenate(scores)
        generator = torch.Generator().manual_seed(seed)
        count = len(flat_scores)
        ranked = flat_scores.argsort(descending=True, stable=True)
        orders = [ranked, *(graph.shuffled(ranked, generator) for _ in range(draws))]
        cuts = [round(count * step / steps) for step in range(steps + 1)]
        rows = []
        for curve in ("deletion", "insertion"):
            for step, cut in enumerate(cuts):
                first, *others = (graph.probability(order, cut, curve) for order in orders)
                mean, margin = np.mean(others), NORMAL_95 * np.std(others, ddof=1)
                rows.append((curve, step / steps, first, mean, mean - margin, mean + margin))
    return pd.DataFrame(rows, columns=["curve", "fraction", "ranked", "random", "low", "high"])


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """Areas under the curves: small for deletion and large for insertion if a ranking is good.

    Args:
        curves: The output of `edge_curves`.

    Returns:
        A row for each curve: the area of `ranked`, `random`, `low` and `high`.
    """
    rows = {
        curve: {
            name: np.trapezoid(part[name], part.fraction)
            for name in ("ranked", "random", "low", "high")
        }
        for curve, part in curves.groupby("curve")
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("curve").reset_index()


class _ClipGraph:
    """The graph of one clip, run with any subset of its edges."""

    def __init__(self, head: TAGHead, feature_map: Tensor, target: Target) -> None:
        grid = grid_of(feature_map)
        self.model = head.graph_model()
        x = head.encode(feature_map)
        self.x = {"token": x[0]}
        self.pos = {"token": grid.positions().to(feature_map)}
        self.edges: dict[tuple[str, str, str], Tensor] = {
            r: clip_edges(x, grid, r)[0] for r in head.relations
        }
        self.target = int(target_classes(self._logits(self.edges), target))

    def concatenate(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The scores of all relations' edges, one relation after the other, `[E]`."""
        parts = []
        for relation, edge_index in self.edges.items():
            values = scores.get(relation[1])
            if values is None or values.shape != (edge_index.size(1),):
                shape = "none" if values is None else list(values.shape)
                raise ValueError(
                    f"scores: {relation[1]} must have one for each of {edge_index.size(1)} edges "
                    f"(got {shape})"
                )
            parts.append(values)
        return torch.cat(parts)

    def shuffled(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """A random order of the edges with the same relation at every index."""
        sizes = torch.tensor([edge_index.size(1) for edge_index in self.edges.values()])
        relation = torch.arange(len(sizes)).repeat_interleave(sizes).to(order.device)[order]
        drawn = order.clone()
        for i, size in enumerate(sizes.tolist()):
            indices = (relation == i).nonzero().flatten()
            drawn[indices] = order[indices[torch.randperm(size, generator=generator).to(indices)]]
        return drawn

    def probability(self, order: Tensor, cut: int, curve: str) -> float:
        """The target's probability without the first `cut` edges of an order, or only with them."""
        is_used = torch.full((len(order),), curve == "deletion", device=order.device)
        is_used[order[:cut]] = curve == "insertion"
        sizes = [edge_index.size(1) for edge_index in self.edges.values()]
        edges = {
            relation: edge_index[:, chosen]
            for (relation, edge_index), chosen in zip(
                self.edges.items(), is_used.split(sizes), strict=True
            )
        }
        return float(self._logits(edges).softmax(1)[0, self.target])

    def _logits(self, edges: dict[tuple[str, str, str], Tensor]) -> Tensor:
        return self.model(self.x, edges, None, self.pos)
