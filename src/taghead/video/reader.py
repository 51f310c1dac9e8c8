"""Frame-exact reading of video files."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taghead.errors import VideoError
from taghead.video.containers import check_complete
from taghead.video.conversion import Converter, Orientation

# In these containers and codecs, a packet shows exactly one frame unless it is marked "discard".
# VP8, VP9 and MPEG-2/4 have hidden or skipped frames; AVI and MPEG-TS may split or join them.
_CONTAINERS = ("mov,", "matroska,")
_CODECS = frozenset({"h264", "hevc", "av1", "ffv1", "mjpeg"})
Backend = Literal["auto", "pyav"]
# Text that libavformat would draw as a video, and lists of other files.
_TEXT_FORMATS = frozenset({"tty", "concat", "dash", "hls"})


class VideoReader:
    """Reads frames of a video file by their number in display order, exactly or not at all.

    Frame numbers count what a player shows: pre-roll left by cutting without re-encoding and
    hidden reference frames do not count, and rotation metadata is applied. Decoding runs from
    the start to the last frame asked for; an error on the way is an error, and so is a file
    that is shorter than its container says. Damage that neither the container nor the decoder
    notices passes: VP8, VP9 and HEVC decode many a flipped bit without complaint, and an MPEG
    stream (`.ts`, `.mpg`) cut short between two frames is simply shorter.

    The file is open only while a method runs, so that a reader can be pickled and shared.

    Time 0 is where a player and `ffmpeg -ss` start: at the first frame that is shown, or at the
    first sound where that comes earlier.

    Args:
        path: The video file.
        threads: Decoding threads; more than one pays only for large frames.
        backend: What decodes: `pyav`, or the one that `auto` finds best for the file.

    Attributes:
        backend: The backend taken.
        reason: Why it was taken.
        codec: Name of the codec, such as `h264`.
        fps: Frames per second, on average; 0 if the file does not tell.
        height: Height of the frames as shown.
        width: Width of the frames as shown.
        duration: Seconds from time 0 to the end of the last frame.
        times: Seconds from time 0 at which each frame is shown, float64 `[len(reader)]`.

    Raises:
        VideoError: If the file cannot be read as a video.
    """

    def __init__(
        self, path: str | PathLike[str], threads: int | None = None, backend: Backend = "auto"
    ) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be a positive integer (got {threads})")
        if backend not in get_args(Backend):
            raise ValueError(f"backend must be one of {get_args(Backend)} (got {backend!r})")
        self.path = Path(path)
        self.threads = threads or 1
        self.backend = "pyav"
        self.reason = "it is right on every file" if backend == "auto" else "it was asked for"
        self.codec, self.fps, self._origin, self._unit = "", 0.0, Fraction(0), Fraction(1)
        self._avi = False
        _check_file(self.path)
        first, self._promised = self._survey()
        self._orientation = Orientation(self.path, first)
        self.height, self.width = self._orientation.swap(first.height, first.width)
        ticks: list[int | None] = [time for time, shown in self._promised if shown]
        if not self._promised:
            ticks = [frame.pts for frame in self._decode()]
        self._length = len(ticks)
        self.times = self._seconds(ticks)
        self.duration = float(self.times[-1]) + (1 / self.fps if self.fps else 0.0)

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
            VideoError: If a frame up to the last one asked for cannot be decoded.
        """
        wanted = self._checked(indices)
        height, width = (self.height, self.width) if size is None else size
        if min(height, width) < 1:
            raise ValueError(f"size must be two positive integers (got {size})")
        pictures = np.empty((len(wanted), height, width, 3), np.uint8)
        convert = Converter(height, width, self._orientation)
        last = wanted.max(initial=-1)
        with closing(self._decode()) as frames:
            for index in range(last + 1):
                frame = next(frames, None)
                if frame is None:
                    raise VideoError(f"{self.path}: damaged: only {index} of {len(self)} frames")
                slots = np.flatnonzero(wanted == index)
                if len(slots):
                    pictures[slots] = convert(frame)
        return pictures

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

    def _seconds(self, ticks: list[int | None]) -> np.ndarray:
        known = np.array([tick for tick in ticks if tick is not None], np.int64)
        if len(known) < len(ticks) or (np.diff(known) <= 0).any():  # AVI counts frames, not time
            return np.arange(len(ticks)) / self.fps if self.fps else np.zeros(len(ticks))
        # AVI states decoding times, which are before those of display by the decoder's delay
        origin = Fraction(known[0].item()) if self._avi else self._origin / self._unit  # in ticks
        if origin.denominator == 1:  # then all numbers are exact up to one division
            return (known - origin.numerator) * self._unit.numerator / self._unit.denominator
        return (known - float(origin)) * float(self._unit)

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

    def _survey(self) -> tuple[VideoFrame, list[tuple[int, bool]]]:
        """The first frame, and where packets tell it, when each frame comes (`_promise`)."""
        frame: VideoFrame | None = None
        packets: list[tuple[int | None, bool, bool]] = []
        with _opened(self.path, self.threads) as (container, stream):
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate or 0)
            self.codec = stream.codec_context.codec.canonical_name
            self._avi = container.format.name == "avi"
            self._origin, self._unit = _origin(container), stream.time_base or Fraction(1)
            sure = (
                container.format.name.startswith(_CONTAINERS)
                and stream.codec_context.codec.canonical_name in _CODECS
            )
            for packet in _packets(self.path, container, stream):
                packets.append((packet.pts, packet.is_keyframe, packet.is_discard))
                if frame is None:
                    frame = next(iter(stream.decode(packet)), None)
                elif not sure:
                    break
            frame = frame or next(iter(stream.decode(None)), None)
        if frame is None:
            raise VideoError(f"{self.path}: no frame of it can be shown")
        # H.264 may give each field of an interlaced frame a packet of its own.
        return frame, _promise(packets) if sure and not frame.interlaced_frame else []

    def _decode(self) -> Generator[VideoFrame, None, None]:
        """The frames that are shown, in order, each checked to be the one promised."""
        index, promised = 0, iter(self._promised)
        with _opened(self.path, self.threads) as (container, stream):
            try:
                for frame in _frames(self.path, container, stream, unhide=bool(self._promised)):
                    whole, shown = not frame.is_corrupt, True
                    if self._promised:
                        start, _ = self._promised[0]
                        if frame.pts is not None and frame.pts < start:
                            continue  # refers to what was cut off
                        time, shown = next(promised, (None, True))
                        whole = whole and time == frame.pts
                    if not whole:
                        raise VideoError(f"{self.path}: damaged: frame {index} cannot be decoded")
                    if shown:
                        yield frame
                        index += 1
            except av.FFmpegError as error:
                raise VideoError(
                    f"{self.path}: damaged or truncated after frame {index - 1}: {error.strerror}"
                ) from error


