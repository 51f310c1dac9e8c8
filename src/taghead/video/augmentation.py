"""Random changes of a training clip's colours and geometry, the same for all of its frames."""

from __future__ import annotations

from torchvision.transforms import InterpolationMode, v2

STRENGTHS = 31  # magnitudes from 0 to 30, as in RandAugment
PER_FRAME = ("AutoContrast", "Equalize")


class ClipAugment(v2.RandAugment):
    """`RandAugment <https://arxiv.org/abs/1909.13719>`_ of a clip.

    Operations are drawn once a clip, with their direction, and are the same for every frame: shear,
    shift, rotation up to 30 degrees, brightness, colour, contrast, sharpness, fewer bits,
    solarising. None mirrors a clip or turns it round: left and right, up and down and the order of
    frames stay what they are. Those that stretch each frame to its own range of colours are left
    out: they make a clip flicker. Random numbers come from torch's global generator.

    Args:
        num_ops: Operations in a row.
        magnitude: How strong they are, 0 to 30.
        fill: The colour of what comes into the picture from outside, in the frames' own range.

    Shapes:
        - **frames** `[T, 3, H, W]`, uint8, or float in 0..1
        - **output** the same
    """

    _AUGMENTATION_SPACE = {  # noqa: RUF012, torchvision's own is such an attribute
        name: strength
        for name, strength in v2.RandAugment._AUGMENTATION_SPACE.items()
        if name not in PER_FRAME
    }

    def __init__(self, num_ops: int, magnitude: int, fill: tuple[float, ...]) -> None:
        super().__init__(num_ops, magnitude, STRENGTHS, InterpolationMode.BILINEAR, fill=list(fill))
