"""Everything about a clip that is not the performance: colours, surroundings, camera, sensor."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .figure import CAPSULES
from .kinematics import Floats

WIDTH, HEIGHT = 160, 120  # pixels
MARGIN = 1.5  # pixels between the figure and the edge of the central square
TEXTURE_SCALE = 72.0  # pixels per metre of the backdrop
BACKDROPS = ("floor", "platform", "mat")

_SKINS = ((235, 195, 165), (200, 150, 115), (140, 95, 70), (95, 62, 45))
_HAIRS = ((35, 28, 25), (95, 60, 35), (205, 170, 95), (170, 60, 40), (235, 235, 230))


@dataclass(frozen=True)
class Look:
    """Colours of a clip.

    Args:
        paints: RGB of every capsule.
        backdrop: RGB of the wall.
        floor: RGB of the floor.
        apparatus: RGB of the platform or mat.
        kind: One of `BACKDROPS`.

    Shapes:
        - **paints** `[number of capsules, 3]`
    """

    paints: Floats
    backdrop: Floats
    floor: Floats
    apparatus: Floats
    kind: str


def _luminance(colour: Floats) -> Floats:
    return colour @ np.array([0.299, 0.587, 0.114])


def _contrasting(rng: Generator, palette: Floats, others: Floats, gap: float) -> Floats:
    """A colour of the palette that is brighter or darker than `others` by `gap`, or the most so."""
    distance = np.abs(_luminance(palette)[:, None] - _luminance(others)[None]).min(axis=1)
    allowed = np.flatnonzero(distance >= min(gap, distance.max()))
    return palette[allowed[int(rng.random() * len(allowed))]]


def draw_look(rng: Generator) -> Look:
    """Clothing and surroundings in which the face, the feet and the figure stand out."""
    skin = np.array(_SKINS)[rng.integers(len(_SKINS))] + rng.normal(0, 6, 3)
    suit = rng.uniform(20, 235, 3)
    hair = _contrasting(rng, np.array(_HAIRS, dtype=float), skin[None], 55)
    legs = suit if rng.random() < 0.3 else skin
    arms = suit if rng.random() < 0.4 else skin
    panel = _contrasting(rng, rng.uniform(10, 245, (12, 3)), suit[None], 70)
    shoes = _contrasting(rng, rng.uniform(20, 235, (12, 3)), legs[None], 60)
    walls = np.clip(rng.uniform(50, 210, (12, 1)) + rng.normal(0, 14, (12, 3)), 0, 255)
    paints = {"skin": skin, "suit": suit, "panel": panel, "hair": hair, "legs": legs, "arms": arms}
    paints["shoes"] = shoes
    return Look(
        paints=np.stack([paints[capsule.paint] for capsule in CAPSULES]),
        backdrop=_contrasting(rng, walls, np.stack([skin, suit]), 45),
        floor=rng.uniform(40, 220, 3),
        apparatus=rng.uniform(40, 220, 3),
        kind=BACKDROPS[rng.integers(len(BACKDROPS))],
    )


def as_rgb(colour: Floats) -> tuple[int, int, int]:
    """A colour as Pillow takes it."""
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return red, green, blue


@dataclass(frozen=True)
class Backdrop:
    """The picture behind the figure, and the pixel in it where the first footprint lies."""

    image: Image.Image
    origin: tuple[float, float]


def draw_backdrop(rng: Generator, look: Look, level: float, drop: float, travel: float) -> Backdrop:
    """A softly patterned wall with clutter, a floor, and what the figure leaves and lands on.

    Args:
        rng: Source of the pattern.
        look: Colours.
        level: Strength of the pattern, amount of clutter.
        drop: How much lower the floor of the landing lies, metres.
        travel: Where the figure lands, metres to the right.
    """
    width, height = round(6.4 * TEXTURE_SCALE), round(5.4 * TEXTURE_SCALE)
    left, ground = width / 2, height * 0.74
    cells = int(rng.integers(3, 9))
    pattern = rng.normal(0, 1, (cells, cells + 2, 1)) + 0.35 * rng.normal(
        0, 1, (cells, cells + 2, 3)
    )
    pattern = look.backdrop + pattern * rng.uniform(5, 28) * (0.3 + 0.7 * level)
    small = Image.fromarray(np.clip(pattern, 0, 255).astype(np.uint8))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 1 + int(9 * level)))):
        colour = as_rgb(look.backdrop + rng.normal(0, 28, 3))
        x, y = rng.uniform(0, width), rng.uniform(0, ground)
        wide, high = rng.uniform(6, width / 4), rng.uniform(6, height / 4)
        shape = rng.integers(3)
        if shape == 0:
            draw.rectangle((x, y, x + wide, y + high), fill=colour)
        elif shape == 1:
            draw.ellipse((x, y, x + 0.4 * high, y + 0.4 * high), fill=colour)
        else:
            draw.line((x, y, x + rng.normal(0, wide), y + high), fill=colour, width=4)

    metre, floor, apparatus = TEXTURE_SCALE, as_rgb(look.floor), as_rgb(look.apparatus)
    if look.kind == "floor":  # seen from a little above: the feet stand within it
        draw.rectangle((0, ground - 0.12 * metre, width, height), fill=floor)
    elif look.kind == "platform":
        draw.rectangle((0, ground + drop * metre, width, height), fill=floor)
        side = np.sign(travel) or 1
        back, edge = sorted((left - 0.6 * side * metre, left + 0.25 * side * metre))
        bottom = ground + max(0.12, drop) * metre
        draw.rectangle((back, ground, edge, bottom), fill=apparatus)
    else:
        draw.rectangle((0, ground + (drop - 0.2) * metre, width, height), fill=floor)
        mat = ground - 0.02 * metre, ground + (drop + 0.07) * metre
        draw.rectangle((left - 2 * metre, mat[0], left + 2 * metre, mat[1]), fill=apparatus)
    return Backdrop(image, (left, ground))


def wander(rng: Generator, num_frames: int, amplitude: float) -> Floats:
    """A smooth wandering `[T]` within +-amplitude whose law is the same at all times.

    Sines of whole periods per clip with random phases: shifting the clip around, or reversing it,
    leaves the distribution as it is.
    """
    periods = np.array([1, 2, 3, 5])
    weights = amplitude / periods / (1 / periods).sum()
    phases = rng.uniform(0, 2 * np.pi, len(periods))
    angles = 2 * np.pi * np.arange(num_frames)[:, None] / num_frames * periods + phases
    return (weights * np.sin(angles)).sum(axis=1)


@dataclass(frozen=True)
class Camera:
    """A parallel projection that follows the figure, frame by frame.

    Args:
        yaw: Turn about the vertical, radians.
        pitch: Tilt down, radians.
        roll: Tilt aside, radians.
        target: The point of the picture plane, in metres, that is shown at `anchor`.
        scale: Pixels per metre.
        anchor: A point of the frame, in pixels.

    Shapes:
        - **yaw**, **roll**, **scale** `[T]`
        - **target** `[T, 2]`, **anchor** `[2]`
    """

    yaw: Floats
    pitch: float
    roll: Floats
    target: Floats
    scale: Floats
    anchor: Floats

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Pixels `[T, J, 2]` and depth `[T, J]` in metres of points `[T, J, 3]` in the room."""
        plane, depth = _picture_plane(points, self.yaw[:, None], self.pitch)
        right, up = np.moveaxis(plane - self.target[:, None], -1, 0)
        cos, sin = np.cos(self.roll)[:, None], np.sin(self.roll)[:, None]
        turned = np.stack([right * cos - up * sin, -right * sin - up * cos], axis=-1)
        return self.anchor + turned * self.scale[:, None, None], depth


