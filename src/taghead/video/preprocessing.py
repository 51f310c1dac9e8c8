"""Preprocessing: how a video file becomes a clip tensor, as a description that can be stored."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from os import PathLike
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import resize

from taghead.errors import check_choices
from taghead.video.augmentation import STRENGTHS, ClipAugment
from taghead.video.limits import Limits
from taghead.video.reader import VideoReader
from taghead.video.sampling import Sampling, clip_indices, dense_span
from taghead.video.segment import Segment
from taghead.video.survey_cache import open_cached

Interpolation = Literal["bilinear", "bicubic"]
READ_AT_ONCE_BYTES = 2**28  # of decoded frames; resizing them together is faster


@dataclass(frozen=True)
class Preprocessing:
    """How a video file becomes a clip: sampling, resizing, cropping, normalisation.

    Frames are sampled (:func:`~taghead.video.clip_indices`); their shorter side is resized
    (antialiased). For training the clip is flipped at random and a square of random
    position and size is cut and resized to `crop`; for testing the centre is cut. Each frame of a
    clip is treated the same. Pictures stay uint8 until the normalisation at the end. The defaults
    are those of `TAG-Head <https://arxiv.org/abs/2604.11498>`_ on HAA500.

    A test may look at a video several times: `test_clips` times in time, at each of them
    `test_crops` times in space. These are its views, over which probabilities are averaged.

    Args:
        num_frames: Frames of a clip; a shorter video repeats some.
        resize: Length of the shorter side after resizing, at least `crop`.
        crop: Height and width of a clip.
        mean: Mean of each colour channel, in 0..1, subtracted.
        std: Standard deviation of each colour channel, divided by.
        flip: Probability of a horizontal flip in training.
        random_crop: Whether training crops at random, from half the area up; otherwise it
            crops the centre.
        sampling: Which frames make a clip: `uniform`, from the first to the last; `dense`, every
            `stride`-th, from a random start in training; `segments`, one of each of `num_frames`
            equal parts, at random in training.
        stride: Distance between the frames of a dense clip.
        test_clips: Clips of a video that a test averages over.
        test_crops: Squares that a test cuts from a clip: 1 is the centre; 3 are the two ends and
            the middle of the longer side.
        augment_ops: Operations of RandAugment that each training clip undergoes, the same in every
            frame (:class:`~taghead.video.augmentation.ClipAugment`); none mirrors it.
        augment_magnitude: How strong they are, 0 to 30.
        limits: What a video file may ask for: pixels of a frame, and bytes of the frames of a clip
            as they are decoded, and of all views once they are resized. It is no part of what a
            clip is: neither compared nor saved.
        interpolation: How frames are resized, `bilinear` or `bicubic`.

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
    sampling: Sampling = "uniform"
    stride: int = 1
    test_clips: int = 1
    test_crops: int = 1
    augment_ops: int = 0
    augment_magnitude: int = 9
    limits: Limits = field(default=Limits(), compare=False)
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        for name in ("num_frames", "resize", "crop", "stride", "test_clips", "test_crops"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer (got {value!r})")
        check_choices(interpolation=(self.interpolation, get_args(Interpolation)))
        for name, most in {"augment_ops": None, "augment_magnitude": STRENGTHS - 1}.items():
            value = getattr(self, name)
            is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not is_count or (most is not None and value > most):
                to = "up" if most is None else f"to {most}"
                raise ValueError(f"{name} must be a whole number from 0 {to} (got {value!r})")
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
        if self.sampling not in get_args(Sampling):
            raise ValueError(
                f"sampling must be one of {', '.join(get_args(Sampling))} (got {self.sampling!r})"
            )
        if self.stride > 1 and self.sampling != "dense":
            raise ValueError(
                f"stride is for sampling dense (got stride {self.stride} and {self.sampling})"
            )
        if self.test_crops not in (1, 3):
            raise ValueError(f"test_crops must be 1 or 3 (got {self.test_crops})")

    @property
    def num_views(self) -> int:
        """How many views of a video a test averages over."""
        return self.test_clips * self.test_crops

    @property
    def min_frames(self) -> int:
        """Frames of the shortest video that fills a clip; of a shorter one some are repeated."""
        return dense_span(self.num_frames, self.stride)

    def to_dict(self) -> dict[str, Any]:
        """The arguments but `limits`, ready for JSON; the interpolation if it is not bilinear."""
        omitted = {"limits"} | ({"interpolation"} if self.interpolation == "bilinear" else set())
        return {name: value for name, value in asdict(self).items() if name not in omitted}

    @classmethod
    def from_dict(cls, arguments: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of :meth:`to_dict`; an argument left out takes its default.

        Raises:
            ValueError: If an argument is unknown.
        """
        known = [each.name for each in fields(cls) if each.name != "limits"]
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            raise ValueError(f"preprocessing has no {', '.join(unknown)} (it has {known})")
        return cls(**arguments)

    def train_transform(self) -> nn.Module:
        """Frames, uint8 `[T, 3, H, W]`, to a clip, float `[3, T, crop, crop]`, with augmentation.

        Random numbers come from torch's global generator.
        """
        return nn.Sequential(self._resize(), *self._train_steps())

    def test_transform(self) -> nn.Module:
        """Frames, uint8 `[T, 3, H, W]`, to a clip, float `[3, T, crop, crop]`, always the same."""
        return nn.Sequential(self._resize(), *self._test_steps())

    def load(
        self,
        path: str | PathLike[str],
        train: bool = False,
        segment: Segment | None = None,
        survey: str = "",
    ) -> torch.Tensor:
        """One clip of a video file, `[3, num_frames, crop, crop]`.

        Args:
            path: The video file.
            train: Whether to sample and transform as for training.
            segment: The part of the video to sample from; the whole video if None.
            survey: The file's survey that `taghead index` stored, if there is one.

        Raises:
            VideoError: If the file cannot be read, or does not have the segment.
        """
        with self._open(path, survey) as reader:
            resized = self._read_resized(reader, self._indices(reader, segment, 1, train)[0])
        return nn.Sequential(*(self._train_steps() if train else self._test_steps()))(resized)

    def load_views(
        self, path: str | PathLike[str], segment: Segment | None = None, survey: str = ""
    ) -> torch.Tensor:
        """All views of a video file, decoded once: `[num_views, 3, num_frames, crop, crop]`.

        The crops of a clip follow one another. With one view it is what :meth:`load` gives.

        Args:
            path: The video file.
            segment: The part of the video to sample from; the whole video if None.
            survey: The file's survey that `taghead index` stored, if there is one.

        Raises:
            VideoError: If the file cannot be read, or does not have the segment.
        """
        with self._open(path, survey) as reader:
            wanted, indices = np.unique(self.test_indices(reader, segment), return_inverse=True)
            resized = self._read_resized(reader, wanted)
        to_clip = self._clip()
        return torch.stack(
            [to_clip(view) for clip in indices for view in self._crops(resized[clip])]
        )

    def test_indices(self, reader: VideoReader, segment: Segment | None = None) -> np.ndarray:
        """The numbers of the frames that make the clips of a test, `[test_clips, num_frames]`."""
        return self._indices(reader, segment, self.test_clips, train=False)

    def test_view(self, frames: np.ndarray, crop: int = 0) -> torch.Tensor:
        """One view of a clip's frames, `[3, num_frames, crop, crop]`, as :meth:`load_views` has it.

        Args:
            frames: The clip's frames, uint8 `[num_frames, H, W, 3]`.
            crop: Which of the `test_crops` squares.
        """
        resized = self._resize()(_pictures(frames))
        return self._clip()(next(islice(self._crops(resized), crop, None)))

    def test_box(self, height: int, width: int, crop: int = 0) -> tuple[float, ...]:
        """What a view shows of a frame: top, left, bottom and right, as parts of its sides.

        Args:
            height: The frame's.
            width: The frame's.
            crop: Which of the `test_crops` squares.
        """
        sizes = self._resized_size(height, width)
        pixels = torch.stack(torch.meshgrid(*map(torch.arange, sizes), indexing="ij"))
        seen = next(islice(self._crops(pixels.unsqueeze(0)), crop, None))[0]
        first, last = seen[:, 0, 0].tolist(), (seen[:, -1, -1] + 1).tolist()
        return tuple(
            end / size for ends in (first, last) for end, size in zip(ends, sizes, strict=True)
        )

    def _open(self, path: str | PathLike[str], survey: str) -> VideoReader:
        return open_cached(path, survey, self.limits)

    def _read_resized(self, reader: VideoReader, wanted: np.ndarray) -> torch.Tensor:
        """Frames of a file, resized: `[T, 3, H, W]`; large ones each as soon as it is decoded."""
        numbers, positions = np.unique(wanted, return_inverse=True)
        height, width = self._resized_size(reader.height, reader.width)
        self.limits.check_clip(reader.path, self.num_frames, reader.height, reader.width)
        self.limits.check_clip(reader.path, len(wanted), height, width)
        if 3 * len(numbers) * reader.height * reader.width <= READ_AT_ONCE_BYTES:
            resized = self._resize()(_pictures(reader.read(numbers)))
        else:
            resized = self._resize_each(reader, numbers, height, width)
        return resized if len(numbers) == len(wanted) else resized[torch.from_numpy(positions)]

    def _resize_each(
        self, reader: VideoReader, numbers: np.ndarray, height: int, width: int
    ) -> torch.Tensor:
        """Frames of a file, resized one by one as they are decoded: memory is that of the clip."""
        resized = _empty(len(numbers), height, width)
        rows = _empty(1, reader.height, width)  # of one frame, narrowed
        mode = v2.InterpolationMode(self.interpolation)
        with closing(reader.read_bands(numbers)) as frames:
            for target, bands in zip(resized, frames, strict=True):
                start = 0
                for band in bands:
                    picture = _pictures(np.ascontiguousarray(band)[None])
                    stop = start + len(band)
                    # as torch does with a whole picture: its rows, then its columns
                    rows[:, :, start:stop] = resize(picture, [len(band), width], mode)
                    start = stop
                target.copy_(resize(rows, [height, width], mode)[0])
        return resized

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of resized frames; no memory is taken for their pixels."""
        frame = torch.empty(1, 1, height, width, dtype=torch.uint8, device="meta")
        return tuple(self._resize()(frame).shape[2:])

    def _train_steps(self) -> list[nn.Module]:
        """What follows the resizing."""
        cut: nn.Module = v2.CenterCrop(self.crop)
        if self.random_crop:
            cut = v2.RandomResizedCrop(self.crop, scale=(0.5, 1.0), ratio=(1.0, 1.0))
        steps = [v2.RandomHorizontalFlip(self.flip), cut]
        if self.augment_ops:
            fill = tuple(round(255 * value) for value in self.mean)  # 0 once it is normalised
            steps.append(ClipAugment(self.augment_ops, self.augment_magnitude, fill))
        return [*steps, self._clip()]

    def _test_steps(self) -> list[nn.Module]:
        """What follows the resizing."""
        return [v2.CenterCrop(self.crop), self._clip()]

    def _indices(
        self, reader: VideoReader, segment: Segment | None, num_clips: int, train: bool
    ) -> np.ndarray:
        available = range(len(reader)) if segment is None else segment.frames(reader)
        indices = clip_indices(
            len(available), self.num_frames, self.sampling, self.stride, num_clips, train
        )
        return available.start + indices

    def _crops(self, frames: torch.Tensor) -> Iterator[torch.Tensor]:
        """The squares that a test cuts from resized frames `[T, 3, H, W]`."""
        centre = v2.CenterCrop(self.crop)
        if self.test_crops == 1:
            yield centre(frames)
            return
        axis = 2 if frames.shape[2] > frames.shape[3] else 3
        length = frames.shape[axis]
        yield centre(frames.narrow(axis, 0, self.crop))
        yield centre(frames)
        yield centre(frames.narrow(axis, length - self.crop, self.crop))

    def _resize(self) -> nn.Module:
        mode = v2.InterpolationMode(self.interpolation)
        return v2.Resize(self.resize, mode, antialias=True)

    def _clip(self) -> nn.Module:
        return _ToClip(self.mean, self.std)


def _pictures(frames: np.ndarray) -> torch.Tensor:
    """Frames `[T, H, W, 3]` as torchvision takes them, `[T, 3, H, W]`.

    In memory they stay channels-last, which uint8 resizing is twice as fast on.
    """
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


def _empty(num_frames: int, height: int, width: int) -> torch.Tensor:
    """Frames `[T, 3, H, W]`, in memory channels-last."""
    return torch.empty(num_frames, height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)


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
