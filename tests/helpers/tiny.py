"""A small model with the paper's sizes: clips of 32 frames of 112 pixels, 4x7x7 tokens."""

from typing import Any

import torch
from torch import nn

from taghead import TAGHead, VideoClassifier
from taghead.backbones import Backbone
from taghead.graph import Grid
from taghead.video import Preprocessing

WIDTH = 16
GRID = Grid(4, 7, 7)
HOSTILE = "<img src=x onerror=alert(1)> & $a_$"
CLASSES = ["jump", HOSTILE, "turn_left", "</script><script>alert(2)</script>", "roll"]


class TinyBackbone(Backbone):
    """One convolution: a token depends on its own pixels alone."""

    def __init__(self) -> None:
        conv = nn.Conv3d(3, WIDTH, (8, 16, 16), stride=(8, 16, 16))
        super().__init__(conv, WIDTH, (8, 16, 16), Preprocessing())


def make_model(**options: Any) -> VideoClassifier:
    """A model with random weights, scaled so that its attention is far from uniform."""
    torch.manual_seed(0)
    defaults = {"encoder_layers": 1, "encoder_heads": 2, "encoder_channels": 16, "graph_layers": 2}
    head = TAGHead(WIDTH, len(CLASSES), GRID, **{**defaults, **options})
    for name, parameter in head.named_parameters():
        if name.endswith("att"):
            nn.init.normal_(parameter, std=2.0)
    return VideoClassifier(TinyBackbone(), head, CLASSES, Preprocessing()).eval()
