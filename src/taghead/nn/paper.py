"""The settings of the paper's heads."""

from __future__ import annotations

from typing import Any

from torch_geometric.nn import APPNP

from taghead.graph.relations import RELATIONS
from taghead.operators import Operator

PAPER = {  # classes, frames of the grid, width of the Transformer's feed-forward network
    "haa500": (500, 4, 512),
    "gym99": (99, 8, 1024),
    "gym288": (288, 8, 2048),
}


def paper_options(dataset: str) -> dict[str, Any]:
    """The arguments of `TAGHead` for R(2+1)D-34 on one of the paper's datasets.

    Raises:
        ValueError: If the paper has no such dataset.
    """
    if dataset not in PAPER:
        raise ValueError(f"dataset must be one of {', '.join(PAPER)} (got {dataset!r})")
    num_classes, frames, encoder_channels = PAPER[dataset]
    return {
        "in_channels": 512,
        "num_classes": num_classes,
        "grid": (frames, 7, 7),
        "positions_std": 1.0,
        "encoder_layers": 2,
        "encoder_channels": encoder_channels,
        "encoder_norm": "post",
        "encoder_dropout": 0.5,
        "conv": Operator(APPNP, K=2, alpha=0.1),
        "mode": "union",
        "relations": RELATIONS,
        "graph_norm": None,
        "graph_activation": None,
        "graph_dropout": 0.0,
        "graph_residual": False,
    }