def _picture_plane(points: Floats, yaw: Floats, pitch: float) -> tuple[Floats, Floats]:
    x, y, z = np.moveaxis(points, -1, 0)
    right, depth = x * np.cos(yaw) - y * np.sin(yaw), x * np.sin(yaw) + y * np.cos(yaw)
    return np.stack([right, z * np.cos(pitch) + depth * np.sin(pitch)], axis=-1), depth


def draw_camera(rng: Generator, level: float, path: Floats, reach: Floats) -> Camera:
    """A camera that keeps the whole figure within the central square of the frame.

    It is framed by the path of the centre of mass and by the farthest that any shape of the family
    reaches, in any direction: nothing about the framing depends on the class.

    Args:
        rng: Source of the view.
        level: How much the view varies and moves.
        path: Centre of mass `[T, 3]`.
        reach: Greatest distance `[T]` of any part of the figure from it.
    """
    num_frames = len(path)
    yaw = np.deg2rad(rng.uniform(-22, 22) * level + wander(rng, num_frames, 5 * level))
    pitch = float(np.deg2rad(rng.uniform(-4, 10) * level))
    roll = np.deg2rad(
        np.clip(rng.normal(0, 2.5), -6, 6) * level + wander(rng, num_frames, 2 * level)
    )
    zoom_change = 0.06 * level
    zoom = 1 + wander(rng, num_frames, zoom_change)
    shake = np.stack([wander(rng, num_frames, 0.05 * level) for _ in range(2)], axis=1)

    centre, _ = _picture_plane(path, yaw, pitch)
    middle = (centre.min(axis=0) + centre.max(axis=0)) / 2
    lag = (centre - middle) * (1 - rng.uniform(0.8, 1.0))  # what following leaves, metres
    tilted = np.linalg.norm(lag, axis=1).max() * np.sin(np.abs(roll).max())
    slack = 0.05 * level + tilted
    low = (lag - reach[:, None]).min(axis=0) - slack
    high = (lag + reach[:, None]).max(axis=0) + slack
    room = HEIGHT - 2 * MARGIN
    scale = room / (high - low).max() / (1 + zoom_change) * rng.uniform(0.95 - 0.25 * level, 1)

    # Upwards in metres is downwards in pixels.
    extent = np.array([[low[0], -high[1]], [high[0], -low[1]]]) * scale * (1 + zoom_change)
    square = np.array([[(WIDTH - HEIGHT) / 2, 0], [(WIDTH + HEIGHT) / 2, HEIGHT]])
    first, last = square[0] + MARGIN - extent[0], square[1] - MARGIN - extent[1]
    anchor = rng.uniform(first, last)
    return Camera(yaw, pitch, roll, centre - lag + shake, scale * zoom, anchor)


@dataclass(frozen=True)
class Sensor:
    """Gain and noise of a clip's frames."""

    gain: Floats
    noise: float


def draw_sensor(rng: Generator, level: float, num_frames: int) -> Sensor:
    """Brightness `[T]` that flickers a little, and the noise's strength in grey levels."""
    gain = 1 + level * (np.clip(rng.normal(0, 0.08), -0.2, 0.2) + rng.normal(0, 0.012, num_frames))
    return Sensor(gain, float(rng.uniform(1, 6)) * level)


def expose(
    frame: NDArray[np.uint8], gain: float, noise: float, rng: Generator
) -> NDArray[np.uint8]:
    """A frame as the sensor records it: grey noise, the same in all three colours."""
    values = frame * np.float32(gain)
    if noise > 0:
        values += rng.standard_normal((*frame.shape[:2], 1), dtype=np.float32) * np.float32(noise)
    return np.clip(values, 0, 255).astype(np.uint8)
