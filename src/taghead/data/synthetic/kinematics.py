"""What the gymnast does: poses, turns and the path through the air, frame by frame.

Every random number is drawn before the class is looked at, and in the same number for every class,
so that nothing but the class's own definition depends on the class.
"""

from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .classes import JUMP_ORDERS, JUMPS, SHAPES, SOMERSAULTS, ClipSpec, JumpOrder, Somersault

MIN_FRAMES, MAX_FRAMES = 44, 56

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arms:
    """Angles of the arms, in degrees.

    Args:
        shoulder: From hanging (0) forward (90) to overhead (180).
        abduction: Away from the side of the body.
        elbow: Flexion.
        asymmetry: Added to the left shoulder, taken from the right one.
    """

    shoulder: float = 0.0
    abduction: float = 8.0
    elbow: float = 0.0
    asymmetry: float = 0.0


@dataclass(frozen=True)
class Trunk:
    """Angles of the trunk and the legs, in degrees; all 0 is standing straight with pointed feet.

    Args:
        spine: Forward flexion.
        hip: Flexion of both hips.
        knee: Flexion of both knees.
        ankle: From a pointed foot (0) to a foot at a right angle to the shank (90).
        spread: Of the legs, to the sides.
    """

    spine: float = 0.0
    hip: float = 0.0
    knee: float = 0.0
    ankle: float = 20.0
    spread: float = 3.0

    def standing(self) -> "Trunk":
        """The same with the feet flat on the floor."""
        return Trunk(self.spine, self.hip, self.knee, 90 - self.hip + self.knee, self.spread)


POSE_CHANNELS = tuple(field.name for part in (Trunk, Arms) for field in fields(part))
ARM_CHANNELS = slice(len(fields(Trunk)), len(POSE_CHANNELS))


@dataclass(frozen=True)
class Motion:
    """A performance, frame by frame, with metres and radians as units.

    Args:
        pose: Angles of the joints in degrees, by `POSE_CHANNELS`.
        alternatives: `pose` as it would be in every shape of the family, for a framing that does
            not depend on the class.
        somersault: Turn about the axis through the hips, positive forward.
        twist: Turn about the long axis of the body.
        airborne: Whether the feet are off the floor.
        flight: Fraction of the present flight that has passed; 0 before, 1 after it.
        lift: Height of the flight above the line from take-off to touchdown.
        floor: Height of the floor, or in flight of the line between its heights at either end.
        travel: Way from the first footprint, positive to the right.
        takeoff: The pose in which the feet leave the floor.
        touchdown: The pose in which they meet it again.
        drop: How much lower the floor of the landing lies.

    Shapes:
        - **pose** `[T, 9]`, **alternatives** `[S, T, 9]`, **takeoff** and **touchdown** `[9]`
        - all others but **drop** `[T]`
    """

    pose: Floats
    alternatives: Floats
    somersault: Floats
    twist: Floats
    airborne: NDArray[np.bool_]
    flight: Floats
    lift: Floats
    floor: Floats
    travel: Floats
    takeoff: Floats
    touchdown: Floats
    drop: float

    @property
    def num_frames(self) -> int:
        return len(self.pose)


def draw_num_frames(rng: Generator) -> int:
    """The length of a clip: the first number that its motion draws."""
    return int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1))


def draw_motion(spec: ClipSpec, rng: Generator) -> Motion:
    """The motion of a clip, from the clip's own stream of random numbers."""
    num_frames = draw_num_frames(rng)
    if spec.family == "somersault":
        return _somersault(SOMERSAULTS[spec.label], num_frames, spec.level, rng)
    return _jumps(JUMP_ORDERS[spec.label], num_frames, spec.level, rng)


