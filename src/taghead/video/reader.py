"""Frame-exact reading of video files."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from av.video.frame import VideoFrame

from taghead.errors import VideoError
from taghead.video.decode import BACKENDS, BackendName, choose_backend
from taghead.video.decode.pyav import PyAVBackend
from taghead.video.frame_times import NO_TIMESTAMP
from taghead.video.limits import Limits
from taghead.video.rgb import RGBConverter
from taghead.video.survey import Survey
from taghead.video.survey import survey as make_survey

R = TypeVar("R")
_LARGE = 1280 * 720  # pixels of a frame, from which more than one thread pays
_HUGE = 4096 * 4096  # pixels, above which the frames that threads hold take too much memory
_MOST_THREADS = 4


class VideoReader:
    """Reads frames of a video file by their number in display order, exactly or not at all.

    Frame numbers count what a player shows: pre-roll left by cutting without re-encoding and
    hidden reference frames do not count, and rotation metadata is applied. Decoding runs from
    the keyframe before the frames asked for, or from the start of a file whose packets do not
    tell which frame is which; an error on the way is an error, and so is a file that is shorter
    than its container says. A file of parts joined end to end is read in full, or refused where
    the parts have video streams of their own. Damage that neither the container nor the decoder
    notices is not detected: VP8, VP9 and HEVC decode many a flipped bit without an error, and an
    MPEG stream (`.ts`, `.mpg`) cut short between two frames is simply shorter. `decord` and
    `torchcodec` notice less: they return what their decoders make of damaged pictures.

    All backends give the same pictures, to the last bit where they were compared; scaled, these
    differ by some grey levels at edges.

    The file is open only while a method runs, so that a reader can be pickled and shared.

    Time 0 is where a player and `ffmpeg -ss` start: at the first frame that is shown, or at the
    first sound where that comes earlier.

    Args:
        path: The video file.
        threads: Decoding threads; None takes one for each core, up to 4, for frames of 1280x720
            to 4096x4096, and one for others and in processes that load data.
        backend: What decodes: `pyav`; `decord` or `torchcodec` (an extra), which refuse files on
            which they are not proved to be right; or the one that `auto` finds best for the file.
        survey: A survey of the file from before. It is used if the file has not changed since;
            otherwise another one is made.
        limits: What the file may ask for: pixels of a frame, and bytes of the pictures that
            :meth:`read` returns.

    Attributes:
        backend: The backend taken.
        reason: Why it was taken.
        codec: Name of the codec, such as `h264`.
        fps: Frames per second, on average; 0 if the file does not tell.
        height: Height of the frames as shown.
        width: Width of the frames as shown.
        duration: Seconds from time 0 to the end of the last frame.
        times: Seconds from time 0 at which each frame is shown, float64 `[len(reader)]`.
        survey: What is known of the file.

    Raises:
        VideoError: If the file cannot be read as a video, or not by the backend asked for, or its
            frames are too large.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        threads: int | None = None,
        backend: BackendName = "auto",
        survey: Survey | None = None,
        limits: Limits = Limits(),  # noqa: B008, it is frozen
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be a positive integer (got {threads})")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {BACKENDS} (got {backend!r})")
        self.path = Path(path)
        valid = survey is not None and survey.path == self.path and survey.is_valid()
        known = survey if valid and survey is not None else make_survey(self.path, limits)
        limits.check_frame(self.path, known.height, known.width)
        self.limits = limits
        self.threads = threads or _threads_for(known.height * known.width)
        self.backend, self.reason, self._backend = choose_backend(
            backend, known, self.threads, limits
        )
        if not known.is_exact and known.decoded is None:
            known = replace(known, decoded=self._decoded_times(known))
        timestamps = known.shown_timestamps
        if len(timestamps) < known.min_frames:
            raise VideoError(
                f"{path}: damaged: only {len(timestamps)} of {known.min_frames} frames"
            )
        self.survey = known
        self.codec = known.codec
        self.height, self.width = known.orientation.swap(known.height, known.width)
        self._length = len(timestamps)
        self.times = self._seconds(timestamps)
        self.fps = self._rate()
        self.duration = self._end()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *exception: Any) -> None:
        """Nothing stays open between calls."""

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Iterable[int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Frames by number, in the order asked for; a number may come more than once.

        Args:
            indices: Frame numbers, from 0 to `len(reader) - 1`.
            size: Height and width to scale to while converting (bilinear, averaging where it
                shrinks); those of the video if None.

        Shapes:
            - **output** `[T, H, W, 3]`, uint8 RGB

        Raises:
            IndexError: If a number is negative or beyond the last frame.
            VideoError: If a frame up to the last one asked for cannot be decoded, or they take more
                than `limits.max_clip_bytes`.
        """
        wanted = self._checked(indices)
        height, width = self._size(size)
        self.limits.check_clip(self.path, len(wanted), height, width)
        pictures = np.empty((len(wanted), height, width, 3), np.uint8)
        numbers, positions = np.unique(wanted, return_inverse=True)
        with closing(self._read(numbers, self._to_rgb(height, width))) as found:
            for number, picture in enumerate(found):
                pictures[positions == number] = picture
        return pictures

    def read_each(
        self, indices: Iterable[int], size: tuple[int, int] | None = None
    ) -> Generator[np.ndarray, None, None]:
        """Frames by rising number, one by one as they are decoded: memory is that of one.

        Args:
            indices: Frame numbers, from 0 to `len(reader) - 1`, each greater than the one before.
            size: Height and width, as in :meth:`read`.

        Shapes:
            - **each** `[H, W, 3]`, uint8 RGB, valid until the next one

        Raises:
            ValueError: If numbers do not rise, or `size` is not positive.
            IndexError: If a number is negative or beyond the last frame.
            VideoError: If a frame up to the last one asked for cannot be decoded.
        """
        return self._read(self._rising(indices), self._to_rgb(*self._size(size)))

    def read_bands(
        self, indices: Iterable[int]
    ) -> Generator[Generator[np.ndarray, None, None], None, None]:
        """Frames by rising number, each in bands of whole rows, top to bottom.

        Together the bands are the picture of :meth:`read`, to the last bit, and memory is that of
        one: a frame as large as `limits` allow takes little more than its decoder needs. Frames of
        odd height or width, and rare pixel formats, are one band.

        Args:
            indices: Frame numbers, as in :meth:`read_each`.

        Shapes:
            - **each band** `[rows, W, 3]`, uint8 RGB, valid until the next one

        Raises:
            ValueError: If numbers do not rise.
            IndexError: If a number is negative or beyond the last frame.
            VideoError: If a frame up to the last one asked for cannot be decoded.
        """
        return self._read(self._rising(indices), self._to_rgb(self.height, self.width).bands)

    def frames_between(self, start_sec: float, end_sec: float | None = None) -> range:
        """Numbers of the frames whose display begins in `[start_sec, end_sec)`.

        Args:
            start_sec: Seconds from time 0.
            end_sec: Seconds from time 0, not included; None is the end of the file.

        Raises:
            VideoError: If there is no such frame.
        """
        end = np.inf if end_sec is None else end_sec
        first, stop = np.searchsorted(self.times, (start_sec, end)).tolist()
        if first >= stop:
            to = "the end" if end_sec is None else f"{end_sec} s"
            raise VideoError(
                f"{self.path}: no frame begins from {start_sec} s to {to} "
                f"(it lasts {self.duration:.3f} s)"
            )
        return range(first, stop)

    def _decoded_times(self, survey: Survey) -> np.ndarray:
        return PyAVBackend(survey, self.threads, self.limits).timestamps()

    def _seconds(self, timestamps: np.ndarray) -> np.ndarray:
        num_frames, rate = len(timestamps), self.survey.fps
        if (timestamps == NO_TIMESTAMP).any():  # a raw bitstream states none
            return np.arange(num_frames) / rate if rate else np.zeros(num_frames)
        unit = self.survey.time_base
        start = self.survey.start_time / unit  # in ticks
        if self.survey.decoded is not None:
            start = min(start, Fraction(int(timestamps[0])))
        if start.denominator == 1:  # then all numbers are exact up to one division
            return (timestamps - start.numerator) * unit.numerator / unit.denominator
        return (timestamps - float(start)) * float(unit)

    def _rate(self) -> float:
        """Frames per second as stated, unless what is counted as frames cannot be frames.

        A container may count packets without a frame: empty ones in AVI, hidden ones in WebM.
        """
        stated, span = self.survey.fps, float(self.times[-1] - self.times[0])
        if not stated or not span > 0:
            return stated
        measured = (len(self) - 1) / span
        tolerance = 0.5 if self.survey.decoded is None else 0.01
        return measured if abs(stated / measured - 1) > tolerance else stated

    def _end(self) -> float:
        """End of the last frame in seconds; AVI states it, which counts frames in its rate."""
        survey, last = self.survey, float(self.times[-1])
        tick = 1 / survey.fps if survey.fps else 0.0
        stated = float(survey.stated_end * survey.time_base - survey.start_time)
        longest = max(np.diff(self.times).max(initial=0), tick)
        if survey.container == "avi" and last < stated <= last + longest + tick / 2:
            return stated
        return last + tick

    def _read(
        self, numbers: np.ndarray, convert: Callable[[VideoFrame], R]
    ) -> Generator[R, None, None]:
        """Converted frames; nothing of one is kept while the next one is decoded."""
        if not len(numbers):
            return
        with closing(self._backend.frames(numbers)) as frames:
            for frame in frames:
                converted = [convert(frame)]
                del frame
                yield converted.pop()

    def _to_rgb(self, height: int, width: int) -> RGBConverter:
        return RGBConverter(height, width, self.survey.orientation)

    def _rising(self, indices: Iterable[int]) -> np.ndarray:
        wanted = self._checked(indices)
        if (np.diff(wanted) <= 0).any():
            raise ValueError("indices must rise, each greater than the one before")
        return wanted

    def _size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Height and width of pictures."""
        height, width = (self.height, self.width) if size is None else size
        if min(height, width) < 1:
            raise ValueError(f"size must be two positive integers (got {size})")
        return height, width

    def _checked(self, indices: Iterable[int]) -> np.ndarray:
        wanted = np.array(list(indices))
        if wanted.size == 0:
            return np.empty(0, np.int64)
        if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
            raise ValueError(
                f"indices must be integers, in a row (got {wanted.dtype} of shape {wanted.shape})"
            )
        for index in (wanted.min(), wanted.max()):
            if not 0 <= index < len(self):
                raise IndexError(
                    f"{self.path}: frame {index} is out of range for {len(self)} frames"
                )
        return wanted.astype(np.int64)


def read_frames(
    path: str | PathLike[str], indices: Iterable[int], backend: BackendName = "auto"
) -> np.ndarray:
    """Frames of a video file by number: see :meth:`VideoReader.read`.

    Shapes:
        - **output** `[T, H, W, 3]`, uint8 RGB
    """
    with VideoReader(path, backend=backend) as reader:
        return reader.read(indices)


def _threads_for(pixels: int) -> int:
    """Threads for frames of a size: processes that load data share the cores among themselves."""
    if not _LARGE <= pixels <= _HUGE or multiprocessing.parent_process() is not None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(_MOST_THREADS, cores or 1)
