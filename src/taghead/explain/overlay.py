"""The overlay video: a clip side by side with a heatmap of its tokens."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps, font_manager
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from taghead.explain.clip_explanation import ClipExplanation

MIN_SIDE = 360  # pixels of a picture
STRIP = 44  # pixels below the pictures, for text
INK, FAINT, PAPER = (240, 243, 248), (168, 178, 194), (17, 22, 32)


def write_overlay(explanation: ClipExplanation, path: str | Path) -> None:
    """Writes the view's frames as H.264, each side by side with its heatmap of the tokens.

    The heatmap is the attention rollout; where there is none, the magnitude of the saliency. It is
    transparent at the smallest value, most opaque at the largest. The caption has its name. The
    video runs at the speed of the clip.

    Args:
        explanation: The explanation.
        path: The mp4 file.
    """
    pictures, heat = explanation.clip.pictures, _heat_of(explanation)[0]
    low, high = float(heat.min()), float(heat.max())
    scaled = (heat - low) / (high - low) if high > low else torch.zeros_like(heat)
    side = max(pictures.shape[1], MIN_SIDE)
    layers = [_heat(frame, side) for frame in scaled]
    rate = Fraction(explanation.clip.rate).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
        stream.width, stream.height = 2 * side, side + STRIP
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for i, (picture, t) in enumerate(zip(pictures, explanation.token_frames, strict=True)):
            plain = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
            canvas = Image.new("RGB", (2 * side, side + STRIP), PAPER)
            canvas.paste(plain, (0, 0))
            canvas.paste(_under_heat(plain, layers[t]), (side, 0))
            _caption(canvas, explanation, i, side)
            frame = av.VideoFrame.from_ndarray(np.asarray(canvas), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _heat_of(explanation: ClipExplanation) -> tuple[Tensor, str]:
    """The values of the heatmap, `[T, H, W]`, and their name."""
    if explanation.rollout is None:
        return explanation.saliency.abs(), "magnitude of saliency"
    return explanation.rollout, "attention rollout"


def _heat(values: Tensor, side: int) -> np.ndarray:
    """RGBA colours of values from 0 to 1, `[H, W]` -> `[side, side, 4]`."""
    resized = F.interpolate(values[None, None].float(), size=[side, side], mode="bilinear")
    shown = resized[0, 0].numpy()
    rgba = colormaps["inferno"](0.25 + 0.7 * shown)
    rgba[..., 3] = 0.8 * shown
    return rgba


def _under_heat(picture: Image.Image, rgba: np.ndarray) -> Image.Image:
    """A grey picture with RGBA colours `[side, side, 4]` blended over it."""
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None].repeat(3, -1)
    opacity = rgba[..., 3:]
    blended = grey * (1 - opacity) + 255 * rgba[..., :3] * opacity
    return Image.fromarray(blended.clip(0, 255).astype(np.uint8))


def _caption(canvas: Image.Image, explanation: ClipExplanation, i: int, side: int) -> None:
    """Draws the predicted class, the time and a progress bar below the pictures."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 15)
    draw = ImageDraw.Draw(canvas)
    middle, width = side + STRIP // 2 + 2, canvas.width
    name = " ".join(explanation.class_names[explanation.predicted].replace("_", " ").split())
    percent = f"  {float(explanation.probabilities[explanation.predicted]):.1%}"
    clock = f"{explanation.clip.seconds[i]:.2f} s"
    room = side - 24 - draw.textlength(percent, font)
    while len(name) > 1 and draw.textlength(name, font) > room:
        name = name.removesuffix("…")[:-1] + "…"
    draw.text((12, middle), name + percent, INK, font, anchor="lm")
    draw.text((side + 12, middle), _heat_of(explanation)[1], FAINT, font, anchor="lm")
    draw.text((width - 12, middle), clock, INK, font, anchor="rm")
    part = (i + 1) / len(explanation.clip.pictures)
    draw.rectangle((0, side, round(width * part) - 1, side + 3), (255, 158, 61))