class _Poses:
    """The poses of one performance, each a little different in every clip."""

    def __init__(self, rng: Generator, level: float) -> None:
        self._rng = rng
        self._spread = 0.4 + 0.6 * level

    def jitter(self, degrees: float) -> float:
        return float(self._rng.normal(0, degrees * self._spread))

    def stand(self) -> Floats:
        trunk = Trunk(spine=self.jitter(3)).standing()
        return _pose(trunk, Arms(shoulder=110 + self.jitter(30), abduction=10, elbow=10))

    def crouch(self) -> Floats:
        trunk = Trunk(28 + self.jitter(5), 62 + self.jitter(8), 82 + self.jitter(10)).standing()
        return _pose(trunk, Arms(shoulder=-30 + self.jitter(15)))

    def takeoff(self) -> Floats:
        trunk = Trunk(-3 + self.jitter(3), self.jitter(3), 4, ankle=30)
        return _pose(trunk, Arms(shoulder=160 + self.jitter(8), abduction=10, elbow=15))

    def touchdown(self) -> Floats:
        trunk = Trunk(8 + self.jitter(4), 18 + self.jitter(5), 18 + self.jitter(5)).standing()
        return _pose(trunk, Arms(shoulder=80 + self.jitter(20), abduction=20, elbow=10))

    def absorb(self) -> Floats:
        trunk = Trunk(24 + self.jitter(6), 60 + self.jitter(10), 72 + self.jitter(10)).standing()
        return _pose(trunk, Arms(shoulder=70 + self.jitter(20), abduction=15))

    def finish(self) -> Floats:
        trunk = Trunk(-2 + self.jitter(2)).standing()
        return _pose(trunk, Arms(shoulder=155 + self.jitter(10), abduction=20))

    def flight_arms(self) -> Arms:
        """One law for all shapes and twists: the arms must not tell them."""
        uniform = self._rng.uniform
        return Arms(uniform(25, 85), uniform(4, 14), uniform(5, 95), uniform(-25, 25))

    def shapes(self) -> dict[str, Floats]:
        """A pose for every shape, all with the same arms."""
        jitter = self.jitter
        arms = self.flight_arms()
        trunks = {
            "tuck": Trunk(36 + jitter(6), 120 + jitter(8), 130 + jitter(8), 30),
            "pike": Trunk(30 + jitter(6), 114 + jitter(9), 3 + abs(jitter(5)), 15),
            "straight": Trunk(-3 + jitter(4), 5 + jitter(4), 2 + abs(jitter(4)), 12, 2),
        }
        return {shape: _pose(trunk, arms) for shape, trunk in trunks.items()}


def _pose(trunk: Trunk, arms: Arms) -> Floats:
    return np.array([*astuple(trunk), *astuple(arms)], dtype=float)


def _ease(fraction: Floats) -> Floats:
    """From 0 to 1 with rest at both ends."""
    fraction = np.clip(fraction, 0, 1)
    return fraction * fraction * (3 - 2 * fraction)


def _interpolate(times: Floats, key_times: list[float], key_poses: list[Floats]) -> Floats:
    """Poses `[T, 9]` at `times`, at rest in every key pose."""
    keys = np.array(key_times)
    before = np.clip(np.searchsorted(keys, times, side="right") - 1, 0, len(keys) - 2)
    weight = _ease((times - keys[before]) / (keys[before + 1] - keys[before]))[:, None]
    poses = np.stack(key_poses)
    return poses[before] * (1 - weight) + poses[before + 1] * weight


def _turn(flight: Floats, start: float, stop: float) -> Floats:
    """From 0 at fraction `start` of the flight to 1 at `stop`, faster in between."""
    fraction = np.clip((flight - start) / (stop - start), 0, 1)
    return 0.5 * fraction + 0.5 * _ease(fraction)


