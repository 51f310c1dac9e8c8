"""Relations: edge types, each with one name and the rule for its edges.

The table `KINDS` collects the rows of the modules that define rules; all names come from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from torch import Tensor

from taghead.class_paths import Spec
from taghead.graph.baselines import KINDS as BASELINES
from taghead.graph.edges import KINDS as FIXED
from taghead.graph.edges import CustomEdges, DynamicEdges, EdgeRule, RelationKind
from taghead.graph.learned import LearnedEdges, UnbuiltEdges
from taghead.graph.motion import KINDS as DYNAMIC
from taghead.graph.own_rules import OwnRule, find_rule

NODE = "token"
NAME = re.compile(r"[A-Za-z](_?[A-Za-z0-9])*")
CALL = re.compile(r"(\w+)(?:\(\s*(\w+)\s*=\s*(-?\d+)\s*\))?")  # past or past(reach=3)
OWN_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
KINDS = (*FIXED, *DYNAMIC, *BASELINES)
"""The package's relations, a row for each kind."""


class Relation(tuple[str, str, str]):
    """An edge type as PyG writes one, ("token", name, "token"), with the rule for its edges.

    It equals and hashes like the plain tuple, so it can key a `HeteroData` or a `HeteroConv`. Two
    relations of the same name are equal if their rules are.

    Args:
        name: The relation's name: letters, digits and single underscores. In a graph, no name may
            contain another's, since PyG finds a relation's modules by searching their names.
        edges: The edges on a given grid, `[2, E]`, sorted by target, then source.
        own: The class or function of your own that `edges` come from, where a file can hold it.

    Raises:
        ValueError: If the name breaks this rule.
    """

    edges: EdgeRule
    own: OwnRule | None

    def __new__(cls, name: str, edges: EdgeRule, own: OwnRule | None = None) -> Relation:
        if not NAME.fullmatch(name) or name in NODE:
            raise ValueError(
                f"a relation's name must be of letters, digits and single underscores, begin with "
                f"a letter, and not be a part of {NODE!r} (got {name!r})"
            )
        relation = super().__new__(cls, (NODE, name, NODE))
        relation.edges = edges
        relation.own = own
        return relation

    def __getnewargs__(self) -> tuple[str, EdgeRule, OwnRule | None]:
        return self.name, self.edges, self.own

    def __eq__(self, other: object) -> bool:
        same_name = super().__eq__(other)
        if not isinstance(other, Relation) or not same_name:
            return same_name
        if self.own is not None and other.own is not None:
            return self.own == other.own
        return self.edges == other.edges

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    @property
    def name(self) -> str:
        return self[1]

    @property
    def is_dynamic(self) -> bool:
        """Whether the edges are computed from each clip's features."""
        return isinstance(self.edges, DynamicEdges)

    def built(self, channels: int) -> Relation:
        """The relation with learned edges of its own for tokens of a width; others unchanged.

        Raises:
            ValueError: If the rule cannot be built.
        """
        is_open = isinstance(self.edges, UnbuiltEdges | LearnedEdges)
        if not is_open or self.own is None or self.own.component is None:
            return self
        return Relation(self.name, self.own.component.build({"channels": channels}), self.own)

    def to_config(self) -> str | dict[str, Any]:
        """The name as a config file has it; of a rule of your own, its class path and options.

        Raises:
            ValueError: If no file can hold the rule.
        """
        if self.own is not None:
            return self.own.to_config(self.name)
        if _by_name(self.name) != self:
            raise ValueError(
                f"relations: {self.name!r} has a rule of its own, which cannot be written to a "
                f"file; give the path of a class or of a function of `grid` in a module"
            )
        return self.name


RelationLike = Relation | tuple[str, str, str] | str | Mapping[str, Any] | Spec | Callable[..., Any]
"""A relation, its edge type, its name, the notation of its constructor, `past(reach=3)`, or a rule
of your own: its class path, a mapping with `class_path`, `init_args` and `name`, or the rule."""


def time_aligned(reach: int = 1) -> Relation:
    """Edges from the same position in the `reach` frames before and after; `time_2f` for reach 2.

    Raises:
        ValueError: If `reach` is not a positive integer.
    """
    return _member("time_aligned", reach)


def past(reach: int = 1) -> Relation:
    """Directed edges from the same position in the `reach` frames before: `past_1f`, `past_3f`.

    Raises:
        ValueError: If `reach` is not a positive integer.
    """
    return _member("past", reach)


def future(reach: int = 1) -> Relation:
    """Directed edges from the same position in the `reach` frames after: `future_1f`, `future_3f`.

    Raises:
        ValueError: If `reach` is not a positive integer.
    """
    return _member("future", reach)


