"""Videos whose frames carry their number as 12 black or white blocks, and how to read it back."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

ROWS, COLUMNS = 3, 4
HEIGHT, WIDTH = 120, 160
H264 = {"g": "12", "bf": "3", "crf": "20", "preset": "veryfast", "sc_threshold": "0"}
HEVC = {"preset": "ultrafast", "x265-params": "keyint=12:min-keyint=12:bframes=3:log-level=none"}
VPX = {"deadline": "good", "cpu-used": "8", "b": "600k"}


def blocks(height: int, width: int, margin: float) -> list[tuple[slice, slice]]:
    """Where the bits are drawn, lowest first, a share of each block left free on every side."""
    tall, wide = height // ROWS, width // COLUMNS
    y, x = int(margin * tall), int(margin * wide)
    return [
        (slice(r * tall + y, (r + 1) * tall - y), slice(c * wide + x, (c + 1) * wide - x))
        for r in range(ROWS)
        for c in range(COLUMNS)
    ]


def draw(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A colourful frame `[height, width, 3]` with the bits of a number in blocks."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack([(x + 5 * number) % 256, (2 * y + 3 * number) % 256, 90 + 0 * x], axis=-1)
    for bit, block in enumerate(blocks(height, width, 0.05)):
        frame[block] = 235 if number >> bit & 1 else 20
    return frame.astype(np.uint8)


def number_of(frame: np.ndarray) -> int:
    """The number drawn into a frame."""
    bits = [frame[block].mean() > 128 for block in blocks(*frame.shape[:2], 0.25)]
    return sum(int(bit) << place for place, bit in enumerate(bits))


def numbers_of(frames: np.ndarray) -> list[int]:
    """The numbers drawn into frames."""
    return [number_of(frame) for frame in frames]


def write_video(
    path: Path,
    frames: int,
    codec: str = "libx264",
    *,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    setup: Callable[[Any], None] = lambda stream: None,
) -> Path:
    """Encode numbered frames at 30 per second, or at the given times in units of `time_base`."""
    with av.open(path, "w", options=container_options or {}) as container:
        if options is None:
            options = H264 if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=30, options=options)
        (stream.height, stream.width), stream.pix_fmt = size, pix_fmt
        stream.codec_context.time_base = time_base
        setup(stream)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(number, *size))
            frame.pts = times[number] if times else number
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def packets_of(path: Path) -> list[av.Packet]:
    """The video packets of a file."""
    with av.open(path) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def rewrite_packets(source: Path, target: Path, data: Sequence[bytes | None]) -> Path:
    """Copy a video with the contents of its packets replaced; None leaves a packet out."""
    with av.open(source) as reader, av.open(target, "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        packets = [packet for packet in reader.demux(video=0) if packet.size]
        for old, contents in zip(packets, data, strict=True):
            if contents is not None:
                new = av.Packet(contents)
                new.pts, new.dts, new.duration = old.pts, old.dts, old.duration
                new.time_base, new.is_keyframe, new.stream = old.time_base, old.is_keyframe, stream
                writer.mux(new)
    return target


def remuxed(source: Path, target: Path) -> Path:
    """Copy an MP4 file into another container without encoding it again."""
    with av.open(source) as reader, av.open(target, "w") as writer:
        origin = reader.streams.video[0]
        stream = writer.add_stream_from_template(origin)
        is_h264 = origin.codec_context.name == "h264"
        name = "h264_mp4toannexb" if is_h264 else "null"  # other containers have start codes
        convert = BitStreamFilterContext(name, origin, stream)
        for packet in reader.demux(origin):
            for converted in convert.filter(packet if packet.size else None):
                converted.stream = stream
                writer.mux(converted)
    return target


def cut_by_stream_copy(source: Path, target: Path, start: int, stop: int) -> Path:
    """Cut frames `start` to `stop - 1` without decoding, from the keyframe before `start`.

    The cut point becomes time 0 and the pre-roll lies before it; in MP4, an edit list hides it.
    """
    options = {"avoid_negative_ts": "disabled"}
    with av.open(source) as reader, av.open(target, "w", options=options) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        packets = [packet for packet in reader.demux(video=0) if packet.size]
        times = sorted(packet.pts for packet in packets)
        zero, end = times[start], [*times, times[-1] + 1][stop]
        first = max(i for i, p in enumerate(packets) if p.is_keyframe and p.pts <= zero)
        for packet in packets[first:]:
            if packet.pts < end:
                packet.pts, packet.dts, packet.stream = packet.pts - zero, packet.dts - zero, stream
                writer.mux(packet)
    return target
