"""The gymnast's body: joints in space from a motion, and the tapered capsules that are drawn.

Axes of the body: x to the front, y to the left, z up. Axes of the room: x to the right, y away from
the camera, z up. Lengths are in metres.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from .kinematics import POSE_CHANNELS, Floats, Motion

SIDES = (("left", 1), ("right", -1))


@dataclass(frozen=True)
class Body:
    """Lengths of the limbs in metres; `thickness` scales every radius."""

    torso: float = 0.50
    shoulder_width: float = 0.17
    hip_width: float = 0.09
    upper_arm: float = 0.27
    forearm: float = 0.27
    thigh: float = 0.42
    shank: float = 0.41
    foot: float = 0.14
    thickness: float = 1.0


def draw_body(rng: Generator, level: float) -> Body:
    """A body a little different from the standard one, the more so the higher the level."""
    vary = 1 + level * np.clip(rng.normal(0, 0.06, 9), -0.15, 0.15)
    standard = Body()
    return Body(
        torso=standard.torso * vary[0],
        shoulder_width=standard.shoulder_width * vary[1],
        hip_width=standard.hip_width * vary[2],
        upper_arm=standard.upper_arm * vary[3],
        forearm=standard.forearm * vary[4],
        thigh=standard.thigh * vary[5],
        shank=standard.shank * vary[6],
        foot=standard.foot * vary[7],
        thickness=1 + 1.5 * (vary[8] - 1),
    )


@dataclass(frozen=True)
class Capsule:
    """A limb: two joints, a radius at each in metres, and the name of its paint."""

    start: str
    stop: str
    start_radius: float
    stop_radius: float
    paint: str


_TRUNK = (
    Capsule("ponytail", "ponytail_tip", 0.06, 0.035, "hair"),
    Capsule("pelvis", "waist", 0.125, 0.115, "suit"),
    Capsule("waist", "neck", 0.115, 0.13, "suit"),
    Capsule("chest", "belly", 0.08, 0.065, "panel"),
    Capsule("neck", "head", 0.05, 0.05, "skin"),
    Capsule("head", "head", 0.125, 0.125, "hair"),
    Capsule("face", "face", 0.095, 0.095, "skin"),
)
_LIMBS = (
    Capsule("hip", "knee", 0.09, 0.066, "legs"),
    Capsule("knee", "ankle", 0.066, 0.046, "legs"),
    Capsule("ankle", "toe", 0.048, 0.038, "shoes"),
    Capsule("shoulder", "elbow", 0.058, 0.048, "arms"),
    Capsule("elbow", "hand", 0.048, 0.04, "skin"),
)
# Drawn far to near; of two at the same distance, the later one lies on top.
CAPSULES = _TRUNK + tuple(
    replace(limb, start=f"{side}_{limb.start}", stop=f"{side}_{limb.stop}")
    for side, _ in SIDES
    for limb in _LIMBS
)

# Shares of the body's mass.
_MASS = {"pelvis": 0.16, "waist": 0.28, "neck": 0.14, "head": 0.08} | {
    f"{side}_{joint}": share
    for side, _ in SIDES
    for joint, share in (("knee", 0.09), ("ankle", 0.03), ("elbow", 0.03), ("hand", 0.02))
}


def _joints(pose: Floats, body: Body) -> dict[str, Floats]:
    """Joints in the pelvis's frame, each `[T, 3]`, from angles `[T, 9]` in degrees."""
    angle = dict(zip(POSE_CHANNELS, np.deg2rad(pose).T, strict=True))
    zero = np.zeros(len(pose))

    def up(tilt: Floats) -> Floats:
        return np.stack([np.sin(tilt), zero, np.cos(tilt)], axis=1)

    def hang(swing: Floats, aside: Floats = zero) -> Floats:
        """A limb's direction: hanging at 0, forward at 90 degrees."""
        parts = np.sin(swing) * np.cos(aside), np.sin(aside), -np.cos(swing) * np.cos(aside)
        return np.stack(parts, axis=1)

    spine, hip, knee = angle["spine"], angle["hip"], angle["knee"]
    lower, upper = up(0.45 * spine), up(spine)
    front = up(spine + np.pi / 2)
    left = np.array([0.0, 1.0, 0.0])
    pelvis = np.zeros((len(pose), 3))
    waist = lower * body.torso * 0.5
    neck = waist + upper * body.torso * 0.5
    head = neck + upper * 0.17 + front * 0.02
    joints = {
        "pelvis": pelvis,
        "waist": waist,
        "neck": neck,
        "head": head,
        "face": head + front * 0.07 - upper * 0.015,
        "ponytail": head - front * 0.11 + upper * 0.05,
        "ponytail_tip": head - front * 0.22 - upper * 0.10,
        "chest": waist + upper * 0.08 + front * 0.06,
        "belly": waist - lower * 0.10 + front * 0.06,
    }
    for side, sign in SIDES:
        shoulder = neck - upper * 0.04 + sign * left * body.shoulder_width
        swing = angle["shoulder"] - 0.6 * spine + sign * angle["asymmetry"]
        bend, aside = angle["elbow"], angle["abduction"]
        elbow = shoulder + hang(swing, sign * aside) * body.upper_arm
        inward = sign * (0.3 * aside - 0.35 * bend)
        hip_joint = pelvis + sign * left * body.hip_width
        knee_joint = hip_joint + hang(hip, sign * angle["spread"]) * body.thigh
        ankle = knee_joint + hang(hip - knee, 0.3 * sign * angle["spread"]) * body.shank
        joints |= {
            f"{side}_shoulder": shoulder,
            f"{side}_elbow": elbow,
            f"{side}_hand": elbow + hang(swing + bend, inward) * body.forearm,
            f"{side}_hip": hip_joint,
            f"{side}_knee": knee_joint,
            f"{side}_ankle": ankle,
            f"{side}_toe": ankle + hang(hip - knee + angle["ankle"]) * body.foot,
        }
    return joints


