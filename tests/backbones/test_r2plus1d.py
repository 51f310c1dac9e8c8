from typing import Any

import torch
from torch import nn

from taghead.backbones import (
    build_backbone,
)


def test_the_small_one_is_small() -> None:
    parameters = sum(p.numel() for p in build_backbone("r2plus1d_tiny").parameters())
    assert 0.3e6 < parameters < 0.5e6


def test_r2plus1d_34_is_the_one_of_the_ig65m_weights() -> None:
    with torch.device("meta"):
        backbone = build_backbone("r2plus1d_34")
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2) == 63.49
    features: Any = backbone.features
    assert [len(stage) for stage in features[1:]] == [3, 4, 6, 3]
    widths = [stage[0].conv2[0][0].out_channels for stage in features[2:]]
    assert widths == [288, 576, 1152]
    norms = [m for m in features.modules() if isinstance(m, nn.BatchNorm3d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.9)}
    state = features.state_dict()
    assert {"0.0.weight", "1.0.conv1.0.0.weight"} <= state.keys()
    grid = backbone.grid(64, 112)
    assert (grid.frames, grid.height, grid.width) == (8, 7, 7)
    assert backbone.grid(32, 112).frames == 4
