"""Feature maps as PyG graphs, a whole batch at once, and back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.data.storage import BaseStorage

from taghead.grid import RELATIONS, Grid, Relation, combine


def grid_of(feature_map: Tensor) -> Grid:
    """The grid of a feature map `[B, C, T, H, W]`.

    Raises:
        ValueError: If the tensor has not five dimensions.
    """
    if feature_map.dim() != 5:
        shape = list(feature_map.shape)
        raise ValueError(f"feature_map must have the shape [B, C, T, H, W] (got {shape})")
    return Grid(*feature_map.shape[2:])


def to_tokens(feature_map: Tensor) -> Tensor:
    """`[B, C, T, H, W]` -> `[B, N, C]`, in the order of the grid's nodes."""
    return feature_map.flatten(2).transpose(1, 2)


def from_tokens(x: Tensor, grid: Grid) -> Tensor:
    """`[B, N, C]` -> `[B, C, T, H, W]`: the way back from `to_tokens`."""
    return x.transpose(1, 2).unflatten(2, (grid.frames, grid.height, grid.width))


def to_data(feature_map: Tensor, relations: Iterable[Relation] = RELATIONS) -> Batch:
    """A batch of homogeneous graphs, one per clip, the relations joined and told by `edge_type`.

    Equal, attribute by attribute, to `Batch.from_data_list` of the single clips' graphs, without
    a loop over them: `batch[i]`, `to_data_list()` and `num_graphs` work.

    Args:
        feature_map: A backbone's output.
        relations: The edge sets; `edge_type` is the place in this sequence.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`
        - **x** `[B*N, C]`, **pos** `[B*N, 3]` (t, y, x), **edge_index** `[2, B*E]`,
          **edge_type** `[B*E]`, **batch** `[B*N]`, **ptr** `[B+1]`
    """
    grid, device = grid_of(feature_map), feature_map.device
    edge_index, edge_type = grid.typed_edges(relations)
    graph = Data(
        x=to_tokens(feature_map[:1])[0],
        edge_index=edge_index.to(device),
        pos=grid.positions().to(feature_map),
        edge_type=edge_type.to(device),
    )
    return _repeat(graph, to_tokens(feature_map))


def to_hetero_data(feature_map: Tensor, relations: Iterable[Relation] = RELATIONS) -> Batch:
    """A batch of heterogeneous graphs, one per clip: node type `token`, an edge type per relation.

    Equal, attribute by attribute, to `Batch.from_data_list` of the single clips' graphs, without
    a loop over them.

    Args:
        feature_map: A backbone's output.
        relations: The edge types.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`
        - **batch["token"].x** `[B*N, C]`, **batch["token"].pos** `[B*N, 3]` (t, y, x)
        - **batch[relation].edge_index** `[2, B*E]`

    Raises:
        ValueError: If one relation's name contains another's.
    """
    grid, device = grid_of(feature_map), feature_map.device
    graph = HeteroData()
    graph["token"].x = to_tokens(feature_map[:1])[0]
    graph["token"].pos = grid.positions().to(feature_map)
    for relation in combine(relations):
        graph[relation].edge_index = grid.edge_index(relation).to(device)
    return _repeat(graph, to_tokens(feature_map))


def to_feature_map(graphs: Data | HeteroData, grid: Grid | None = None) -> Tensor:
    """The feature map of a graph or of a batch of graphs: the way back.

    Args:
        graphs: What `to_data` or `to_hetero_data` made, perhaps with another `x`.
        grid: The grid of one clip; read off `pos` when it is not given.

    Shapes:
        - **output** `[B, C, T, H, W]`

    Raises:
        ValueError: If the number of tokens is not a multiple of the grid's.
    """
    tokens = graphs["token"] if isinstance(graphs, HeteroData) else graphs
    grid = grid or Grid(*(int(size) + 1 for size in tokens.pos.amax(dim=0)))
    num_tokens, channels = tokens.x.shape
    if num_tokens % grid.num_nodes:
        raise ValueError(f"x must hold a multiple of {grid.num_nodes} tokens (got {num_tokens})")
    return from_tokens(tokens.x.view(-1, grid.num_nodes, channels), grid)


def repeat_edges(edge_index: Tensor, num_graphs: int, num_nodes: int) -> Tensor:
    """The edges of `num_graphs` disjoint copies of a graph, copy after copy.

    Shapes:
        - **edge_index** `[2, E]`
        - **output** `[2, num_graphs*E]`
    """
    offset = torch.arange(num_graphs, device=edge_index.device).view(1, -1, 1) * num_nodes
    return (edge_index.unsqueeze(1) + offset).flatten(1)


def _repeat(graph: Data | HeteroData, x: Tensor) -> Batch:
    """Copies of one graph with the features x `[B, N, C]`, as PyG's collate would batch them."""
    num_graphs, num_nodes, _ = x.shape
    batch = Batch(_base_cls=type(graph)).stores_as(graph)
    slices: dict = {}
    increments: dict = {}
    for single, store in zip(graph.stores, batch.stores, strict=True):
        slices_of, increments_of = (
            table if single._key is None else table.setdefault(single._key, {})
            for table in (slices, increments)
        )
        for name, value in single.items():
            store[name], slices_of[name], increments_of[name] = _repeat_attribute(
                graph, single, name, value, x
            )
        if "x" in single:
            store.batch = torch.arange(num_graphs, device=x.device).repeat_interleave(num_nodes)
            store.ptr = torch.arange(num_graphs + 1, device=x.device) * num_nodes
    batch._num_graphs, batch._slice_dict, batch._inc_dict = num_graphs, slices, increments
    return batch


def _repeat_attribute(
    graph: Data | HeteroData, store: BaseStorage, name: str, value: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One attribute for all copies, with the slices and increments that take it apart again."""
    num_graphs, num_nodes, _ = x.shape
    size = value.size(graph.__cat_dim__(name, value, store))
    slices = torch.arange(num_graphs + 1) * size
    if name == "edge_index":
        edges = repeat_edges(value, num_graphs, num_nodes)
        offsets = torch.arange(num_graphs).view(-1, 1, 1) * num_nodes
        is_hetero = store._key is not None
        return edges, slices, offsets.expand(-1, 2, 1) if is_hetero else offsets.flatten()
    values = x.flatten(0, 1) if name == "x" else value.repeat(num_graphs, *[1] * (value.dim() - 1))
    return values, slices, torch.zeros(num_graphs, dtype=torch.long)