def spatial_window(radius: int) -> Relation:
    """Edges from the positions of a frame at most `radius` rows and columns away: `window_1p`.

    Raises:
        ValueError: If `radius` is not a positive integer.
    """
    return _member("spatial_window", radius)


def motion_aligned(radius: int = 1) -> Relation:
    """Edges from the most similar token of the frames before and after, in a window: `motion_1p`.

    Raises:
        ValueError: If `radius` is not a positive integer.
    """
    return _member("motion_aligned", radius)


def shuffled_intra(seed: int = 0) -> Relation:
    """Baseline: `intra_frame`, rewired over all frames with degrees preserved: `shuffled_0_intra`.

    Raises:
        ValueError: If `seed` is not an integer of at least 0.
    """
    return _member("shuffled_intra", seed)


def shuffled_time(seed: int = 0) -> Relation:
    """Baseline: `time_aligned`, rewired with degrees preserved: `shuffled_0_time`.

    Raises:
        ValueError: If `seed` is not an integer of at least 0.
    """
    return _member("shuffled_time", seed)


def random_intra(seed: int = 0) -> Relation:
    """Baseline: random sources with the in-degrees of `intra_frame`: `random_0_intra`.

    Raises:
        ValueError: If `seed` is not an integer of at least 0.
    """
    return _member("random_intra", seed)


def random_time(seed: int = 0) -> Relation:
    """Baseline: random sources with the in-degrees of `time_aligned`: `random_0_time`.

    Raises:
        ValueError: If `seed` is not an integer of at least 0.
    """
    return _member("random_time", seed)


def custom(name: str, function: Callable[[Any], Tensor]) -> Relation:
    """A relation with edges of your own. It runs through PyG.

    A config file can hold it if the function is one of a module, and its argument is called `grid`.

    Args:
        name: The relation's name.
        function: From a grid to its edges: an int64 tensor `[2, E]`, source first, in any order.
            It is called once for every grid.

    Raises:
        ValueError: If the name is one of the package's; when edges are built, if the function
            returns anything else.
    """
    if name in _BY_CONSTRUCTOR or _kind_of(name) is not None:
        raise ValueError(f"custom: name must not be one of the package's own (got {name!r})")
    return Relation(name, CustomEdges(name, function), OwnRule.of(function))


def own_relation(rule: OwnRule, name: str | None = None) -> Relation:
    """The relation of a rule of your own.

    Args:
        rule: The rule.
        name: The relation's name; the rule's own in lower case if not given.

    Raises:
        ValueError: If the name is one of the package's, or the rule cannot be built.
    """
    name = rule.default_name if name is None else name
    is_learned = rule.component is not None and issubclass(rule.component.cls, LearnedEdges)
    made = UnbuiltEdges(rule.rule) if is_learned else rule.build()
    if isinstance(made, DynamicEdges):
        custom(name, made)  # checks the name
        return Relation(name, made, rule)
    return Relation(name, custom(name, made).edges, rule)


def as_relation(relation: RelationLike) -> Relation:
    """The relation that a name, an edge type or the notation of a constructor stands for.

    Names are `intra_frame`, `time_aligned`, `time_2f`, `past_3f`, `future_3f`, `window_1p`,
    `motion_1p`, `no_edges`, `shuffled_0_intra`, `shuffled_0_time`, `random_0_intra` and
    `random_0_time`, with any integers. The notation of the constructors works too:
    `past(reach=3)` is `past_3f`, and `past` is `past_1f`.

    Raises:
        ValueError: If there is no such relation or argument; the message has the known names.
    """
    relation = relation.value if isinstance(relation, Spec) else relation
    if isinstance(relation, Relation):
        return relation
    if isinstance(relation, Mapping):
        return _from_config(relation)
    if callable(relation):
        return own_relation(OwnRule.of_object(relation))
    if isinstance(relation, str) and OWN_PATH.fullmatch(relation.strip()):
        return own_relation(find_rule(relation.strip()))
    found = None
    if isinstance(relation, list) and len(relation) == 3:  # an edge type in a file
        relation = tuple(relation)
    if isinstance(relation, str):
        found = _by_name(relation.strip()) or _by_call(relation.strip())
    elif isinstance(relation, tuple) and len(relation) == 3 and relation[::2] == (NODE, NODE):
        found = _by_name(relation[1])
    if found is None:
        raise ValueError(f"relation must be one of {_known_names(relation)} (got {relation!r})")
    return found


def _from_config(config: Mapping[str, Any]) -> Relation:
    """The relation of a mapping with `class_path`, `init_args` and `name`."""
    unknown = [key for key in config if key not in ("class_path", "init_args", "name")]
    if unknown or "class_path" not in config:
        raise ValueError(
            f"relations: a rule of your own has class_path, init_args and name (got "
            f"{', '.join(map(str, config))})"
        )
    options = config.get("init_args") or {}
    return own_relation(find_rule(config["class_path"], options), config.get("name"))


