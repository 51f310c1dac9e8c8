"""Small heads: in every mode, and with every attentive operator."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor

from taghead import Grid, TAGHead
from taghead.graph import RELATIONS

WIDTH = 8
GRID = Grid(3, 2, 2)
METADATA = (["token"], [tuple(relation) for relation in RELATIONS])
HEAT = {"num_node_types": 1, "num_edge_types": 2, "edge_type_emb_dim": 3, "edge_dim": 3}
OPERATORS: dict[str, Callable[..., Any]] = {
    "GATConv": partial(pyg.GATConv, heads=2, concat=False),
    "GATv2Conv": partial(pyg.GATv2Conv, heads=2, concat=False),
    "TransformerConv": partial(pyg.TransformerConv, heads=2, concat=False),
    "SuperGATConv": partial(pyg.SuperGATConv, heads=2, concat=False, attention_type="SD"),
    "AGNNConv": pyg.AGNNConv,
    "FAConv": pyg.FAConv,
}
TYPED: dict[str, Callable[..., Any]] = {
    "RGATConv": partial(pyg.RGATConv, num_relations=2, heads=2),
    "HGTConv": partial(pyg.HGTConv, metadata=METADATA, heads=2),
    "HEATConv": partial(pyg.HEATConv, edge_attr_emb_dim=3, heads=2, **HEAT),
}


MODES: list[tuple[str, Callable[..., Any] | None]] = [
    ("per_relation", partial(pyg.GATv2Conv, heads=2)),
    ("per_relation", pyg.SAGEConv),
    ("union", partial(pyg.APPNP, K=2, alpha=0.1)),
    ("union", pyg.GINConv),
    ("edge_type", partial(pyg.RGCNConv, num_relations=3)),
    ("none", None),
]
OTHERS = ("intra_frame", "past_1f", "future_1f")


def small_head(**options: Any) -> TAGHead:
    """A head in single precision on the default relations."""
    defaults = {"encoder_heads": 2, "encoder_channels": 16, "encoder_layers": 1}
    return TAGHead(WIDTH, 5, GRID, **{**defaults, **options}).eval()


def make_head(grid: Grid = GRID, dtype: torch.dtype = torch.float64, **options: Any) -> TAGHead:
    """A head on the paper's relations."""
    defaults = {
        "encoder_heads": 2,
        "encoder_channels": 16,
        "encoder_layers": 1,
        "relations": RELATIONS,
    }
    head = TAGHead(WIDTH, 5, grid, **{**defaults, **options})
    for name, parameter in head.named_parameters():
        if name.endswith("l2"):  # RGATConv leaves it uninitialised
            torch.nn.init.constant_(parameter, 0.3)
    return head.to(dtype).eval()


def make_map(num_clips: int = 2, grid: Grid = GRID, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = (num_clips, WIDTH, grid.frames, grid.height, grid.width)
    return torch.randn(shape, dtype=dtype)
