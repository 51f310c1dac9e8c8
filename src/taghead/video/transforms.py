"""Everything between a video file and a clip tensor, as one description that can be stored."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any

import torch
from torch import nn
from torchvision.transforms import v2

from taghead.video.reader import VideoReader
from taghead.video.sampling import uniform_indices


@dataclass(frozen=True)
class Preprocessing:
    """How a video file becomes a clip: sampling, resizing, cropping, normalisation.

    Frames are sampled uniformly; their shorter side is resized (bilinear, antialiased). For
    training the clip is flipped at random and a square of random place and size is cut and
    resized to `crop`; for testing the centre is cut. Each frame of a clip is treated alike.
    Pictures stay uint8 until the normalisation at the end. The defaults are those of
    `TAG-Head <https://arxiv.org/abs/2604.11498>`_ on HAA500.

    Args:
        num_frames: Frames of a clip; a shorter video repeats some.
        resize: Length of the shorter side after resizing, at least `crop`.
        crop: Height and width of a clip.
        mean: Mean of each colour channel, in 0..1, subtracted.
        std: Standard deviation of each colour channel, divided by.
        flip: Probability of a horizontal flip in training.
        random_crop: Whether training crops at random, from half the area up; otherwise it
            crops the centre.

    Raises:
        ValueError: If an argument is out of its range.
    """

    num_frames: int = 32
    resize: int = 128
    crop: int = 112
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    flip: float = 0.5
    random_crop: bool = True

    def __post_init__(self) -> None:
        for name in ("num_frames", "resize", "crop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer (got {value!r})")
        if self.resize < self.crop:
            raise ValueError(f"resize must be at least crop = {self.crop} (got {self.resize})")
        for name in ("mean", "std"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name} must be 3 numbers (got {getattr(self, name)})")
        if min(self.std) <= 0:
            raise ValueError(f"std must be 3 positive numbers (got {self.std})")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip must be a probability from 0 to 1 (got {self.flip})")

    def to_dict(self) -> dict[str, Any]:
        """The arguments, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of :meth:`to_dict`; an argument left out takes its default.

        Raises:
            ValueError: If an argument is unknown.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            raise ValueError(f"preprocessing has no {', '.join(unknown)} (it has {known})")
        return cls(**arguments)

    def train_transform(self) -> nn.Module:
        """Frames, uint8 `[T, 3, H, W]`, to a clip, float `[3, T, crop, crop]`, with augmentation.

        Random numbers come from torch's global generator.
        """
        cut: nn.Module = v2.CenterCrop(self.crop)
        if self.random_crop:
            cut = v2.RandomResizedCrop(self.crop, scale=(0.5, 1.0), ratio=(1.0, 1.0))
        return nn.Sequential(self._resize(), v2.RandomHorizontalFlip(self.flip), cut, self._clip())

    def test_transform(self) -> nn.Module:
        """Frames, uint8 `[T, 3, H, W]`, to a clip, float `[3, T, crop, crop]`, always the same."""
        return nn.Sequential(self._resize(), v2.CenterCrop(self.crop), self._clip())

    def load(self, path: str | PathLike[str], train: bool = False) -> torch.Tensor:
        """The clip of a video file, `[3, num_frames, crop, crop]`.

        Raises:
            VideoError: If the file cannot be read.
        """
        with VideoReader(path) as reader:
            frames = reader.read(uniform_indices(len(reader), self.num_frames))
        transform = self.train_transform() if train else self.test_transform()
        # [T, H, W, 3] in memory is channels-last, which uint8 resizing is twice as fast on
        return transform(torch.from_numpy(frames).permute(0, 3, 1, 2))

    def _resize(self) -> nn.Module:
        return v2.Resize(self.resize, antialias=True)

    def _clip(self) -> nn.Module:
        return _ToClip(self.mean, self.std)


class _ToClip(nn.Module):
    """uint8 frames `[T, 3, H, W]` to a normalised clip `[3, T, H, W]`, contiguous."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        # reordered as bytes, a quarter of the memory of floats
        clip = frames.transpose(0, 1).contiguous().float().div_(255)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return clip.sub_(mean.view(3, 1, 1, 1)).div_(std.view(3, 1, 1, 1))

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"
