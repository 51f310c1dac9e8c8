"""The regular space-time grid of video tokens, and the typed edges between them.

Everything here is a pure function of sizes: no feature, no parameter, no state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

EdgeRule = Callable[["Grid"], Tensor]
"""Edges of one relation on a grid: `[2, E]` (source, target), sorted by target, then source."""


@dataclass(frozen=True)
class Grid:
    r"""A regular grid of tokens, `frames` x `height` x `width`.

    Node :math:`(t \cdot H + h) \cdot W + w` is the token of frame :math:`t`, row :math:`h` and
    column :math:`w`: the order in which a feature map `[C, T, H, W]` is flattened.

    Args:
        frames: Number of frames T.
        height: Number of rows H.
        width: Number of columns W.

    Raises:
        ValueError: If a size is not a positive integer.
    """

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for name in ("frames", "height", "width"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be a positive integer (got {size!r})")

    @property
    def num_positions(self) -> int:
        """Positions of one frame: P = H*W."""
        return self.height * self.width

    @property
    def num_nodes(self) -> int:
        """Tokens in all: N = T*H*W."""
        return self.frames * self.num_positions

    def positions(self) -> Tensor:
        """The (t, y, x) of every node.

        Shapes:
            - **output** `[N, 3]`, int64
        """
        axes = (torch.arange(size) for size in (self.frames, self.height, self.width))
        return torch.cartesian_prod(*axes)

    def edge_index(self, relation: Relation | tuple[str, str, str] | str) -> Tensor:
        """The edges of one relation.

        Shapes:
            - **output** `[2, E]`, int64, sorted by target, then source
        """
        return as_relation(relation).edges(self)

    def typed_edges(
        self, relations: Iterable[Relation | tuple[str, str, str] | str]
    ) -> tuple[Tensor, Tensor]:
        """The union of several relations' edges; an edge's type is its relation's place.

        Shapes:
            - **edge_index** `[2, E]`, int64, sorted by target, then source
            - **edge_type** `[E]`, int64
        """
        parts = [self.edge_index(relation) for relation in relations]
        if not parts:
            return torch.empty(2, 0, dtype=torch.long), torch.empty(0, dtype=torch.long)
        keys = [
            (target * self.num_nodes + source) * len(parts) + edge_type
            for edge_type, (source, target) in enumerate(parts)
        ]
        key = torch.cat(keys).sort().values
        edge, edge_type = key // len(parts), key % len(parts)
        return torch.stack([edge % self.num_nodes, edge // self.num_nodes]), edge_type


def intra_frame_edges(grid: Grid) -> Tensor:
    """Every ordered pair of distinct positions of a frame: T*P*(P-1) edges.

    Shapes:
        - **output** `[2, T*P*(P-1)]`, sorted by target, then source
    """
    num_positions = grid.num_positions
    others = torch.arange(num_positions - 1)
    # [P, P-1]: row p holds all positions but p
    neighbours = others + (others >= torch.arange(num_positions).view(-1, 1)).long()
    first = torch.arange(grid.frames).view(-1, 1, 1) * num_positions  # each frame's first node
    source = (first + neighbours).flatten()
    target = torch.arange(grid.num_nodes).repeat_interleave(num_positions - 1)
    return torch.stack([source, target])


def time_aligned_edges(grid: Grid) -> Tensor:
    """The same position in adjacent frames, both directions: 2*(T-1)*P edges.

    Shapes:
        - **output** `[2, 2*(T-1)*P]`, sorted by target, then source
    """
    target = torch.arange(grid.num_nodes).view(-1, 1).expand(-1, 2)
    source = target + torch.tensor([-1, 1]) * grid.num_positions
    inside = (source >= 0) & (source < grid.num_nodes)
    return torch.stack([source[inside], target[inside]])


class Relation(tuple[str, str, str]):
    """An edge type as PyG writes one, ("token", name, "token"), with the rule for its edges.

    It equals, hashes and works as the plain tuple, so it can key a `HeteroData` or a `HeteroConv`.

    Args:
        name: The relation's name; no relation's name may contain another's, since PyG finds a
            relation's modules by searching their names.
        edges: The edges on a given grid, `[2, E]`, sorted by target, then source.
    """

    edges: EdgeRule

    def __new__(cls, name: str, edges: EdgeRule) -> Relation:
        relation = super().__new__(cls, ("token", name, "token"))
        relation.edges = edges
        return relation

    def __getnewargs__(self) -> tuple[str, EdgeRule]:
        return self.name, self.edges

    def __eq__(self, other: object) -> bool:
        same_name = super().__eq__(other)
        return same_name and self.edges == other.edges if isinstance(other, Relation) else same_name

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    @property
    def name(self) -> str:
        return self[1]


INTRA_FRAME = Relation("intra_frame", intra_frame_edges)
TIME_ALIGNED = Relation("time_aligned", time_aligned_edges)
RELATIONS = (INTRA_FRAME, TIME_ALIGNED)


def as_relation(relation: Relation | tuple[str, str, str] | str) -> Relation:
    """The relation that a name or a plain edge type stands for.

    Raises:
        ValueError: If there is no such relation; the known ones are listed.
    """
    if isinstance(relation, Relation):
        return relation
    for known in RELATIONS:
        if relation in (known.name, tuple(known)):
            return known
    names = ", ".join(known.name for known in RELATIONS)
    raise ValueError(f"relation must be one of {names} (got {relation!r})")
