"""The picture of over-smoothing: its lines and bars are the numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch_geometric.nn as pyg
from heads import make_head, make_map

from taghead.explain import save_figure, smoothing, smoothing_by_layer


@pytest.mark.parametrize("mode", ["per_relation", "union", "none"])
def test_lines_and_bars_are_the_numbers(mode: Any, tmp_path: Path) -> None:
    head = make_head(conv=pyg.SAGEConv, mode=mode, graph_layers=2)
    found = smoothing(head, make_map())
    figure = smoothing_by_layer(found)
    panels = {axis.get_title(): axis for axis in figure.axes}
    lines = {line.get_label(): line for line in panels["Rank of the tokens"].lines}
    ranks = found.tokens.effective_rank.tolist()
    assert list(lines["effective"].get_ydata()) == pytest.approx(ranks)
    distances = {line.get_label(): line for line in panels["Mean cosine distance"].lines}
    told = found.tokens.mean_cosine_distance.tolist()
    assert list(distances["all pairs"].get_ydata()) == pytest.approx(told)
    if mode == "none":
        assert len(panels) == 2
    else:
        energy = panels["Dirichlet energy / norm²"].lines[0]
        union = found.edges[found.edges.relation == "union"].dirichlet_energy.to_numpy()
        squared = found.tokens.token_norm.to_numpy() ** 2
        assert energy.get_label() == "union"
        assert list(energy.get_ydata()) == pytest.approx(list(union / squared))
        bars = panels["Mean change of the logits without it"].patches
        heights = sorted(bar.get_height() for bar in bars)
        assert heights == pytest.approx(sorted(found.added.logit_change))
        whose = "each relation" if mode == "per_relation" else "all relations together"
        assert f"What {whose} adds: norm / the layer's input" in panels
    save_figure(figure, tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
