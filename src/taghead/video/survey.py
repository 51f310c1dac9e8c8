"""What a file's packets tell about its frames, before any but the first is decoded."""

from collections.abc import Iterable
from dataclasses import dataclass, field
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
from taghead.video.conversion import Orientation
from taghead.video.demux import UNPROBED, check_file, opened, packets, unmarked

# In these containers and codecs, a packet shows one frame unless it is marked "discard", or none
# if its header says so. MPEG-2/4 skip frames in secret; AVI and MPEG-TS may split or join them.
_CONTAINERS = ("mov,", "matroska,")
_MAGIC = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"\x1a\x45\xdf\xa3")
_CODECS = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "ffv1", "mjpeg"})


@dataclass(frozen=True)
class Survey:
    """A file's video stream, and which frame comes when.

    Attributes:
        path: The video file.
        stream: Number of the video stream.
        container: libavformat's name of the container.
        codec: libavcodec's name of the codec.
        fps: Frames per second, on average; 0 if the file does not tell.
        origin: Where a player starts, in seconds of the container's clock.
        unit: Seconds of a tick.
        height: Height of the decoded frames.
        width: Width of the decoded frames.
        pix_fmt: Format of their pixels.
        orientation: How a player turns them.
        times: When each frame comes, in ticks, those hidden before the first one too; empty if
            only decoding tells.
        shown: Which of them are shown.
        starts: Packets from which decoding can start, `[S, 2]`: the time of their frame, and
            where to seek for it, in ticks.
        packets: Number of packets; 0 if only decoding tells.
        stated: Number of frames that the container states; 0 if it states none.
        least: How many frames decoding must show at least.
        why_not: Why only decoding tells; empty if packets do.
    """

    path: Path
    stream: int
    container: str
    codec: str
    fps: float
    origin: Fraction
    unit: Fraction
    height: int
    width: int
    pix_fmt: str
    orientation: Orientation
    times: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    shown: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    starts: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    packets: int = 0
    stated: int = 0
    least: int = 1
    why_not: str = ""

    @property
    def is_sure(self) -> bool:
        """Whether packets tell which frames there are, so that each decoded one is checked."""
        return not self.why_not


def survey(path: Path) -> Survey:
    """Looks at all packets of a file and decodes its first frame.

    Raises:
        VideoError: If the file cannot be read as a video.
    """
    check_file(path)
    if _looks_sure(path):
        with opened(path, 1, UNPROBED) as (container, stream):
            if _doubt(container, stream) == "":
                return _of_packets(path, container, stream)
    with opened(path, 1) as (container, stream):
        return _of_first_frame(path, container, stream)


