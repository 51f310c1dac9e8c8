"""Conversion of feature maps to batches of PyG graphs, and back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.data.storage import BaseStorage

from taghead.graph.edge_index import any_dynamic, clip_edges, disjoint_union, typed_clip_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import RELATIONS, Relation, as_relations

ClipAttributes = dict[tuple[tuple[str, str, str] | None, str], Tensor]
"""Attributes that differ from clip to clip, `[B, ...]`, by their store's key and their name."""


def grid_of(feature_map: Tensor) -> Grid:
    """The grid of a feature map `[B, C, T, H, W]`.

    Raises:
        ValueError: If the tensor does not have five dimensions.
    """
    if feature_map.dim() != 5:
        shape = list(feature_map.shape)
        raise ValueError(f"feature_map must have the shape [B, C, T, H, W] (got {shape})")
    return Grid(*feature_map.shape[2:])


def to_tokens(feature_map: Tensor) -> Tensor:
    """`[B, C, T, H, W]` -> `[B, N, C]`, in the order of the grid's nodes."""
    return feature_map.flatten(2).transpose(1, 2)


def from_tokens(x: Tensor, grid: Grid) -> Tensor:
    """`[B, N, C]` -> `[B, C, T, H, W]`: the inverse of `to_tokens`."""
    return x.transpose(1, 2).unflatten(2, (grid.frames, grid.height, grid.width))


def to_data(feature_map: Tensor, relations: Iterable[Relation] = RELATIONS) -> Batch:
    """A batch of homogeneous graphs, one per clip, with all relations' edges and an `edge_type`.

    Equal, attribute by attribute, to `Batch.from_data_list` of the single clips' graphs, without
    a loop over them: `batch[i]`, `to_data_list()` and `num_graphs` work. Dynamic edges are computed
    from these features: pass the tokens that enter a head's graph to get the head's edges.

    Args:
        feature_map: A backbone's output.
        relations: The relations; `edge_type` is the index in this sequence.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`
        - **x** `[B*N, C]`, **pos** `[B*N, 3]` (t, y, x), **edge_index** `[2, B*E]`,
          **edge_type** `[B*E]`, **batch** `[B*N]`, **ptr** `[B+1]`
    """
    grid, x, relations = grid_of(feature_map), to_tokens(feature_map), tuple(relations)
    by_clip: ClipAttributes = {}
    if any_dynamic(relations):
        edge_index, edge_type = typed_clip_edges(x, grid, relations)
        by_clip = {(None, "edge_index"): edge_index, (None, "edge_type"): edge_type}
        edge_index, edge_type = edge_index[0], edge_type[0]
    else:
        edge_index, edge_type = (e.to(x.device) for e in grid.typed_edges(relations))
    graph = Data(
        x=x[0], edge_index=edge_index, pos=grid.positions().to(feature_map), edge_type=edge_type
    )
    return _repeat(graph, x, by_clip)


def to_hetero_data(feature_map: Tensor, relations: Iterable[Relation] = RELATIONS) -> Batch:
    """A batch of heterogeneous graphs, one per clip: node type `token`, an edge type per relation.

    Equal, attribute by attribute, to `Batch.from_data_list` of the single clips' graphs, without
    a loop over them. Dynamic edges are computed as in `to_data`.

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
    grid, x = grid_of(feature_map), to_tokens(feature_map)
    graph, by_clip = HeteroData(), ClipAttributes()
    graph["token"].x = x[0]
    graph["token"].pos = grid.positions().to(feature_map)
    for relation in as_relations(relations):
        edges = clip_edges(x, grid, relation)
        graph[relation].edge_index = edges[0]
        if relation.is_dynamic:
            by_clip[relation, "edge_index"] = edges  # it equals the plain edge type
    return _repeat(graph, x, by_clip)


def to_feature_map(graphs: Data | HeteroData, grid: Grid | None = None) -> Tensor:
    """The feature map of a graph or of a batch of graphs: the inverse of both conversions.

    Args:
        graphs: The output of `to_data` or `to_hetero_data`; its `x` may have been replaced.
        grid: The grid of one clip; taken from `pos` when it is not given.

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


def _repeat(graph: Data | HeteroData, x: Tensor, by_clip: ClipAttributes) -> Batch:
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
            values = x if name == "x" else by_clip.get((single._key, name))
            if values is None:
                values = value.expand(num_graphs, *value.shape)
            store[name], slices_of[name], increments_of[name] = _attribute(
                graph, single, name, values, num_nodes
            )
        if "x" in single:
            store.batch = torch.arange(num_graphs, device=x.device).repeat_interleave(num_nodes)
            store.ptr = torch.arange(num_graphs + 1, device=x.device) * num_nodes
    batch._num_graphs, batch._slice_dict, batch._inc_dict = num_graphs, slices, increments
    return batch


def _attribute(
    graph: Data | HeteroData, store: BaseStorage, name: str, values: Tensor, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One attribute of all clips, with the slices and increments that separate the clips."""
    num_graphs = len(values)
    size = values[0].size(graph.__cat_dim__(name, values[0], store))
    slices = torch.arange(num_graphs + 1) * size
    if name == "edge_index":
        offsets = torch.arange(num_graphs).view(-1, 1, 1) * num_nodes
        is_hetero = store._key is not None
        increments = offsets.expand(-1, 2, 1) if is_hetero else offsets.flatten()
        return disjoint_union(values, num_nodes), slices, increments
    return values.flatten(0, 1), slices, torch.zeros(num_graphs, dtype=torch.long)
