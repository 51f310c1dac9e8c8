"""Whether a ranking of edges means anything: logits as edges go or come, against random orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from taghead.attention.weights import in_evaluation
from taghead.explain.saliency import Target, targets
from taghead.graph.convert import grid_of
from taghead.graph.edge_index import clip_edges

if TYPE_CHECKING:
    from taghead.nn.head import TAGHead

NORMAL_95 = 1.959964  # 95% of a normal distribution lies within so many standard deviations


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
    """A class's probability as the highest-ranked edges are taken away, or put in, first.

    Follows `RISE <https://arxiv.org/abs/1806.07421>`_ in deletion and insertion, with edges in
    place of pixels: they leave the graph, and an operator's softmax is taken over those that stay.

    Args:
        head: The head.
        feature_map: One clip's, from a backbone.
        scores: A number for every edge, by the relation's name: `attention.edge_scores()`,
            `edge_saliency(...)` or an explainer's; edges of all relations are ranked together.
        target: The class; the predicted one if not given.
        steps: Into how many parts the order of edges is cut.
        draws: How many random orders it is compared with. They take as many edges of each relation
            at every step as the ranking does, so that no relation's share in the class passes for
            the ranking's merit.
        seed: Of the random orders.

    Shapes:
        - **feature_map** `[1, C, T, H, W]`
        - **scores** `[E]` for each relation

    Returns:
        A row for each curve (`deletion` or `insertion`) and fraction of the edges, 0 to 1: the
        probability in the order of the scores (`ranked`), its mean over random orders (`random`),
        and the interval that 95% of random orders lie in (`low`, `high`), taken as normal.

    Raises:
        ValueError: If there are several clips, or not one score for every edge.
    """
    if feature_map.size(0) != 1:
        raise ValueError(f"feature_map must hold one clip (got {feature_map.size(0)})")
    for name, number, least in (("steps", steps, 1), ("draws", draws, 2)):
        if not isinstance(number, int) or number < least:
            raise ValueError(f"{name} must be an integer of at least {least} (got {number!r})")
    with in_evaluation(head):
        graph = _Graph(head, feature_map, target)
        rank = graph.joined(scores)
        generator = torch.Generator().manual_seed(seed)
        count = len(rank)
        ranked = rank.argsort(descending=True, stable=True)
        orders = [ranked, *(graph.shuffled(ranked, generator) for _ in range(draws))]
        cuts = [round(count * step / steps) for step in range(steps + 1)]
        rows = []
        for curve in ("deletion", "insertion"):
            for step, cut in enumerate(cuts):
                found = np.array([graph.probability(order, cut, curve) for order in orders])
                mean, spread = found[1:].mean(), NORMAL_95 * found[1:].std(ddof=1)
                row = (curve, step / steps, found[0], mean, mean - spread, mean + spread)
                rows.append(row)
    return pd.DataFrame(rows, columns=["curve", "fraction", "ranked", "random", "low", "high"])


def areas(curves: pd.DataFrame) -> pd.DataFrame:
    """The areas under the curves: a good ranking's is small in deletion, large in insertion.

    Args:
        curves: What `edge_curves` gives.

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


class _Graph:
    """One clip's graph, of which edges can be left out."""

    def __init__(self, head: TAGHead, feature_map: Tensor, target: Target) -> None:
        grid = grid_of(feature_map)
        self.model = head.graph_model()
        x = head.encode(feature_map)
        self.x = {"token": x[0]}
        self.pos = {"token": grid.positions().to(feature_map)}
        self.edges: dict[tuple[str, str, str], Tensor] = {
            r: clip_edges(x, grid, r)[0] for r in head.relations
        }
        self.target = int(targets(self._logits(self.edges), target))

    def joined(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The scores of all relations' edges, one relation after the other."""
        parts = []
        for relation, edge_index in self.edges.items():
            found = scores.get(relation[1])
            if found is None or found.shape != (edge_index.size(1),):
                told = "none" if found is None else list(found.shape)
                raise ValueError(
                    f"scores: {relation[1]} must have one for each of {edge_index.size(1)} edges "
                    f"(got {told})"
                )
            parts.append(found)
        return torch.cat(parts)

    def shuffled(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """Another order with the same relation at every place, its edges drawn at random."""
        sizes = torch.tensor([edge_index.size(1) for edge_index in self.edges.values()])
        relation = torch.arange(len(sizes)).repeat_interleave(sizes).to(order.device)[order]
        drawn = order.clone()
        for place, size in enumerate(sizes.tolist()):
            places = (relation == place).nonzero().flatten()
            drawn[places] = order[places[torch.randperm(size, generator=generator).to(places)]]
        return drawn

    def probability(self, order: Tensor, cut: int, curve: str) -> float:
        """The target's probability with the first edges of an order left out, or alone."""
        kept = torch.full((len(order),), curve == "deletion", device=order.device)
        kept[order[:cut]] = curve == "insertion"
        sizes = [edge_index.size(1) for edge_index in self.edges.values()]
        edges = {
            relation: edge_index[:, chosen]
            for (relation, edge_index), chosen in zip(
                self.edges.items(), kept.split(sizes), strict=True
            )
        }
        return float(self._logits(edges).softmax(1)[0, self.target])

    def _logits(self, edges: dict[tuple[str, str, str], Tensor]) -> Tensor:
        return self.model(self.x, edges, None, self.pos)
