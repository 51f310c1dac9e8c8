"""Demuxing: from a path to the packets of its video stream; errors for files without one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from taghead.errors import VideoError
from taghead.video.containers import check_complete
from taghead.video.limits import Limits
from taghead.video.transport_stream import count_joins

_PADDING = 2**16  # pixels: decoders count what codecs add at the edges
_MOST = 2**31 - 1  # as FFmpeg's option takes it
# Text that libavformat would draw as a video, and lists of other files.
_TEXT_FORMATS = frozenset({"tty", "concat", "dash", "hls"})
# Opening a file decodes frames of it to learn what containers of the survey's list state anyway.
SKIP_DECODING = {"skip_frame": "all"}
# Of a file with a survey, no more than the header need be read.
HEADER_ONLY = {**SKIP_DECODING, "probesize": "32"}


def check_file(path: Path) -> None:
    """Refuses what cannot be a video before libavformat opens it; a pipe would block it.

    Raises:
        VideoError: If it is no file, is empty or incomplete, or may not be read.
    """
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
def open_stream(
    path: Path,
    threads: int,
    probing: dict[str, str] | None = None,
    index: int | None = None,
    limits: Limits = Limits(),  # noqa: B008, it is frozen
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A container and its video stream, ready to decode; all others are left out.

    Args:
        path: The video file.
        threads: Decoding threads.
        probing: Options that restrain what libavformat reads and decodes when it opens a file.
        index: Number of the stream; the best one if None.
        limits: What the file may ask for; decoders allocate no larger frames.

    Raises:
        VideoError: If there is no video stream that can be decoded, its frames are too large, or
            FFmpeg finds an error.
    """
    # for a size that changes on the way
    limit = {"max_pixels": str(min(2 * limits.max_pixels + _PADDING, _MOST))}
    try:
        # "file:" keeps a colon in a name from being taken for a protocol, and the pattern type a %
        # from being taken for a sequence of images
        container = av.open(
            f"file:{path}",
            options={
                "protocol_whitelist": "file",
                "pattern_type": "none",
                **limit,
                **(probing or {}),
            },
            metadata_errors="replace",
        )
    except av.FFmpegError as error:
        raise VideoError(f"{path}: cannot be opened as a video ({error.strerror})") from error
    with container:
        streams = container.streams
        stream = streams.best("video") if index is None else streams[index]
        if container.format.name in _TEXT_FORMATS:
            raise VideoError(f"{path}: is text, not a video")
        if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
            raise VideoError(f"{path}: has no video stream")
        if stream.codec_context is None:
            raise VideoError(f"{path}: there is no decoder for its codec")
        limits.check_frame(path, stream.height, stream.width)
        stream.codec_context.options = limit
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        stream.thread_count = threads
        stream.thread_type = "AUTO" if threads > 1 else "SLICE"
        try:
            yield container, stream
        except av.FFmpegError as error:
            raise VideoError(f"{path}: damaged or truncated ({error.strerror})") from error


def read_packets(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of the video stream, in decoding order.

    One is marked as corrupt at each join of a transport stream, though nothing is lost.

    Raises:
        VideoError: If one is damaged.
    """
    num_corrupt = num_joins = 0
    for number, packet in enumerate(container.demux(stream)):
        if packet.is_corrupt:
            if not num_corrupt and container.format.name == "mpegts":
                codec = stream.codec_context.codec.canonical_name
                num_joins = count_joins(path, stream.id, codec)
            num_corrupt += 1
            if num_corrupt > num_joins:
                raise VideoError(f"{path}: damaged or truncated at packet {number}")
        if packet.size:  # an empty one would end decoding
            yield packet


def without_discard(packet: Packet) -> Packet:
    """The packet without the "discard" flag, which says that its frame is not to be shown."""
    if not packet.is_discard:
        return packet
    copy = Packet(bytes(packet))
    copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
    copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
    for data in packet.iter_sidedata():
        data.to_packet(copy)
    return copy
