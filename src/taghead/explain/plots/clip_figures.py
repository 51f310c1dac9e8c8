"""The figures of clip explanations: heatmaps, edges and curves as picture files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from taghead.explain.clip_explanation import ClipExplanation
from taghead.explain.curves import areas
from taghead.explain.plots.edges import edges_on_frames
from taghead.explain.plots.frames import save_figure
from taghead.explain.plots.heat import ClipHeat, compare_heat, token_heat
from taghead.explain.plots.layers import smoothing_by_layer
from taghead.explain.saliency import token_saliency
from taghead.explain.selection import Selection
from taghead.files import name_to_text
from taghead.nn.head import TAGHead

LABEL_WIDTH = 20  # characters of a line
RANKED, RANDOM = "#B2182B", "#5B6472"


def write_figures(
    explanation: ClipExplanation, head: TAGHead, selection: Selection, folder: Path
) -> None:
    """Writes all figures of one clip.

    Args:
        explanation: The explanation.
        head: The head, for the saliency of other classes.
        selection: The part of its attention that is drawn.
        folder: The folder of the picture files.
    """
    for name, figure in _figures(explanation, head, selection).items():
        _save(figure, folder / name, selection.formats)


def compare_clips(
    explanations: Sequence[ClipExplanation], head: TAGHead, selection: Selection, path: Path
) -> None:
    """Draws the saliency of several clips, for every class that one of them is explained for.

    Args:
        explanations: The explanations.
        head: The head, for the saliency of the other clips' classes.
        selection: The file formats.
        path: The path of the picture, without suffix.
    """
    targets = list(dict.fromkeys(one.target for one in explanations))
    rows = [
        _row(one, target, _saliency(one, head, target), name_to_text(Path(one.clip.path).stem))
        for target in targets
        for one in explanations
    ]
    title = "What speaks for a class (red) and against it (blue), in several clips"
    _save(compare_heat(rows, title=title, label="saliency"), path, selection.formats)


def _figures(
    explanation: ClipExplanation, head: TAGHead, selection: Selection
) -> dict[str, Figure]:
    pictures, attention = explanation.pictures, explanation.attention
    name = _display_name(explanation.class_names[explanation.target])
    figures = {
        "saliency": token_heat(
            pictures,
            explanation.saliency,
            title=f"Saliency: what speaks for {name} (red) and against it (blue)",
            label="change of the logit",
        ),
        "classes": _two_classes(explanation, head),
        "layers": smoothing_by_layer(explanation.smoothing),
    }
    if explanation.rollout is not None:
        figures["rollout"] = token_heat(
            pictures,
            explanation.rollout * attention.grid.num_nodes,
            title="Attention rollout: the weight of each token in the clip's vector",
            label="times the uniform weight",
        )
    if attention.layers:
        figures["edges"] = edges_on_frames(
            pictures,
            attention.grid,
            _strongest(explanation, selection),
            title="The strongest edges",
        )
    if explanation.curves is not None:
        figures["curves"] = _curves(explanation.curves, name)
    return figures


def _two_classes(explanation: ClipExplanation, head: TAGHead) -> Figure:
    """Saliency of the target and of the most probable other class."""
    order = explanation.probabilities.argsort(descending=True, stable=True).tolist()
    other = next((i for i in order if i != explanation.target), None)
    rows = [_row(explanation, explanation.target, explanation.saliency)]
    if other is not None:
        rows.append(_row(explanation, other, _saliency(explanation, head, other)))
    return compare_heat(rows, title="One clip, two classes", label="saliency")


def _row(explanation: ClipExplanation, target: int, values: Tensor, clip: str = "") -> ClipHeat:
    probability = float(explanation.probabilities[target])
    name = f"{_display_name(explanation.class_names[target])} ({probability:.1%})"
    lines = [*textwrap.wrap(clip, LABEL_WIDTH), *textwrap.wrap(name, LABEL_WIDTH)]
    return ClipHeat(explanation.pictures, values, "\n".join(lines))


def _display_name(name: str) -> str:
    return name.replace("_", " ")


def _saliency(explanation: ClipExplanation, head: TAGHead, target: int) -> Tensor:
    if target == explanation.target:
        return explanation.saliency
    return token_saliency(head, explanation.feature_map, target)[0].cpu()


def _strongest(explanation: ClipExplanation, selection: Selection) -> pd.DataFrame:
    """The strongest edges of each relation, as one with few neighbours would hide others."""
    relations = [r.name for r in explanation.attention.relations]
    tables = [
        explanation.attention.strongest(
            selection.edges, layer=selection.layer, head=selection.head, relation=relation
        )
        for relation in ([selection.relation] if selection.relation else relations)
    ]
    return pd.concat(tables, ignore_index=True)


def _curves(curves: pd.DataFrame, name: str) -> Figure:
    """The deletion and insertion curves of the target's probability, with their areas."""
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
    for suffix in formats:
        save_figure(figure, path.with_name(f"{path.name}.{suffix}"))
