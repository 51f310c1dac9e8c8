import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.nn as pyg
from tiny import make_model
from torch import Tensor

from taghead.explain import explain_clip, load_view
from taghead.explain.clip_explanation import _stride
from taghead.graph import Grid, custom
from taghead.video import Preprocessing

LAST_DIGIT = 6e-7  # the JSON has six decimals


def ring(grid: Grid) -> Tensor:
    nodes = torch.arange(grid.num_nodes)
    return torch.stack([nodes, nodes.roll(-1)])


HEADS: dict[str, dict[str, Any]] = {
    "union with self-loops": {"mode": "union", "conv": partial(pyg.GATConv, heads=2, concat=False)},
    "custom relation": {"relations": (custom("ring", ring), "past_2f")},
    "signed weights": {"conv": pyg.FAConv},
    "against the edges": {
        "conv": partial(pyg.TransformerConv, flow="target_to_source"),
        "relations": ("past_1f", "window_1p"),
    },
    "along motion": {"relations": ("intra_frame", "motion_1p")},
    "no graph": {"mode": "none"},
    "no graph and no Transformer": {"mode": "none", "encoder_layers": 0},
}


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_other_heads(options: dict[str, Any], clip: Path) -> None:
    model = make_model(**options)
    found = explain_clip(model, load_view(clip, Preprocessing()), 2, draws=2)
    numbers = json.loads(json.dumps(found.to_dict("somewhere"), allow_nan=False))
    assert numbers["target"] == "turn_left"
    assert sum(np.ravel(numbers["rollout"])) == pytest.approx(1, abs=1e-4)
    assert numbers["no_rollout"] is None
    if not len(model.head.layers):
        assert (numbers["layers"], numbers["curves"], numbers["strongest"]) == ([], None, [])
        return
    node = 60
    told: list[tuple[str, int, float]] = []
    for name, edges in numbers["layers"][1]["relations"].items():
        weights = np.mean(edges["weights"], axis=0)
        for source, target, weight in zip(edges["source"], edges["target"], weights, strict=True):
            told += [(name, source, weight)] if target == node else []
    rows = found.attention.incoming(node, layer=1)
    rows = rows[rows.relation != "self_loop"]
    expected = {(row.relation, row.source): row.weight for row in rows.itertuples()}
    assert {(name, source) for name, source, _ in told} == set(expected)
    for name, source, weight in told:
        assert weight == pytest.approx(expected[name, source], abs=LAST_DIGIT)


def test_a_readout_without_weights_leaves_the_rollout_out(clip: Path) -> None:
    found = explain_clip(make_model(readout="gru"), load_view(clip, Preprocessing()), draws=0)
    numbers = json.loads(json.dumps(found.to_dict("somewhere"), allow_nan=False))
    assert (found.rollout, numbers["rollout"]) == (None, None)
    assert numbers["no_rollout"].startswith("readout: GRUReadout has no weights of tokens")
    assert np.abs(np.array(numbers["saliency"])).sum() > 0
    assert numbers["flow"]
    assert len(numbers["layers"]) == 2


@pytest.mark.parametrize(
    ("stated", "frames", "tokens", "stride"),
    [(8, 32, 4, 8), (8, 30, 4, 8), (8, 30, 3, 8), (8, 30, 5, 6)],
)
def test_frames_of_a_token(stated: int, frames: int, tokens: int, stride: int) -> None:
    assert _stride(stated, frames, tokens) == stride