JOINTS = tuple(_joints(np.zeros((1, len(POSE_CHANNELS))), Body()))
_MASSES = np.array([_MASS.get(name, 0.0) for name in JOINTS])
_FEET = [JOINTS.index(f"{side}_{part}") for side, _ in SIDES for part in ("ankle", "toe")]
START_JOINTS = np.array([JOINTS.index(capsule.start) for capsule in CAPSULES])
STOP_JOINTS = np.array([JOINTS.index(capsule.stop) for capsule in CAPSULES])
# [number of capsules, 2], metres
RADII = np.array([[capsule.start_radius, capsule.stop_radius] for capsule in CAPSULES])
_JOINT_RADII = np.zeros(len(JOINTS))
np.maximum.at(_JOINT_RADII, START_JOINTS, RADII[:, 0])
np.maximum.at(_JOINT_RADII, STOP_JOINTS, RADII[:, 1])


def centred_joints(pose: Floats, body: Body) -> Floats:
    """Joints `[T, J, 3]` in the axes of the body, about its centre of mass."""
    joints = np.stack(list(_joints(pose, body).values()), axis=1)
    centre = np.einsum("tjc,j->tc", joints, _MASSES / _MASSES.sum())
    return joints - centre[:, None]


def reach(motion: Motion, body: Body) -> Floats:
    """How far the body may reach from its centre of mass `[T]`, in any shape of its family."""
    shapes, frames, channels = motion.alternatives.shape
    joints = centred_joints(motion.alternatives.reshape(-1, channels), body)
    distance = np.linalg.norm(joints, axis=-1) + _JOINT_RADII * body.thickness
    return distance.max(axis=-1).reshape(shapes, frames).max(axis=0)


def _rotate_forward(joints: Floats, turn: Floats) -> Floats:
    """Turns `[T, J, 3]` about the y axis by `[T]`, positive from z to x."""
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y, z = np.moveaxis(joints, -1, 0)
    return np.stack([x * cos + z * sin, y, z * cos - x * sin], axis=-1)


def _rotate_upright(joints: Floats, turn: Floats) -> Floats:
    """Turns `[T, J, 3]` about the z axis by `[T]`."""
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x, y, z = np.moveaxis(joints, -1, 0)
    return np.stack([x * cos - y * sin, x * sin + y * cos, z], axis=-1)


def _balanced(joints: Floats, weight: Floats) -> Floats:
    """Leans the body so that the feet stand below its centre of mass, as far as `weight` says."""
    feet = joints[:, _FEET].mean(axis=1)
    return _rotate_forward(joints, weight * np.arctan2(feet[:, 0], -feet[:, 2]))


def _stance_height(joints: Floats) -> Floats:
    """Height of the centre of mass over the soles `[T]`."""
    return -(joints[:, _FEET, 2] - _JOINT_RADII[_FEET]).min(axis=1)


def place(motion: Motion, body: Body) -> tuple[Floats, Floats]:
    """Joints `[T, J, 3]` in the axes of the room, and the path `[T, 3]` of the centre of mass."""
    near_floor = np.clip(1 - np.minimum(motion.flight, 1 - motion.flight) / 0.15, 0, 1)
    joints = _balanced(centred_joints(motion.pose, body), near_floor)
    contacts = np.stack([motion.takeoff, motion.touchdown])
    leave, land = _stance_height(_balanced(centred_joints(contacts, body), np.ones(2)))
    in_air = leave + (land - leave) * motion.flight
    stance = np.where(motion.airborne, in_air, _stance_height(joints))
    height = stance + motion.lift + motion.floor
    path = np.stack([motion.travel, np.zeros_like(height), height], axis=1)
    turned = _rotate_forward(_rotate_upright(joints, motion.twist), motion.somersault)
    return turned + path[:, None], path
