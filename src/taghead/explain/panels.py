"""The pictures of an explanation, ready for a paper."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from taghead.explain import (
    ClipHeat,
    areas,
    compare,
    edges_on_frames,
    save_figure,
    token_heat,
    token_saliency,
)
from taghead.explain.explanation import ClipExplanation
from taghead.graph.relations import find
from taghead.nn.head import TAGHead

FORMATS = ("png", "pdf", "svg")
LABEL_WIDTH = 20  # letters of a line
RANKED, RANDOM = "#B2182B", "#5B6472"


@dataclass(frozen=True)
class Choice:
    """What of a head's attention is drawn.

    Args:
        layer: The layer; all if none.
        head: The attention head; their mean if none.
        relation: The relation, by its name; all if none.
        edges: How many edges of each relation.
        formats: The endings of the files.
    """

    layer: int | None = None
    head: int | None = None
    relation: str | None = None
    edges: int = 12
    formats: tuple[str, ...] = ("png", "pdf")

    def checked(self, head: TAGHead) -> Choice:
        """The choice with the relation by its name; what a head does not have is refused.

        Raises:
            ValueError: If an argument breaks its rule; the message names both.
        """
        if not isinstance(self.edges, int) or self.edges < 1:
            raise ValueError(f"edges must be a positive integer (got {self.edges})")
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown:
            raise ValueError(f"formats must be of {', '.join(FORMATS)} (got {unknown[0]!r})")
        chosen = {"layer": self.layer, "head": self.head, "relation": self.relation}
        given = {name: value for name, value in chosen.items() if value is not None}
        if given and not len(head.layers):
            name, value = next(iter(given.items()))
            raise ValueError(f"{name}: the model has no message-passing layer (got {value!r})")
        if self.layer is not None and not 0 <= self.layer < len(head.layers):
            raise ValueError(f"layer must be from 0 to {len(head.layers) - 1} (got {self.layer})")
        heads = max((getattr(part, "heads", 1) for part in head.layers.modules()), default=1)
        if self.head is not None and not 0 <= self.head < heads:
            raise ValueError(f"head must be from 0 to {heads - 1} (got {self.head})")
        if self.relation is None:
            return self
        return replace(self, relation=find(head.relations, self.relation).name)


def draw_clip(found: ClipExplanation, head: TAGHead, choice: Choice, folder: Path) -> None:
    """Writes all pictures of one clip.

    Args:
        found: The explanation.
        head: The head, for the saliency of other classes.
        choice: What of its attention is drawn.
        folder: Where the pictures go.
    """
    for name, figure in _figures(found, head, choice).items():
        _save(figure, folder / name, choice.formats)


def compare_clips(
    found: Sequence[ClipExplanation], head: TAGHead, choice: Choice, path: Path
) -> None:
    """Draws clips under each other, each for every class that one of them is explained for.

    Args:
        found: The explanations.
        head: The head, for the saliency of the other clips' classes.
        choice: The endings of the files.
        path: The picture, without an ending.
    """
    targets = list(dict.fromkeys(one.target for one in found))
    rows = [
        _row(one, target, _saliency(one, head, target), Path(one.clip.path).stem)
        for target in targets
        for one in found
    ]
    title = "What speaks for a class (red) and against it (blue), in several clips"
    _save(compare(rows, title=title, label="saliency"), path, choice.formats)


def _figures(found: ClipExplanation, head: TAGHead, choice: Choice) -> dict[str, Figure]:
    pictures, attention = found.pictures, found.attention
    name = _spoken(found.class_names[found.target])
    figures = {
        "rollout": token_heat(
            pictures,
            found.rollout * attention.grid.num_nodes,
            title="Attention rollout: how much each token counts for the clip",
            label="times an even share",
        ),
        "saliency": token_heat(
            pictures,
            found.saliency,
            title=f"Saliency: what speaks for {name} (red) and against it (blue)",
            label="change of the logit",
        ),
        "classes": _two_classes(found, head),
    }
    if attention.layers:
        figures["edges"] = edges_on_frames(
            pictures, attention.grid, _strongest(found, choice), title="The strongest edges"
        )
    if found.curves is not None:
        figures["curves"] = _curves(found.curves, name)
    return figures


def _two_classes(found: ClipExplanation, head: TAGHead) -> Figure:
    """The target beside the most probable other class: what tells the two apart."""
    order = found.probabilities.argsort(descending=True, stable=True).tolist()
    other = next((i for i in order if i != found.target), None)
    rows = [_row(found, found.target, found.saliency)]
    if other is not None:
        rows.append(_row(found, other, _saliency(found, head, other)))
    return compare(rows, title="One clip, two classes", label="saliency")


def _row(found: ClipExplanation, target: int, values: Tensor, clip: str = "") -> ClipHeat:
    name = f"{_spoken(found.class_names[target])} ({float(found.probabilities[target]):.1%})"
    lines = [*textwrap.wrap(clip, LABEL_WIDTH), *textwrap.wrap(name, LABEL_WIDTH)]
    return ClipHeat(found.pictures, values, "\n".join(lines))


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _saliency(found: ClipExplanation, head: TAGHead, target: int) -> Tensor:
    if target == found.target:
        return found.saliency
    return token_saliency(head, found.feature_map, target)[0].cpu()


def _strongest(found: ClipExplanation, choice: Choice) -> pd.DataFrame:
    """The strongest edges of each relation: those of few neighbours would hide all others."""
    relations = [r.name for r in found.attention.relations]
    tables = [
        found.attention.strongest(
            choice.edges, layer=choice.layer, head=choice.head, relation=relation
        )
        for relation in ([choice.relation] if choice.relation else relations)
    ]
    return pd.concat(tables, ignore_index=True)


def _curves(curves: pd.DataFrame, name: str) -> Figure:
    """The target's probability as edges go and come, with the areas."""
    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    table = areas(curves).set_index("curve")
    panels = figure.subplots(1, 2, sharey=True)
    for axis, (curve, verb) in zip(
        panels, (("deletion", "left out"), ("insertion", "put in")), strict=True
    ):
        part = curves[curves.curve == curve]
        area = table.loc[curve]
        axis.fill_between(part.fraction, part.low, part.high, color=RANDOM, alpha=0.2, linewidth=0)
        label = f"random orders, area {area.random:.3f}"
        axis.plot(part.fraction, part.random, color=RANDOM, linewidth=1, label=label)
        label = f"strongest first, area {area.ranked:.3f}"
        axis.plot(part.fraction, part.ranked, color=RANKED, linewidth=1.5, label=label)
        axis.set_title(curve.capitalize(), fontsize=8)
        axis.set_xlabel(f"part of the edges {verb}", fontsize=7)
        axis.legend(fontsize=6, frameon=False)
        axis.tick_params(labelsize=6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(0, 1)
    panels[0].set_ylabel(
        "\n".join(textwrap.wrap(f"probability of {name}", 30)), fontsize=7, parse_math=False
    )
    return figure


def _save(figure: Figure, path: Path, formats: Sequence[str]) -> None:
    for ending in formats:
        save_figure(figure, path.with_name(f"{path.name}.{ending}"))
