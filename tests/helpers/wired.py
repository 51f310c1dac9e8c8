"""A head whose graph is one edge that counts, and settings that explainers share."""

from typing import Any

import torch
import torch_geometric.nn as pyg
from heads import GRID, OPERATORS, TYPED, make_head
from torch import Tensor

from taghead import Grid, TAGHead
from taghead.graph import (
    Relation,
    custom,
    from_tokens,
)

SETTINGS = [
    ("per_relation", OPERATORS["GATv2Conv"]),
    ("union", OPERATORS["GATv2Conv"]),
    ("union", OPERATORS["TransformerConv"]),
    ("edge_type", TYPED["RGATConv"]),
    ("edge_type", TYPED["HGTConv"]),
]


def wired_head() -> tuple[TAGHead, Relation]:
    """A head without parameters in its graph: a token shows what the one before it sends."""

    def ring(grid: Grid) -> Tensor:
        nodes = torch.arange(grid.num_nodes)
        return torch.stack([nodes, nodes.roll(-1)])

    relation = custom("ring", ring)
    head = make_head(
        relations=(relation,),
        conv=pyg.SimpleConv,
        mode="union",
        encoder_layers=0,
        graph_norm=None,
        graph_activation=None,
        graph_residual=False,
    )
    torch.nn.init.zeros_(head.positions.tables[0])
    head.classifier[0] = torch.nn.Identity()  # a LayerNorm would undo any factor on one message
    return head, relation


def wired_map() -> Tensor:
    """Features at one token alone, so that one edge of the ring carries all there is."""
    x = torch.zeros(1, GRID.num_nodes, 8, dtype=torch.float64)
    x[0, 3] = 40 * torch.randn(8, dtype=torch.float64)
    return from_tokens(x, GRID)


def wired_edge(relation: Relation) -> int:
    source, _ = GRID.edge_index(relation)
    (edge,) = (source == 3).nonzero().flatten()
    return int(edge)


EXPLAIN: dict[str, Any] = {
    "explanation_type": "model",
    "edge_mask_type": "object",
    "model_config": {
        "mode": "multiclass_classification",
        "task_level": "graph",
        "return_type": "raw",
    },
}
