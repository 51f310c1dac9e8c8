"""Positions: learnable 3D encodings, and encodings of the graph, that are added to the tokens.

One of your own is a module `Positions(channels, grid, ...)` with `forward(x, grid)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE
from torch_geometric.utils import coalesce, to_undirected

from taghead.components import Component
from taghead.errors import check_choices, check_counts
from taghead.graph.convert import to_tokens
from taghead.graph.edge_index import any_dynamic
from taghead.graph.grid import Grid
from taghead.graph.relations import Relation


class PositionalEncoding(nn.Module):
    """A learnable 3D positional encoding, added to the tokens.

    Resized by trilinear interpolation for tokens of another grid.

    Args:
        channels: Width of every token.
        grid: The grid of its parameters.
        kind: `full`, a vector for every node as in the paper, or `factorised`, the sum of one for
            the frame, one for the row and one for the column.
        std: Standard deviation of the initial values; the paper's is 1.

    Shapes:
        - **x** `[B, N, channels]`
        - **output** `[B, N, channels]`
    """

    def __init__(
        self,
        channels: int,
        grid: Grid,
        kind: Literal["full", "factorised"] = "full",
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if kind not in ("full", "factorised"):
            raise ValueError(f"positions must be full or factorised (got {kind!r})")
        # the axes (t, h, w) over which each table varies; it is broadcast over the others
        self.axes = [(0, 1, 2)] if kind == "full" else [(0,), (1,), (2,)]
        self.shapes = [_shape(grid, axes) for axes in self.axes]
        self.tables = nn.ParameterList(
            nn.Parameter(torch.randn(1, prod(shape), channels) * std) for shape in self.shapes
        )

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        volumes = []  # each [1, C, T or 1, H or 1, W or 1]
        for table, axes, shape in zip(self.tables, self.axes, self.shapes, strict=True):
            volume = table.transpose(1, 2).unflatten(2, shape)
            wanted = _shape(grid, axes)
            if wanted != shape:
                volume = F.interpolate(volume, size=wanted, mode="trilinear")
            volumes.append(volume)
        encoding = torch.broadcast_tensors(*volumes)
        return x + to_tokens(torch.stack(encoding).sum(0))


class GraphEncoding(nn.Module):
    """An encoding of each token's role in the graph, through a linear layer, added to the tokens.

    It is that of PyG's `AddLaplacianEigenvectorPE` or `AddRandomWalkPE` on the union of the
    relations, computed once and saved with the weights. Resized by trilinear interpolation for
    tokens of another grid.

    Args:
        channels: Width of every token.
        grid: The grid of the encoding.
        relations: The relations; none may have edges that are computed from features.
        kind: `laplacian`, eigenvectors of the normalised Laplacian, edges in both directions, whose
            signs are drawn anew at each training step; or `random_walk`, the probabilities that a
            random walk is back after 1 to `size` steps.
        size: The number of eigenvectors, without the constant one, or of steps.

    Shapes:
        - **x** `[B, N, channels]`
        - **output** `[B, N, channels]`

    Raises:
        ValueError: If the grid has too few nodes, or edges are computed from features.
    """

    encoding: Tensor

    def __init__(
        self,
        channels: int,
        grid: Grid,
        relations: Sequence[Relation],
        kind: Literal["laplacian", "random_walk"] = "laplacian",
        size: int = 8,
    ) -> None:
        super().__init__()
        check_choices(kind=(kind, ("laplacian", "random_walk")))
        check_counts(size=size)
        if any_dynamic(relations):
            names = ", ".join(relation.name for relation in relations if relation.is_dynamic)
            raise ValueError(f"positions {kind}: edges of {names} follow features, not the grid")
        if kind == "laplacian" and size > grid.num_nodes - 2:
            raise ValueError(
                f"positions laplacian: size must be at most {grid.num_nodes - 2}, the nodes of "
                f"{grid} less 2 (got {size})"
            )
        self.kind = kind
        self.shape = (grid.frames, grid.height, grid.width)
        with torch.device("cpu"):  # edges are cached, also where a model is built without memory
            encoding = _graph_encoding(grid, relations, kind, size)
        self.register_buffer("encoding", encoding)
        self.lin = nn.Linear(size, channels, bias=False)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        found, wanted = self.encoding, (grid.frames, grid.height, grid.width)
        if self.training and self.kind == "laplacian":
            found = found * (2.0 * torch.rand_like(found[0]).round() - 1.0)
        if wanted != self.shape:
            volume = found.t().unflatten(1, self.shape).unsqueeze(0)
            found = to_tokens(F.interpolate(volume, size=wanted, mode="trilinear"))[0]
        return x + self.lin(found)


def _graph_encoding(grid: Grid, relations: Sequence[Relation], kind: str, size: int) -> Tensor:
    """PyG's encoding of each node, `[N, size]`; eigenvectors are scaled to a mean square of 1."""
    edge_index = coalesce(grid.typed_edges(relations)[0], num_nodes=grid.num_nodes)
    data = Data(edge_index=edge_index, num_nodes=grid.num_nodes)
    if kind == "random_walk":
        return AddRandomWalkPE(size, "encoding")(data).encoding
    data.edge_index = to_undirected(edge_index, num_nodes=grid.num_nodes)
    start = np.random.RandomState(0).standard_normal(grid.num_nodes)  # else a random one
    with torch.random.fork_rng(devices=[]):  # PyG draws signs
        torch.manual_seed(0)
        transform = AddLaplacianEigenvectorPE(size, "encoding", is_undirected=True, v0=start)
        found = transform(data).encoding.float()
    return found * grid.num_nodes**0.5


POSITIONS = {
    **{
        kind: Component(PositionalEncoding, {}, kind, {"kind": kind})
        for kind in ("full", "factorised")
    },
    **{
        kind: Component(GraphEncoding, {}, kind, {"kind": kind})
        for kind in ("laplacian", "random_walk")
    },
}
"""The positions by name."""


def _shape(grid: Grid, axes: tuple[int, ...]) -> tuple[int, int, int]:
    """The grid's (T, H, W) with 1 for all other axes."""
    sizes = (grid.frames, grid.height, grid.width)
    t, h, w = (size if axis in axes else 1 for axis, size in enumerate(sizes))
    return t, h, w