def read_frames(
    path: str | PathLike[str], indices: Iterable[int], backend: Backend = "auto"
) -> np.ndarray:
    """Frames of a video file by number: see :meth:`VideoReader.read`.

    Shapes:
        - **output** `[T, H, W, 3]`, uint8 RGB
    """
    with VideoReader(path, backend=backend) as reader:
        return reader.read(indices)


def _promise(packets: list[tuple[int | None, bool, bool]]) -> list[tuple[int, bool]]:
    """When each frame comes, and whether it is shown, by packets (time, keyframe, discarded).

    Pre-roll is decoded but not shown. Pictures before the keyframe that the file starts with
    refer to others which it lacks, so that decoders leave out some of them: unless they are not
    shown anyhow, nothing is sure, and the list is empty.
    """
    start, starts_at_keyframe, _ = packets[0]
    frames = sorted((time, not discarded) for time, _, discarded in packets if time is not None)
    times = [time for time, _ in frames]
    if start is None or not starts_at_keyframe or len(set(times)) < len(packets):
        return []
    if any(shown for time, shown in frames if time < start):
        return []
    return [(time, shown) for time, shown in frames if time >= start]


def _origin(container: InputContainer) -> Fraction:
    """Where a player starts, in seconds of the container's clock."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base is not None
        if not stream.disposition & Disposition.attached_pic
    ]
    return min(starts, default=Fraction(0))


def _check_file(path: Path) -> None:
    """Refuse what cannot be a video before libavformat sees it; a pipe would block it."""
    try:
        if path.is_dir():
            raise VideoError(f"{path}: is a directory")
        if not path.exists():
            raise VideoError(f"{path}: no such file")
        if not path.is_file():
            raise VideoError(f"{path}: is not a regular file")
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: is empty")
        check_complete(path)
    except OSError as error:
        raise VideoError(f"{path}: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def _opened(path: Path, threads: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        # "file:" keeps a colon in a name from being taken for a protocol
        container = av.open(
            f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except av.FFmpegError as error:
        raise VideoError(f"{path}: cannot be opened as a video ({error.strerror})") from error
    with container:
        stream = container.streams.best("video")
        if container.format.name in _TEXT_FORMATS:
            raise VideoError(f"{path}: is text, not a video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            raise VideoError(f"{path}: has no video stream")
        if stream.codec_context is None:
            raise VideoError(f"{path}: there is no decoder for its codec")
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        stream.thread_count = threads
        stream.thread_type = "AUTO" if threads > 1 else "SLICE"
        try:
            yield container, stream
        except av.FFmpegError as error:
            raise VideoError(f"{path}: damaged or truncated ({error.strerror})") from error


def _packets(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    for number, packet in enumerate(container.demux(stream)):
        if packet.is_corrupt:
            raise VideoError(f"{path}: damaged or truncated at packet {number}")
        if packet.size:  # an empty one would end decoding
            yield packet


def _frames(
    path: Path, container: InputContainer, stream: VideoStream, unhide: bool
) -> Iterator[VideoFrame]:
    """Decoded frames; with `unhide`, those of packets marked "discard" too, errors and all."""
    for packet in _packets(path, container, stream):
        yield from stream.decode(_unmarked(packet) if unhide and packet.is_discard else packet)
    yield from stream.decode(None)


def _unmarked(packet: Packet) -> Packet:
    copy = Packet(bytes(packet))
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
    for data in packet.iter_sidedata():
        data.to_packet(copy)
    return copy
