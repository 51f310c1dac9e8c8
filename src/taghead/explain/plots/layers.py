"""The picture of over-smoothing: lines over a head's stages, bars for what each relation adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from taghead.explain.over_smoothing import Smoothing

COLOURS = ("#2166AC", "#D6604D", "#4D9221", "#8073AC", "#B8860B", "#35978F", "#5B6472")
MAX_BARS_WIDTH = 0.8


def smoothing_by_layer(smoothing: Smoothing, *, title: str = "Over-smoothing, by layer") -> Figure:
    """Lines over a head's stages, and a bar for what each relation adds to each layer.

    The lines are the Dirichlet energy, divided by the mean squared norm of the tokens so that it
    does not grow with them; the mean cosine distance of neighbours, black over all pairs of tokens;
    and the ranks. The bars are the relative norm and the change of the logits.

    Args:
        smoothing: The numbers (:func:`~taghead.explain.smoothing`).
        title: The figure's title.
    """
    figure = Figure(figsize=(7.0, 3.8 if len(smoothing.added) else 2.2), layout="constrained")
    figure.suptitle(title, fontsize=9)
    rows = 2 if len(smoothing.added) else 1
    grid = figure.add_gridspec(rows, 6)
    has_graph = bool(len(smoothing.edges))
    width = 2 if has_graph else 3
    panels = [figure.add_subplot(grid[0, i : i + width]) for i in range(0, 6, width)]
    distance, rank = panels[-2:]
    stages = smoothing.tokens.stage.tolist()
    squared = smoothing.tokens.set_index("stage").token_norm.clip(lower=1e-30) ** 2
    for i, (name, part) in enumerate(smoothing.edges.groupby("relation", sort=False)):
        of_stage = part.set_index("stage")
        label, colour = _display_name(str(name)), _colour(str(name), i)
        _line(panels[0], stages, of_stage.dirichlet_energy / squared, label, colour)
        _line(distance, stages, of_stage.mean_cosine_distance, label, colour)
    tokens = smoothing.tokens.set_index("stage")
    _line(distance, stages, tokens.mean_cosine_distance, "all pairs", "black")
    _line(rank, stages, tokens.effective_rank, "effective", COLOURS[0])
    _line(rank, stages, tokens.stable_rank, "stable", COLOURS[1])
    names = ("Dirichlet energy / norm²", "Mean cosine distance", "Rank of the tokens")
    for axis, name in zip(panels, names if has_graph else names[1:], strict=True):
        _style(axis, name)
        axis.set_xticks(
            range(len(stages)), [_display_name(s) for s in stages], rotation=30, ha="right"
        )
    if len(smoothing.added):
        norm, change = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
        _bars(norm, smoothing.added, "relative_norm")
        _bars(change, smoothing.added, "logit_change")
        whose = "each relation" if smoothing.is_separable else "all relations together"
        _style(norm, f"What {whose} adds: norm / the layer's input")
        _style(change, "Mean change of the logits without it")
    return figure


def _line(axis: Axes, stages: list[str], values: pd.Series, label: str, colour: str) -> None:
    numbers = [float(values[stage]) for stage in stages]
    axis.plot(range(len(stages)), numbers, color=colour, marker=".", linewidth=1.2, label=label)


def _bars(axis: Axes, added: pd.DataFrame, column: str) -> None:
    """Groups of bars, a group for each layer."""
    names = list(dict.fromkeys(added.relation))
    width = MAX_BARS_WIDTH / len(names)
    for i, name in enumerate(names):
        part = added[added.relation == name]
        places = part.layer + (i - (len(names) - 1) / 2) * width
        colour = _colour(name, i + (name != "union"))
        axis.bar(places, part[column], width, color=colour, label=_display_name(name))
    layers = sorted(set(added.layer))
    axis.set_xticks(layers, [f"layer {layer}" for layer in layers])


def _style(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=8)
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=6)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=6, frameon=False)


def _colour(name: str, index: int) -> str:
    """Grey for the union, which comes first; a colour for each relation, the same in all panels."""
    return COLOURS[-1] if name == "union" else COLOURS[(index - 1) % (len(COLOURS) - 1)]


def _display_name(name: str) -> str:
    return name.replace("_", " ")