def _looks_sure(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(8)
    return head.startswith(_MAGIC) or head[4:] in _MAGIC


def _doubt(container: InputContainer, stream: VideoStream) -> str:
    codec, name = stream.codec_context.codec.canonical_name, container.format.name
    if not name.startswith(_CONTAINERS):
        return f"the packets of its container ({name}) need not be whole frames"
    return "" if codec in _CODECS else f"its codec ({codec}) may hide frames"


def _of_packets(path: Path, container: InputContainer, stream: VideoStream) -> Survey:
    sound = _first_sound(path, container)
    codec = stream.codec_context.codec.canonical_name
    width = bitstream.length_bytes(codec, stream.codec_context.extradata)
    known: list[tuple[int | None, int, bool]] = []  # time, pictures shown, discarded
    starts: list[tuple[int | None, int | None]] = []
    first: Packet | None = None
    for packet in packets(path, container, stream):
        first = first or packet
        counted = codec in ("vp8", "vp9")
        pictures = bitstream.pictures_shown(codec, memoryview(packet)) if counted else 1
        if codec == "vp9" and not pictures:
            raise VideoError(f"{path}: damaged: packet {len(known)} shows no picture")
        known.append((packet.pts, pictures, packet.is_discard))
        if packet.is_keyframe and bitstream.can_start(codec, memoryview(packet), width):
            starts.append((packet.pts, packet.dts))
    frame = _decode_alone(stream, first) if first is not None and first.is_keyframe else None
    why_not = "a keyframe does not come first" if frame is None else ""
    if frame is not None and frame.interlaced_frame:
        why_not = "it is interlaced, and a field of a frame may have a packet of its own"
    if _hides_its_start(known):
        raise VideoError(f"{path}: damaged: it hides its first frame, and shows some before it")
    times, shown = (None, None) if why_not else _promise(known)
    if frame is None or times is None or shown is None:
        least = 1 if frame is not None and frame.interlaced_frame else _least(known)
        why_not = why_not or "its packets leave it open which frames are shown"
        with opened(path, 1) as (container, stream):
            return _of_first_frame(path, container, stream, why_not, least)
    first_picture = int(times[shown][0]) * (stream.time_base or Fraction(1))
    return _survey(
        path,
        container,
        stream,
        frame,
        first_picture if sound is None else min(sound, first_picture),
        times=times,
        shown=shown,
        starts=_starts(starts, times, container.format.name.startswith("mov,")),
        packets=len(known),
    )


def _of_first_frame(
    path: Path, container: InputContainer, stream: VideoStream, why_not: str = "", least: int = 1
) -> Survey:
    why_not = why_not or _doubt(container, stream)
    origin = _start([*container.streams.video, *container.streams.audio]) or Fraction(0)
    for packet in packets(path, container, stream):
        for frame in stream.decode(packet):
            return _survey(path, container, stream, frame, origin, why_not=why_not, least=least)
    for frame in stream.decode(None):
        return _survey(path, container, stream, frame, origin, why_not=why_not, least=least)
    raise VideoError(f"{path}: no frame of it can be shown")


def _survey(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    frame: VideoFrame,
    origin: Fraction,
    **promise: Any,
) -> Survey:
    return Survey(
        path,
        stream.index,
        container.format.name,
        stream.codec_context.codec.canonical_name,
        float(stream.average_rate or stream.guessed_rate or 0),
        origin,
        stream.time_base or Fraction(1),
        frame.height,
        frame.width,
        frame.format.name,
        Orientation(path, frame),
        stated=stream.frames,
        **promise,
    )


def _hides_its_start(known: list[tuple[int | None, int, bool]]) -> bool:
    """Whether the first frame is hidden though frames before it are shown: no cut leads there."""
    start, _, is_hidden = known[0] if known else (None, 0, False)
    return is_hidden and any(
        start is not None and time is not None and time < start and not discarded
        for time, _, discarded in known
    )


def _least(known: list[tuple[int | None, int, bool]]) -> int:
    """How many frames packets (time, pictures, discarded) show, less those that lack a reference.

    Those follow the first packet and come before it in time; anywhere else such a time is damage.
    """
    leading = 0
    for time, _, _ in known[1:]:
        start, _, _ = known[0]
        if start is None or time is None or time >= start:
            break
        leading += 1
    return sum(bool(pictures) and not discarded for _, pictures, discarded in known) - leading


def _starts(
    keyframes: list[tuple[int | None, int | None]], times: np.ndarray, seeks_by_decoding: bool
) -> np.ndarray:
    """Times of keyframes and where to seek for them, `[S, 2]`, in order."""
    promised = set(times.tolist())
    pairs = [
        (time, decoded if seeks_by_decoding and decoded is not None else time)
        for time, decoded in keyframes
        if time in promised
    ]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def _decode_alone(stream: VideoStream, packet: Packet) -> VideoFrame | None:
    """The frame of a keyframe, without what the decoder would wait for to put it in order."""
    frames = stream.decode(unmarked(packet)) or stream.decode(None)
    return frames[0] if frames else None


def _promise(
    known: list[tuple[int | None, int, bool]],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """When each frame comes, and whether it is shown, by packets (time, pictures, discarded).

    Pre-roll is decoded but not shown. Pictures before the keyframe that the file starts with
    refer to others which it lacks, so that decoders leave out some of them: unless they are not
    shown anyhow, nothing is sure.
    """
    start = known[0][0]
    frames = sorted(
        (time, not discarded)
        for time, pictures, discarded in known
        if time is not None and pictures
    )
    times = np.array([time for time, _ in frames], np.int64)
    shown = np.array([is_shown for _, is_shown in frames], bool)
    whole = all(time is not None and pictures < 2 for time, pictures, _ in known)
    if start is None or not whole or not len(times) or (np.diff(times) == 0).any():
        return None, None
    if shown[times < start].any() or not shown.any():
        return None, None
    return times[times >= start], shown[times >= start]


def _first_sound(path: Path, container: InputContainer) -> Fraction | None:
    """When the first sound comes, in seconds of the container's clock; None without sound.

    It has to be asked before packets are read, which moves the times that libavformat states.
    """
    if any(stream.start_time is None for stream in container.streams.audio):
        with opened(path, 1) as (probed, _):
            return _start(probed.streams.audio)
    return _start(container.streams.audio)


def _start(streams: Iterable[Stream]) -> Fraction | None:
    """When the first of some streams starts, in seconds of the container's clock."""
    starts = [
        stream.start_time * stream.time_base
        for stream in streams
        if stream.start_time is not None and stream.time_base is not None
        if not stream.disposition & Disposition.attached_pic
    ]
    return min(starts, default=None)
