"""Frame-exact reading of video files."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

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

    Args:
        path: The video file.
        threads: Decoding threads; more than one pays only for large frames.

    Raises:
        VideoError: If the file cannot be read as a video.
    """

    def __init__(self, path: str | PathLike[str], threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"threads must be a positive integer (got {threads})")
        self.path = Path(path)
        self.threads = threads
        self.fps = 0.0
        _check_file(self.path)
        first, self._promised = self._survey()
        self._orientation = Orientation(self.path, first)
        self.height, self.width = self._orientation.swap(first.height, first.width)
        self._length = sum(shown for _, shown in self._promised)
        if not self._promised:
            self._length = sum(1 for _ in self._decode())

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


def read_frames(path: str | PathLike[str], indices: Iterable[int]) -> np.ndarray:
    """Frames of a video file by number: see :meth:`VideoReader.read`.

    Shapes:
        - **output** `[T, H, W, 3]`, uint8 RGB
    """
    with VideoReader(path) as reader:
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