def find_relation(relations: Iterable[Relation], wanted: RelationLike) -> Relation:
    """Finds a relation by its name, its edge type or the notation of its constructor.

    Raises:
        ValueError: If it is not among them; the message has their names.
    """
    relations = tuple(relations)
    call = _by_call(wanted.strip()) if isinstance(wanted, str) else None
    for relation in relations:
        if wanted in (relation, relation.name) or (call is not None and call == relation):
            return relation
    names = ", ".join(relation.name for relation in relations)
    raise ValueError(f"relation must be one of {names} (got {wanted!r})")


def as_relations(relations: Iterable[RelationLike]) -> tuple[Relation, ...]:
    """Relations that can be in one graph.

    Raises:
        ValueError: If it is a name in place of a list, a relation is listed twice, or one's name
            contains another's; the message has both.
    """
    if isinstance(relations, str):
        raise ValueError(f"relations must be a list of relations (got {relations!r}, a name)")
    found = tuple(map(as_relation, relations))
    for i, one in enumerate(found):
        for other in found[i + 1 :]:
            if one.name == other.name:
                raise ValueError(f"relations: {one.name!r} is listed twice")
            if one.name in other.name or other.name in one.name:
                raise ValueError(
                    f"relations: no name may contain another's (got {one.name!r} and "
                    f"{other.name!r})"
                )
    return found


_BY_CONSTRUCTOR = {kind.constructor: kind for kind in KINDS}
_PATTERNS = {
    re.compile(re.escape(kind.name).replace(r"\{\}", "(0|[1-9][0-9]*)")): kind for kind in KINDS
}
_OTHER_NAMES = {name: (kind, n) for kind in KINDS for n, name in kind.other_names.items()}


def _member(constructor: str, number: int) -> Relation:
    """The relation of a kind with an integer, which is checked."""
    kind = _BY_CONSTRUCTOR[constructor]
    minimum = kind.minimum if kind.argument else 0
    if not isinstance(number, int) or isinstance(number, bool) or number < minimum:
        allowed = "a positive integer" if minimum else "an integer of at least 0"
        raise ValueError(f"{constructor}: {kind.argument} must be {allowed} (got {number!r})")
    return _cached_relation(constructor, number)


@cache
def _cached_relation(constructor: str, number: int) -> Relation:
    kind = _BY_CONSTRUCTOR[constructor]
    return Relation(kind.member_name(number), kind.rule(number))


def _kind_of(name: str) -> tuple[RelationKind, int] | None:
    """The kind that a name belongs to, and the integer in it."""
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    for pattern, kind in _PATTERNS.items():
        if match := pattern.fullmatch(name):
            return kind, int(match[1]) if match.groups() else 0
    return None


def _by_name(name: str) -> Relation | None:
    found = _kind_of(name)
    return None if found is None else _member(found[0].constructor, found[1])


def _by_call(text: str) -> Relation | None:
    """The relation of a constructor's notation: `past(reach=3)`, or `past` alone."""
    match = CALL.fullmatch(text)
    kind = _BY_CONSTRUCTOR.get(match[1]) if match else None
    if match is None or kind is None or (kind.argument is None and match[2]):
        return None
    number = kind.default if match[3] is None else int(match[3])
    shown = max(kind.minimum, number or 1)
    example = f"{kind.member_name(shown)} or {kind.constructor}({kind.argument}={shown})"
    if number is None:
        raise ValueError(f"relation {kind.constructor} needs its {kind.argument}: {example}")
    if match[2] not in (None, kind.argument):
        raise ValueError(
            f"relation {kind.constructor} has no argument {match[2]!r}; write {example}"
        )
    return _member(kind.constructor, number)


def _known_names(wanted: object) -> str:
    """All names, with N for their integers, and the one most similar to the given name."""
    names = [name for kind in KINDS for name in (*kind.other_names.values(), kind.name)]
    known = ", ".join(name.format("N") for name in names)
    text = str(wanted[1] if isinstance(wanted, tuple) and len(wanted) == 3 else wanted)
    numbers = re.findall("[1-9][0-9]*", text)
    likely: dict[str, str] = {}
    for kind in KINDS:
        name = kind.member_name(int(numbers[0]) if numbers else kind.default or kind.minimum)
        call = f"{kind.constructor}({kind.argument}={''.join(numbers[:1])})"
        likely |= {name: name, kind.constructor: name, call: name}
    closest = get_close_matches(text, likely, n=1)
    return f"{known}; did you mean {likely[closest[0]]}?" if closest else known


INTRA_FRAME = _member("intra_frame", 0)
TIME_ALIGNED = time_aligned()
PAST = past()
FUTURE = future()
NO_EDGES = _member("no_edges", 0)
RELATIONS = (INTRA_FRAME, TIME_ALIGNED)
