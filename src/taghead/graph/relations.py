"""Relations: edge types with the rules for their edges, and how a config file writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from taghead.graph.controls import RandomEdges, ShuffledEdges, no_edges
from taghead.graph.edges import (
    CustomEdges,
    EdgeRule,
    FeatureEdges,
    TimeEdges,
    WindowEdges,
    intra_frame_edges,
    time_aligned_edges,
)
from taghead.graph.motion import MotionEdges

NODE = "token"
NAME = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*")
EXPRESSION = re.compile(r"(\w+)(?:\(\s*(\w+)\s*=\s*(-?\d+)\s*\))?")


class Relation(tuple[str, str, str]):
    """An edge type as PyG writes one, ("token", name, "token"), with the rule for its edges.

    It equals, hashes and works as the plain tuple, so it can key a `HeteroData` or a `HeteroConv`.
    Two relations of one name are equal if their rules are.

    Args:
        name: The relation's name: letters, digits and single underscores. In a graph, no name may
            contain another's, since PyG finds a relation's modules by searching their names.
        edges: The edges on a given grid, `[2, E]`, sorted by target, then source.
        expression: How a config file writes the relation, if it can.

    Raises:
        ValueError: If the name does not serve.
    """

    edges: EdgeRule
    _expression: str | None

    def __new__(cls, name: str, edges: EdgeRule, expression: str | None = None) -> Relation:
        if not NAME.fullmatch(name) or name in NODE:
            raise ValueError(
                f"a relation's name must be of letters, digits and single underscores, begin with "
                f"a letter, and not be a part of {NODE!r} (got {name!r})"
            )
        relation = super().__new__(cls, (NODE, name, NODE))
        relation.edges = edges
        relation._expression = expression
        return relation

    def __getnewargs__(self) -> tuple[str, EdgeRule, str | None]:
        return self.name, self.edges, self._expression

    def __eq__(self, other: object) -> bool:
        same_name = super().__eq__(other)
        return same_name and self.edges == other.edges if isinstance(other, Relation) else same_name

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    @property
    def name(self) -> str:
        return self[1]

    @property
    def spoken(self) -> str:
        """The name, and the expression if it is another, for messages."""
        if self._expression in (None, self.name):
            return self.name
        return f"{self.name} or {self._expression}"

    @property
    def follows_features(self) -> bool:
        """Whether the edges differ from clip to clip."""
        return isinstance(self.edges, FeatureEdges)

    @property
    def expression(self) -> str:
        """How a config file writes the relation; `as_relation` reads it.

        Raises:
            ValueError: If its rule is a function, which no file can hold.
        """
        if self._expression is None:
            raise ValueError(
                f"relations: {self.name!r} has a rule of its own, which cannot be written to a file"
            )
        return self._expression


class _Family(NamedTuple):
    """Relations that differ by one integer."""

    argument: str
    default: int | None
    name: str
    rule: Callable[[int], EdgeRule]
    least: int = 1


# Numbers stand inside the names, so that none contains another's: reach 1 and reach 12.
_FAMILIES = {
    "time_aligned": _Family("reach", 1, "time_within_{}_frames", lambda r: TimeEdges(r, r)),
    "past": _Family("reach", 1, "earlier_within_{}_frames", lambda r: TimeEdges(r, 0)),
    "future": _Family("reach", 1, "later_within_{}_frames", lambda r: TimeEdges(0, r)),
    "spatial_window": _Family("radius", None, "window_of_{}_positions", WindowEdges),
    "motion_aligned": _Family("radius", 1, "best_match_within_{}_positions", MotionEdges),
    "shuffled_intra": _Family(
        "seed", 0, "shuffle_{}_of_intra", lambda s: ShuffledEdges(intra_frame_edges, s), 0
    ),
    "shuffled_time": _Family(
        "seed", 0, "shuffle_{}_of_time", lambda s: ShuffledEdges(time_aligned_edges, s), 0
    ),
    "random_intra": _Family(
        "seed", 0, "draw_{}_of_intra", lambda s: RandomEdges(intra_frame_edges, s), 0
    ),
    "random_time": _Family(
        "seed", 0, "draw_{}_of_time", lambda s: RandomEdges(time_aligned_edges, s), 0
    ),
}


def _member(family: str, number: int) -> Relation:
    argument, default, name, rule, least = _FAMILIES[family]
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        sort = "a positive integer" if least else "an integer of at least 0"
        raise ValueError(f"{family}: {argument} must be {sort} (got {number!r})")
    if number == default:
        return Relation(family, rule(number), family)
    return Relation(name.format(number), rule(number), f"{family}({argument}={number})")


def time_aligned(reach: int = 1) -> Relation:
    """The same position in the frames up to `reach` away, both directions."""
    return _member("time_aligned", reach)


def past(reach: int = 1) -> Relation:
    """From the same position in the frames up to `reach` earlier: what was acts on what is."""
    return _member("past", reach)


def future(reach: int = 1) -> Relation:
    """From the same position in the frames up to `reach` later."""
    return _member("future", reach)


def spatial_window(radius: int) -> Relation:
    """From the positions of the frame at most `radius` rows and columns away."""
    return _member("spatial_window", radius)


def motion_aligned(radius: int = 1) -> Relation:
    """From the tokens of the frames before and after that look most like it, in a window."""
    return _member("motion_aligned", radius)


def shuffled_intra(seed: int = 0) -> Relation:
    """The edges of `intra_frame` with their sources shuffled over all frames: a control."""
    return _member("shuffled_intra", seed)


def shuffled_time(seed: int = 0) -> Relation:
    """The edges of `time_aligned` with their sources shuffled: a control."""
    return _member("shuffled_time", seed)


def random_intra(seed: int = 0) -> Relation:
    """From as many random tokens of the clip as `intra_frame` has sources: a control."""
    return _member("random_intra", seed)


def random_time(seed: int = 0) -> Relation:
    """From as many random tokens of the clip as `time_aligned` has sources: a control."""
    return _member("random_time", seed)


def custom(name: str, function: EdgeRule) -> Relation:
    """Any edges. They run through PyG, and no config file can hold them.

    Args:
        name: The relation's name.
        function: From a grid to its edges: an int64 tensor `[2, E]`, source first, in any order.
            It is called once for every grid.

    Raises:
        ValueError: If the name is one of the package's; when edges are made, if they are not such.
    """
    if _known(name) is not None:
        raise ValueError(f"custom: name must not be one of the package's own (got {name!r})")
    return Relation(name, CustomEdges(name, function))


TimeAligned = time_aligned
INTRA_FRAME = Relation("intra_frame", intra_frame_edges, "intra_frame")
TIME_ALIGNED = Relation("time_aligned", time_aligned_edges, "time_aligned")
PAST = past()
FUTURE = future()
NO_EDGES = Relation("no_edges", no_edges, "no_edges")
RELATIONS = (INTRA_FRAME, TIME_ALIGNED)
_DEFAULTS = (_member(f, n.default) for f, n in _FAMILIES.items() if n.default is not None)
_PLAIN = {relation.name: relation for relation in (*_DEFAULTS, INTRA_FRAME, TIME_ALIGNED, NO_EDGES)}


def as_relation(relation: Relation | tuple[str, str, str] | str) -> Relation:
    """The relation that a name, an expression or a plain edge type stands for.

    Expressions are `intra_frame`, `time_aligned`, `past`, `future`, and with an argument
    `time_aligned(reach=2)`, `past(reach=2)`, `future(reach=2)`, `spatial_window(radius=1)`;
    `motion_aligned`, `motion_aligned(radius=2)`; and the controls `no_edges` and `shuffled_intra`,
    `shuffled_time`, `random_intra`, `random_time`, these also with a seed, as in
    `shuffled_intra(seed=1)`.

    Raises:
        ValueError: If there is no such relation or argument; the known ones are listed.
    """
    if isinstance(relation, Relation):
        return relation
    known = None
    if isinstance(relation, str):
        known = _known(relation) or _of_expression(relation)
    elif isinstance(relation, tuple) and len(relation) == 3 and relation[::2] == (NODE, NODE):
        known = _known(relation[1])
    if known is None:
        names = ", ".join([INTRA_FRAME.name, *map(_signature, _FAMILIES), NO_EDGES.name])
        raise ValueError(f"relation must be one of {names} (got {relation!r})")
    return known


def find(relations: Iterable[Relation], wanted: Relation | tuple[str, str, str] | str) -> Relation:
    """The one of some relations that a name, an expression or an edge type stands for.

    Raises:
        ValueError: If there is none such.
    """
    relations = tuple(relations)
    for known in relations:
        if wanted in (known, known.name, known._expression):
            return known
    names = ", ".join(known.spoken for known in relations)
    raise ValueError(f"relation must be one of {names} (got {wanted!r})")


def combine(relations: Iterable[Relation | tuple[str, str, str] | str]) -> tuple[Relation, ...]:
    """The relations of one graph.

    Raises:
        ValueError: If one's name contains another's; the message has both.
    """
    found = tuple(map(as_relation, relations))
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            if one.name in other.name or other.name in one.name:
                raise ValueError(
                    f"relations: no name may contain another's (got {one.name!r} and "
                    f"{other.name!r})"
                )
    return found


def _known(name: str) -> Relation | None:
    """The package's relation of a name."""
    if name in _PLAIN:
        return _PLAIN[name]
    for family, (_, _, pattern, _, least) in _FAMILIES.items():
        before, after = pattern.split("{}")
        match = re.fullmatch(f"{before}(0|[1-9][0-9]*){after}", name)
        if match and int(match[1]) >= least:
            member = _member(family, int(match[1]))
            return member if member.name == name else None
    return None


def _of_expression(text: str) -> Relation | None:
    match = EXPRESSION.fullmatch(text.strip())
    if not match or match[1] not in _FAMILIES:
        return _PLAIN.get(text.strip())
    family, argument, number = match.groups()
    expected, default = _FAMILIES[family][:2]
    if argument is None and default is None:
        raise ValueError(f"relation {family} needs its {expected}: {_signature(family)}")
    if argument not in (None, expected):
        raise ValueError(
            f"relation {family} has no argument {argument!r}; it has {_signature(family)}"
        )
    return _member(family, default if number is None else int(number))  # type: ignore[arg-type]


def _signature(family: str) -> str:
    argument, default = _FAMILIES[family][:2]
    return f"{family}({argument}={'R' if default is None else default})"
