"""From a clip's spec to its frames: plan, then draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .classes import ClipSpec, as_seed
from .figure import RADII, START_JOINTS, STOP_JOINTS, Body, draw_body, place, reach
from .kinematics import Floats, Motion, draw_motion, draw_num_frames
from .scene import (
    HEIGHT,
    TEXTURE_SCALE,
    WIDTH,
    Backdrop,
    Camera,
    Look,
    Sensor,
    as_rgb,
    draw_backdrop,
    draw_camera,
    draw_look,
    draw_sensor,
    expose,
)

SUPERSAMPLING = 2


@dataclass(frozen=True)
class ClipPlan:
    """A clip before it is drawn.

    Args:
        spec: What fixes the clip.
        motion: The performance.
        body: The gymnast's lengths.
        joints: Joints in the room, metres.
        camera: The view.
        pixels: Joints in the frame, before mirroring.
        depth: Distance of the joints from the picture plane, metres.
        radii: Radii of both ends of every capsule, pixels.
        look: Colours.
        backdrop: The picture behind the figure.
        sensor: Gain and noise.
        mirrored: Whether the drawn frames are turned left to right.

    Shapes:
        - **joints** `[T, J, 3]`, **pixels** `[T, J, 2]`, **depth** `[T, J]`
        - **radii** `[T, number of capsules, 2]`
    """

    spec: ClipSpec
    motion: Motion
    body: Body
    joints: Floats
    camera: Camera
    pixels: Floats
    depth: Floats
    radii: Floats
    look: Look
    backdrop: Backdrop
    sensor: Sensor
    mirrored: bool


def _streams(spec: ClipSpec) -> list[Generator]:
    """Separate streams for the motion, the view, the look and the sensor's noise."""
    root = np.random.SeedSequence(as_seed(spec.seed))
    return [np.random.default_rng(child) for child in root.spawn(4)]


def count_frames(spec: ClipSpec) -> int:
    """The length of a clip, without planning it."""
    return draw_num_frames(_streams(spec)[0])


def plan_clip(spec: ClipSpec) -> ClipPlan:
    """Everything that a clip shows, short of its pixels."""
    motion_stream, view_stream, look_stream, _ = _streams(spec)
    motion = draw_motion(spec, motion_stream)
    body = draw_body(view_stream, spec.level)
    joints, path = place(motion, body)
    camera = draw_camera(view_stream, spec.level, path, reach(motion, body))
    pixels, depth = camera.project(joints)
    look = draw_look(look_stream)
    travel = float(motion.travel[-1])
    return ClipPlan(
        spec=spec,
        motion=motion,
        body=body,
        joints=joints,
        camera=camera,
        pixels=pixels,
        depth=depth,
        radii=RADII * body.thickness * camera.scale[:, None, None],
        look=look,
        backdrop=draw_backdrop(look_stream, look, spec.level, motion.drop, travel),
        sensor=draw_sensor(look_stream, spec.level, motion.num_frames),
        mirrored=bool(view_stream.random() < spec.mirror),
    )


def render_clip(
    seed: int | Sequence[int],
    label: int,
    *,
    family: str = "somersault",
    level: float = 0.3,
    mirror: float = 0.0,
) -> NDArray[np.uint8]:
    """The frames of one clip; the arguments are those of :class:`ClipSpec`.

    Shapes:
        - **output** `[T, 120, 160, 3]`, RGB, T from 44 to 56

    Raises:
        ValueError: If an argument breaks its rule.
    """
    return draw_clip(plan_clip(ClipSpec(seed, label, family, level, mirror)))


def draw_clip(plan: ClipPlan) -> NDArray[np.uint8]:
    """Draws a plan, figure over backdrop, at twice the size and scales it down."""
    noise_stream = _streams(plan.spec)[-1]
    order, colours = _stacking(plan)
    frames = np.empty((plan.motion.num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for t in range(len(frames)):
        canvas = _view_backdrop(plan, t)
        _draw_figure(canvas, plan, t, order[t], colours[t])
        frame = np.asarray(canvas.reduce(SUPERSAMPLING))
        gain = float(plan.sensor.gain[t])
        frames[t] = expose(frame, gain, plan.sensor.noise, noise_stream)
    return np.ascontiguousarray(frames[:, :, ::-1]) if plan.mirrored else frames


def _stacking(plan: ClipPlan) -> tuple[NDArray[np.intp], Floats]:
    """The capsules from far to near `[T, C]`, and their colours `[T, C, 3]`, darker if far."""
    depth = (plan.depth[:, START_JOINTS] + plan.depth[:, STOP_JOINTS]) / 2
    shade = np.clip(1 - 0.45 * (depth - depth.mean(axis=1, keepdims=True)), 0.72, 1.15)
    return np.argsort(-depth, axis=1, kind="stable"), plan.look.paints * shade[..., None]


def _view_backdrop(plan: ClipPlan, t: int) -> Image.Image:
    """The backdrop as the camera of frame `t` sees it."""
    camera, (left, ground) = plan.camera, plan.backdrop.origin
    step = TEXTURE_SCALE / (float(camera.scale[t]) * SUPERSAMPLING)
    cos, sin = step * np.cos(float(camera.roll[t])), step * np.sin(float(camera.roll[t]))
    anchor_x, anchor_y = (camera.anchor * SUPERSAMPLING).tolist()
    right, up = (camera.target[t] * TEXTURE_SCALE).tolist()
    return plan.backdrop.image.transform(
        (WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING),
        Image.Transform.AFFINE,
        (
            cos,
            -sin,
            left + right - cos * anchor_x + sin * anchor_y,
            sin,
            cos,
            ground - up - sin * anchor_x - cos * anchor_y,
        ),
        Image.Resampling.NEAREST,
        fillcolor=as_rgb(plan.look.backdrop),
    )


def _draw_figure(
    canvas: Image.Image, plan: ClipPlan, t: int, order: NDArray[np.intp], colours: Floats
) -> None:
    """Draws the capsules of frame `t` in the given order."""
    draw = ImageDraw.Draw(canvas)
    points = plan.pixels[t] * SUPERSAMPLING
    start, stop = points[START_JOINTS], points[STOP_JOINTS]
    radii = plan.radii[t] * SUPERSAMPLING
    along = stop - start
    length = np.hypot(along[:, 0], along[:, 1])
    # Unit normals; a capsule seen end on has none and is its two discs.
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.maximum(length, 1)[:, None]
    start_radius, stop_radius = radii[:, :1], radii[:, 1:]
    near, far = normal * start_radius, normal * stop_radius
    sides = np.hstack([start + near, stop + far, stop - far, start - near]).tolist()
    start_discs = np.hstack([start - start_radius, start + start_radius]).tolist()
    stop_discs = np.hstack([stop - stop_radius, stop + stop_radius]).tolist()
    fills = np.clip(colours, 0, 255).astype(int).tolist()
    for capsule in order.tolist():
        fill = tuple(fills[capsule])
        draw.ellipse(start_discs[capsule], fill=fill)
        if START_JOINTS[capsule] != STOP_JOINTS[capsule]:
            draw.ellipse(stop_discs[capsule], fill=fill)
            draw.polygon(sides[capsule], fill=fill)
