"""A feature cache as a PyG dataset: the tokens of each clip are a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset, HeteroData

from taghead.data.annotations import Clip, Split
from taghead.errors import check_choices
from taghead.features.cache import FeatureCache
from taghead.graph.convert import to_tokens
from taghead.graph.edge_index import any_dynamic, clip_edges, typed_clip_edges
from taghead.graph.grid import Grid
from taghead.graph.relations import RELATIONS, RelationLike, as_relations


class TokenGraphs(Dataset):
    """A split of a feature cache as a PyG dataset on disk: one graph a clip.

    A graph is read when it is asked for. Edges of fixed relations depend on the grid alone: they
    are built once, and all graphs share them. It is used as any dataset of PyG, with its loaders,
    transforms, slices and GraphGym::

        train = TokenGraphs("data/features", "train")
        for batch in DataLoader(train, batch_size=8, shuffle=True): ...

    Args:
        cache: A feature cache, or its folder (`taghead extract` writes it).
        split: `train`, `val` or `test`.
        relations: The relations; `edge_type` is the index in this sequence.
        hetero: Whether graphs are `HeteroData`, with the node type `token` and an edge type for
            each relation.
        transform: Applied to each graph when it is read.
        random_view: Whether a graph is of a random view of its clip, as in training; otherwise it
            is of the first, that of a test.

    Attributes:
        grid: The grid of the tokens.
        class_names: The classes, by number.

    Shapes:
        - **x** `[N, C]`, **pos** `[N, 3]` (t, y, x), **edge_index** `[2, E]`, **edge_type** `[E]`
        - **y** `[1]`, the class's number; **clip**, the clip's path, and its segment if it has one

    Raises:
        ValueError: If the cache has no such split, or there is no such relation.
        DataError: If the folder holds no finished cache; when a graph is read, if its file is
            damaged.
    """

    def __init__(
        self,
        cache: FeatureCache | str | Path,
        split: Split = "train",
        relations: Iterable[RelationLike] = RELATIONS,
        *,
        hetero: bool = False,
        transform: Callable | None = None,
        random_view: bool = False,
    ) -> None:
        super().__init__(transform=transform)
        self.cache = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
        check_choices(split=(split, tuple(self.cache.splits)))
        self.split = split
        self.relations = as_relations(relations)
        self.hetero = hetero
        self.random_view = random_view
        self.class_names = list(self.cache.spec.class_names)
        self.grid = Grid(*self.cache.spec.feature_shape[1:])
        self._pos = self.grid.positions().float()
        self._edges = None if any_dynamic(self.relations) else self._edges_of(None)

    def len(self) -> int:
        return len(self.cache.splits[self.split])

    def get(self, idx: int) -> Data | HeteroData:
        part = self.cache.splits[self.split]
        view = int(torch.randint(part.num_views, ())) if self.random_view else 0
        # [1, N, C]
        x = to_tokens(part.views(idx, slice(view, view + 1))).float()
        graph = self._graph(x[0].contiguous(), self._edges or self._edges_of(x))
        graph.y = torch.tensor([part.clips[idx].label])
        graph.clip = part.clips[idx].id
        return graph

    def _graph(self, x: Tensor, edges: dict[str, Tensor]) -> Data | HeteroData:
        if not self.hetero:
            return Data(x=x, pos=self._pos, **edges)
        graph = HeteroData()
        graph["token"].x, graph["token"].pos = x, self._pos
        for relation in self.relations:
            graph[relation].edge_index = edges[relation.name]
        return graph

    def _edges_of(self, x: Tensor | None) -> dict[str, Tensor]:
        """The edges of a graph with the tokens `[1, N, C]`; of any graph where none is given."""
        x = torch.empty(1, self.grid.num_nodes, 0) if x is None else x
        if self.hetero:
            return {r.name: clip_edges(x, self.grid, r)[0] for r in self.relations}
        edge_index, edge_type = typed_clip_edges(x, self.grid, self.relations)
        return {"edge_index": edge_index[0], "edge_type": edge_type[0]}

    @property
    def clips(self) -> list[Clip]:
        """The clips of the graphs, in their order."""
        clips = self.cache.splits[self.split].clips
        return [clips[i] for i in self.indices()]

    @property
    def labels(self) -> Tensor:
        """The class numbers of all graphs, `[len(self)]`; no graph is read."""
        return torch.tensor([clip.label for clip in self.clips], dtype=torch.long)

    @property
    def class_weights(self) -> Tensor:
        """Weights of a loss in which all classes of these graphs count the same, `[num_classes]`.

        The mean over the graphs is 1; a class without a graph has weight 0.
        """
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        present = counts > 0
        weights = len(self) / (present.sum() * counts.clamp(min=1))
        return weights.where(present, 0.0)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_relations(self) -> int:
        """The number of edge types."""
        return len(self.relations)

    @property
    def num_node_features(self) -> int:
        return self.cache.spec.feature_shape[0]
