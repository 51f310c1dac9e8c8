"""Survey of a video file: an index of its frames, read from its packets."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taghead.errors import VideoError
from taghead.video import bitstream
from taghead.video.demux import (
    SKIP_DECODING,
    check_file,
    open_stream,
    read_packets,
    without_discard,
)
from taghead.video.file_stamp import FileStamp, stamp_of
from taghead.video.limits import Limits
from taghead.video.packet_index import (
    PacketInfo,
    frame_timestamps,
    hides_first_frame,
    min_frames_shown,
    seek_points,
)
from taghead.video.parallel_streams import check_parallel
from taghead.video.rgb import Orientation, corner

# In these containers and codecs, a packet shows one frame unless it is marked "discard", or none
# if its header says so. MPEG-2/4 skip frames in secret; AVI and MPEG-TS may split or join them.
_CONTAINERS = ("mov,", "matroska,")
_MAGIC = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"\x1a\x45\xdf\xa3")
_CODECS = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "ffv1", "mjpeg"})


@dataclass(frozen=True)
class Survey:
    """Index of a file's video stream: its format, and the timestamp of every frame.

    It carries the promise of exact reading: each decoded frame is compared with the timestamp that
    its packet has here, so that a frame is the one asked for or an error. No library lists, for a
    file as it is, which frames a player shows: their counts include hidden frames, or leave out
    frames that they skip.

    Attributes:
        path: The video file.
        stream: Index of the video stream.
        container: libavformat's name of the container.
        codec: libavcodec's name of the codec.
        fps: Frames per second, on average; 0 if the file does not state it.
        start_time: Where a player starts, in seconds of the container's clock.
        time_base: Seconds of a tick, the unit of timestamps.
        height: Height of the decoded frames.
        width: Width of the decoded frames.
        pix_fmt: Pixel format of the decoded frames.
        orientation: How a player rotates and flips them.
        timestamps: Timestamp of each frame in ticks, rising, hidden ones before the first shown
            frame included; empty if only decoding tells.
        shown: Which of them are shown.
        seek_points: Packets from which decoding can start, `[S, 2]`: the timestamp of their frame,
            and where to seek for it, in ticks.
        has_open_gops: Whether pictures before a keyframe may refer past it; False if only decoding
            tells.
        num_packets: Number of packets; 0 if only decoding tells.
        container_frames: Number of frames that the container states; 0 if it states none.
        min_frames: How many frames decoding must show at least.
        stated_end: End of the video stream that the container states, in ticks; 0 if none.
        inexact_reason: Why packets do not tell which frames there are; empty if they do.
        decoded: Where packets do not tell: the timestamp of each frame shown, in ticks, found by
            decoding all of them, `NO_TIMESTAMP` where a frame has none; None if not decoded yet.
        stamp: The file's state when this was made; None if it had just been written.
    """

    path: Path
    stream: int
    container: str
    codec: str
    fps: float
    start_time: Fraction
    time_base: Fraction
    height: int
    width: int
    pix_fmt: str
    orientation: Orientation
    timestamps: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    shown: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    seek_points: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    has_open_gops: bool = False
    num_packets: int = 0
    container_frames: int = 0
    min_frames: int = 1
    stated_end: int = 0
    inexact_reason: str = ""
    decoded: np.ndarray | None = None
    stamp: FileStamp | None = None

    @property
    def is_exact(self) -> bool:
        """Whether packets tell which frames there are, so that each decoded one is checked."""
        return not self.inexact_reason

    @property
    def shown_timestamps(self) -> np.ndarray:
        """Timestamp of each frame that a player shows, in ticks."""
        if self.decoded is not None:
            return self.decoded
        return self.timestamps[self.shown]

    def is_valid(self) -> bool:
        """Whether the file has not changed since."""
        return self.stamp is not None and stamp_of(self.path) == self.stamp


def survey(path: Path, limits: Limits = Limits()) -> Survey:  # noqa: B008, it is frozen
    """Reads all packets of a file and decodes its first frame.

    Args:
        path: The video file.
        limits: What the file may ask for.

    Raises:
        VideoError: If the file cannot be read as a video, or its frames are larger.
    """
    stamp = stamp_of(path)  # before reading: what is written meanwhile changes it
    check_file(path)
    return replace(_survey_of(path, limits), stamp=stamp)


def _survey_of(path: Path, limits: Limits) -> Survey:
    if _may_be_exact(path):
        opened = open_stream(path, 1, SKIP_DECODING, limits=limits)
        with opened as (container, stream):
            if _reason_for_doubt(container, stream) == "":
                check_parallel(path, container, stream, limits)
                return _of_packets(path, container, stream, limits)
    with open_stream(path, 1, limits=limits) as (container, stream):
        check_parallel(path, container, stream, limits)
        return _of_first_frame(path, container, stream)


def _may_be_exact(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(8)
    return head.startswith(_MAGIC) or head[4:] in _MAGIC


def _reason_for_doubt(container: InputContainer, stream: VideoStream) -> str:
    codec, name = stream.codec_context.codec.canonical_name, container.format.name
    if not name.startswith(_CONTAINERS):
        return f"the packets of its container ({name}) need not be whole frames"
    return "" if codec in _CODECS else f"its codec ({codec}) may hide frames"


def _of_packets(
    path: Path, container: InputContainer, stream: VideoStream, limits: Limits
) -> Survey:
    audio_start = _audio_start(path, container, limits)
    codec = stream.codec_context.codec.canonical_name
    width = bitstream.length_bytes(codec, stream.codec_context.extradata)
    found: list[PacketInfo] = []
    keyframes: list[tuple[int | None, int | None]] = []
    first: Packet | None = None
    has_open_gops = False
    for packet in read_packets(path, container, stream):
        first = first or packet
        counted = codec in ("vp8", "vp9")
        pictures = bitstream.pictures_shown(codec, memoryview(packet)) if counted else 1
        if codec == "vp9" and not pictures:
            raise VideoError(f"{path}: damaged: packet {len(found)} shows no picture")
        found.append(PacketInfo(packet.pts, pictures, packet.is_discard))
        if packet.is_keyframe and bitstream.can_start(codec, memoryview(packet), width):
            keyframes.append((packet.pts, packet.dts))
        if packet.is_keyframe and not bitstream.starts_anew(codec, memoryview(packet), width):
            has_open_gops = True
    frame = _decode_alone(stream, first) if first is not None and first.is_keyframe else None
    inexact_reason = "a keyframe does not come first" if frame is None else ""
    if frame is not None and frame.interlaced_frame:
        inexact_reason = "it is interlaced, and a field of a frame may have a packet of its own"
    if hides_first_frame(found):
        raise VideoError(f"{path}: damaged: it hides its first frame, and shows some before it")
    timestamps, shown = (None, None) if inexact_reason else frame_timestamps(found)
    if frame is None or timestamps is None or shown is None:
        min_frames = 1 if frame is not None and frame.interlaced_frame else min_frames_shown(found)
        inexact_reason = inexact_reason or "its packets leave it open which frames are shown"
        with open_stream(path, 1, limits=limits) as (container, stream):
            return _of_first_frame(path, container, stream, inexact_reason, min_frames)
    first_frame = int(timestamps[shown][0]) * (stream.time_base or Fraction(1))
    return _survey(
        path,
        container,
        stream,
        frame,
        first_frame if audio_start is None else min(audio_start, first_frame),
        timestamps=timestamps,
        shown=shown,
        seek_points=seek_points(keyframes, timestamps, container.format.name.startswith("mov,")),
        has_open_gops=has_open_gops,
        num_packets=len(found),
    )


def _of_first_frame(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    inexact_reason: str = "",
    min_frames: int = 1,
) -> Survey:
    index = {
        "inexact_reason": inexact_reason or _reason_for_doubt(container, stream),
        "min_frames": min_frames,
    }
    start_time = _start_time([*container.streams.video, *container.streams.audio]) or Fraction(0)
    for packet in read_packets(path, container, stream):
        for frame in stream.decode(packet):
            return _survey(path, container, stream, frame, start_time, **index)
    for frame in stream.decode(None):
        return _survey(path, container, stream, frame, start_time, **index)
    raise VideoError(f"{path}: no frame of it can be shown")


def _survey(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    frame: VideoFrame,
    start_time: Fraction,
    **index: Any,
) -> Survey:
    return Survey(
        path,
        stream.index,
        container.format.name,
        stream.codec_context.codec.canonical_name,
        float(stream.average_rate or stream.guessed_rate or 0),
        start_time,
        stream.time_base or Fraction(1),
        frame.height,
        frame.width,
        frame.format.name,
        Orientation.of_frame(path, corner(frame)),
        container_frames=stream.frames,
        stated_end=(stream.start_time or 0) + (stream.duration or 0) if stream.duration else 0,
        **index,
    )


def _decode_alone(stream: VideoStream, packet: Packet) -> VideoFrame | None:
    """The frame of a keyframe, without what the decoder would wait for to put it in order."""
    frames = stream.decode(without_discard(packet)) or stream.decode(None)
    return frames[0] if frames else None


def _audio_start(path: Path, container: InputContainer, limits: Limits) -> Fraction | None:
    """When audio starts, in seconds of the container's clock; None without audio.

    It is read before packets are read, which moves the times that libavformat states.
    """
    if any(stream.start_time is None for stream in container.streams.audio):
        with open_stream(path, 1, limits=limits) as (probed, _):
            return _start_time(probed.streams.audio)
    return _start_time(container.streams.audio)


def _start_time(streams: Iterable[Stream]) -> Fraction | None:
    """When the first of some streams starts, in seconds of the container's clock."""
    starts = [
        stream.start_time * stream.time_base
        for stream in streams
        if stream.start_time is not None and stream.time_base is not None
        if not stream.disposition & Disposition.attached_pic
    ]
    return min(starts, default=None)
