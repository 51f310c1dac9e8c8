"""What operators for typed graphs ask for beside x and edges, as a graph of tokens has it."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import HEATConv, HGTConv, MessagePassing

from taghead.graph.relations import NODE


def takes_edge_types(conv: MessagePassing) -> bool:
    """Whether an operator is told each edge's relation."""
    return isinstance(conv, HGTConv) or "edge_type" in inspect.signature(conv.forward).parameters


def typed_inputs(conv: MessagePassing, x: Tensor, available: dict[str, Any]) -> dict[str, Any]:
    """Further arguments for an operator, made from those that every operator can have.

    HGTConv gets dictionaries; the i-th relation is the i-th edge type of its `metadata`. HEATConv
    gets tokens of one type, and as features of an edge the way (t, y, x) from target to source.

    Raises:
        ValueError: If HGTConv's metadata has too few edge types.
    """
    edge_index, edge_type = available.get("edge_index"), available.get("edge_type")
    if isinstance(conv, HGTConv) and edge_index is not None and edge_type is not None:
        num_types = int(edge_type.max()) + 1 if edge_type.numel() else 0
        if num_types > len(conv.edge_types):
            raise ValueError(
                f"HGTConv: metadata must have an edge type for each relation, {num_types} "
                f"(got {len(conv.edge_types)})"
            )
        edges = {key: edge_index[:, edge_type == i] for i, key in enumerate(conv.edge_types)}
        return {"x_dict": {NODE: x}, "edge_index_dict": edges}
    if isinstance(conv, HEATConv):
        extra: dict[str, Any] = {"node_type": x.new_zeros(x.size(0), dtype=torch.long)}
        if "edge_attr" not in available and "pos" in available:
            source, target = available["edge_index"]
            extra["edge_attr"] = (available["pos"][source] - available["pos"][target]).to(x)
        return extra
    return {}