def _somersault(target: Somersault, num_frames: int, level: float, rng: Generator) -> Motion:
    uniform = rng.uniform
    poses = _Poses(rng, level)
    leave, land = uniform(0.16, 0.24), uniform(0.74, 0.82)
    duration = land - leave
    shaped = leave + duration * uniform(0.14, 0.20)
    opening = leave + duration * uniform(0.68, 0.76)
    twist_span = uniform(0.10, 0.20), uniform(0.78, 0.90)
    twist_sign = rng.choice((-1, 1))
    apex, travel = uniform(0.7, 1.1), uniform(0.2, 1.2) * rng.choice((-1, 1))
    drop = uniform(0, 0.5) * level
    stand, crouch, takeoff = poses.stand(), poses.crouch(), poses.takeoff()
    touchdown, absorb, finish = poses.touchdown(), poses.absorb(), poses.finish()
    shapes = poses.shapes()

    times = np.linspace(0, 1, num_frames)
    key_times = [0, 0.6 * leave, leave, shaped, opening, land, land + 0.06, land + 0.17]
    tracks = {
        shape: _interpolate(
            times, key_times, [stand, crouch, takeoff, pose, pose, touchdown, absorb, finish]
        )
        for shape, pose in shapes.items()
    }
    flight = np.clip((times - leave) / duration, 0, 1)
    turned = flight - 0.05 * np.sin(2 * np.pi * flight)  # faster in the middle of the flight
    sign = 1 if target.direction == "forward" else -1
    return Motion(
        pose=tracks[target.shape],
        alternatives=np.stack([tracks[shape] for shape in SHAPES]),
        somersault=sign * 2 * np.pi * turned,
        twist=twist_sign * target.half_twists * np.pi * _turn(flight, *twist_span),
        airborne=(flight > 0) & (flight < 1),
        flight=flight,
        lift=4 * apex * flight * (1 - flight),
        floor=-drop * flight,
        travel=travel * flight,
        takeoff=takeoff,
        touchdown=touchdown,
        drop=drop,
    )


def _jumps(target: JumpOrder, num_frames: int, level: float, rng: Generator) -> Motion:
    poses = _Poses(rng, level)
    stand, crouch, finish = poses.stand(), poses.crouch(), poses.finish()
    takeoff, touchdown = poses.takeoff(), poses.touchdown()
    jump_frames = round(0.27 * num_frames)
    rest = num_frames - 3 * jump_frames
    lead_in = int(rng.integers(3, rest - 2))

    # Whole frames per jump, so that another order is the same frames in another order.
    phase = (np.arange(jump_frames) + 0.5) / jump_frames
    blocks = {}
    for jump in JUMPS:
        shape = poses.shapes()["straight" if jump == "twist" else jump]
        leave, land = rng.uniform(0.12, 0.16), rng.uniform(0.84, 0.88)
        apex, twist_sign = rng.uniform(0.35, 0.60), rng.choice((-1, 1))
        flight = np.clip((phase - leave) / (land - leave), 0, 1)
        blocks[jump] = {
            "pose": _interpolate(
                phase,
                [0, leave, 0.36, 0.64, land, 1],
                [crouch, takeoff, shape, shape, touchdown, crouch],
            ),
            "flight": flight,
            "lift": 4 * apex * flight * (1 - flight),
            "twist": twist_sign * (jump == "twist") * 2 * np.pi * _turn(flight, 0.0, 1.0),
        }
    before = _interpolate(np.arange(lead_in) / lead_in, [0, 1], [stand, crouch])
    lead_out = rest - lead_in
    after = _interpolate((np.arange(lead_out) + 1) / lead_out, [0, 1], [crouch, finish])

    def concatenated(name: str) -> Floats:
        parts = [blocks[jump][name] for jump in target.jumps]
        return np.concatenate([np.zeros(lead_in), *parts, np.zeros(lead_out)])

    pose = np.concatenate([before, *(blocks[jump]["pose"] for jump in target.jumps), after])
    flight, still = concatenated("flight"), np.zeros(num_frames)
    return Motion(
        pose=pose,
        alternatives=pose[None],
        somersault=still,
        twist=concatenated("twist"),
        airborne=(flight > 0) & (flight < 1),
        flight=flight,
        lift=concatenated("lift"),
        floor=still,
        travel=still,
        takeoff=takeoff,
        touchdown=touchdown,
        drop=0.0,
    )
