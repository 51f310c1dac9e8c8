"""The part of a head's attention that is drawn: layer, attention head, relation and edges."""

from __future__ import annotations

from dataclasses import dataclass, replace

from taghead.graph.relations import find_relation
from taghead.nn.head import TAGHead

PICTURE_FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class Selection:
    """The part of a head's attention that is drawn.

    Args:
        layer: The layer; all layers if None.
        head: The attention head; the mean over heads if None.
        relation: The relation, by its name; all if None.
        edges: Number of edges of each relation.
        formats: The suffixes of the picture files.
    """

    layer: int | None = None
    head: int | None = None
    relation: str | None = None
    edges: int = 12
    formats: tuple[str, ...] = ("png", "pdf")

    def checked(self, head: TAGHead) -> Selection:
        """The selection for a head, with the relation by its name.

        Raises:
            ValueError: If an argument breaks its rule or the head has no such part.
        """
        if not isinstance(self.edges, int) or self.edges < 1:
            raise ValueError(f"edges must be a positive integer (got {self.edges})")
        unknown = [name for name in self.formats if name not in PICTURE_FORMATS]
        if unknown:
            raise ValueError(
                f"formats must be of {', '.join(PICTURE_FORMATS)} (got {unknown[0]!r})"
            )
        chosen = {"layer": self.layer, "head": self.head, "relation": self.relation}
        given = {name: value for name, value in chosen.items() if value is not None}
        if given and not len(head.layers):
            name, value = next(iter(given.items()))
            raise ValueError(f"{name}: the model has no message-passing layer (got {value!r})")
        if self.layer is not None and not 0 <= self.layer < len(head.layers):
            raise ValueError(f"layer must be from 0 to {len(head.layers) - 1} (got {self.layer})")
        heads = max((getattr(part, "heads", 1) for part in head.layers.modules()), default=1)
        if self.head is not None and not 0 <= self.head < heads:
            raise ValueError(f"head must be from 0 to {heads - 1} (got {self.head})")
        if self.relation is None:
            return self
        return replace(self, relation=find_relation(head.relations, self.relation).name)
