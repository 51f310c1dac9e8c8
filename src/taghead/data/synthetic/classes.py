r"""The families of classes, and what fixes one clip.

What is balanced in the family ``order``. A clip is a lead-in, three jumps of equally many frames,
and a lead-out. Every jump starts and ends in the same crouch, at the same place, facing the same
way; what is drawn for a jump (pose, height, arms, direction of the twist) is drawn per jump, not
per position in the sequence. For one seed, the frames of any class are therefore those of any other
in blocks of another order: the multiset of the figure's poses in the room, the somersault angle,
the twist and the height is *exactly* the same, and so is every mean over frames of any per-frame
feature of the figure. Motion within a jump is the same too, so that a feature that sees a few
neighbouring frames tells no more, but for the junctions, which lie in the crouch.

The camera depends on time, not on the jumps. It wanders along sines of whole periods per clip with
random phases, whose law does not change when the three positions are exchanged: the distribution of
order-blind statistics of the rendered clip is the same for all six classes too. Not balanced: the
lead-in and the lead-out differ from each other (in the same way in all classes), so they tell a
model with a temporal receptive field which end of the clip is near; and the video codec's key
frames fall at fixed times.

One somersault cannot be balanced like this. Its angle is a clock that can be read in every frame:
a twist early in a somersault is a twist in the first half turn. Nor can two halves (tucked, then
straight) crossed with an early or a late twist: they tell a twist while tucked from a twist while
straight. Hence three self-contained jumps, of which all orders are classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from operator import index

FAMILIES = ("somersault", "order")

DIRECTIONS = ("forward", "backward")
SHAPES = ("tuck", "pike", "straight")
HALF_TWISTS = (0, 1, 2)
JUMPS = ("tuck", "pike", "twist")


@dataclass(frozen=True)
class Somersault:
    """A class of the family ``somersault``.

    Args:
        direction: ``forward`` or ``backward``, as the gymnast sees it.
        shape: ``tuck``, ``pike`` or ``straight``.
        half_twists: Half turns about the long axis of the body.
    """

    direction: str
    shape: str
    half_twists: int

    @property
    def name(self) -> str:
        plural = "" if self.half_twists == 1 else "s"
        return f"{self.direction}_{self.shape}_{self.half_twists}_half_twist{plural}"


@dataclass(frozen=True)
class JumpOrder:
    """A class of the family ``order``.

    Args:
        jumps: The three jumps, first to last.
    """

    jumps: tuple[str, ...]

    @property
    def name(self) -> str:
        return "_then_".join(self.jumps)


SOMERSAULTS = tuple(Somersault(*parts) for parts in product(DIRECTIONS, SHAPES, HALF_TWISTS))
JUMP_ORDERS = tuple(JumpOrder(order) for order in permutations(JUMPS))


def class_names(family: str) -> list[str]:
    """The names of a family's classes, in the order of their labels; each can name a folder.

    Raises:
        ValueError: If there is no such family.
    """
    check_family(family)
    members = SOMERSAULTS if family == "somersault" else JUMP_ORDERS
    return [member.name for member in members]


def class_labels(family: str, names: Sequence[str] | None = None) -> list[int]:
    """The labels of some of a family's classes, or of all.

    Raises:
        ValueError: If there is no such family, or a name is not one of its classes or comes twice.
    """
    every = class_names(family)
    if names is None:
        return list(range(len(every)))
    unknown = [name for name in names if name not in every]
    if unknown or not names or isinstance(names, str) or len(set(names)) != len(names):
        raise ValueError(
            f"classes must be distinct names of {family!r}: {', '.join(every)} (got {names!r})"
        )
    return [every.index(name) for name in names]


def check_family(family: str) -> None:
    """Refuses a family that does not exist."""
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)} (got {family!r})")


def check_fraction(name: str, value: float) -> None:
    """Refuses a value outside 0..1, and NaN."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in 0..1 (got {value!r})")


def as_seed(seed: int | Sequence[int]) -> tuple[int, ...]:
    """One or several non-negative integers as a tuple."""
    try:
        words = (
            tuple(index(word) for word in seed) if isinstance(seed, Sequence) else (index(seed),)
        )
    except TypeError:
        words = ()
    if not words or min(words) < 0:
        raise ValueError(f"seed must be one or more non-negative integers (got {seed!r})")
    return words


@dataclass(frozen=True)
class ClipSpec:
    """All that fixes a clip: equal specs give equal frames.

    Args:
        seed: One or several non-negative integers. For one seed, the look, the timing and the
            camera are the same in every class of a family.
        label: Index into ``class_names(family)``.
        family: ``somersault`` or ``order``.
        level: Strength of everything that varies within a class, from 0 to 1.
        mirror: Probability that the clip is shown mirrored, left to right. At 0 the gymnast always
            starts facing right, so that a forward somersault turns clockwise on the screen.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    seed: int | Sequence[int]
    label: int
    family: str = "somersault"
    level: float = 0.3
    mirror: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", as_seed(self.seed))
        check_family(self.family)
        check_fraction("level", self.level)
        check_fraction("mirror", self.mirror)
        num_classes = len(class_names(self.family))
        if not 0 <= index(self.label) < num_classes:
            raise ValueError(
                f"label must lie in 0..{num_classes - 1} for {self.family!r} (got {self.label!r})"
            )
