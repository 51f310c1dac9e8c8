"""Decoding with PyAV: exact on every file, as each frame is checked against its packet."""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taghead.errors import VideoError
from taghead.video import bitstream
from taghead.video.demux import HEADER_ONLY, open_stream, read_packets, without_discard
from taghead.video.frame_times import NO_TIMESTAMP, presentation_times
from taghead.video.limits import Limits
from taghead.video.survey import Survey

# A seek costs about as much as decoding a few frames.
_MIN_SKIPPED = 8  # frames


class _PacketTime(NamedTuple):
    """Decode time of a packet, and whether two parts of a file are joined there."""

    dts: int | None
    is_at_join: bool


class PyAVBackend:
    """Frame-exact decoding with PyAV: only what the frames asked for need, each one verified.

    It starts at the last keyframe before them, seeks over what nobody asked for, and leaves out
    pictures that neither they nor others need. Each decoded frame must have the timestamp of its
    packet; if one has not, the file is decoded from its first packet on, and the first frame whose
    timestamp is another one is an error. Where packets do not tell, all is decoded from the start.

    Args:
        survey: What is known about the file.
        threads: Decoding threads.
        limits: What the file may ask for.
    """

    def __init__(self, survey: Survey, threads: int, limits: Limits) -> None:
        self.survey, self.threads, self.limits = survey, threads, limits

    def timestamps(self) -> np.ndarray:
        """Timestamp of each frame that is shown, in ticks, by decoding all of them."""
        survey = self.survey
        packets: list[_PacketTime] = []
        found = [(frame.pts, frame.dts) for frame in self._from_start(packets)]
        if len(found) != len(packets) and any(packet.is_at_join for packet in packets):
            raise VideoError(
                f"{survey.path}: damaged: {len(packets)} packets give {len(found)} frames"
            )
        pts, output_dts = _ticks([one for one, _ in found]), _ticks([one for _, one in found])
        return presentation_times(
            survey.container,
            pts,
            output_dts,
            _ticks([packet.dts for packet in packets]),
            survey.stated_end,
            1 / float(survey.time_base),
        )

    def frames(self, numbers: np.ndarray) -> Generator[VideoFrame, None, None]:
        """Decoded frames by rising number: see :class:`~taghead.video.decode.Backend`."""
        given = 0
        if self.survey.is_exact:
            with closing(self._by_seeking(self.survey.shown_timestamps[numbers])) as frames:
                try:
                    for frame in frames:
                        yield frame
                        given += 1
                        del frame  # whose memory the next one takes
                except (av.FFmpegError, VideoError, _UnexpectedError):
                    pass  # decoding from the start tells what is wrong, if anything is
        if given == len(numbers):
            return
        left = iter(numbers[given:].tolist())
        next_one, index = next(left), -1
        with closing(self._from_start()) as frames:
            for index, frame in enumerate(frames):
                if index == next_one:
                    yield frame
                    next_one = next(left, -1)
                del frame
                if next_one < 0:
                    return
        raise VideoError(f"{self.survey.path}: damaged: only {index + 1} frames of it are there")

    def _by_seeking(self, timestamps: np.ndarray) -> Generator[VideoFrame, None, None]:
        """The frames of rising timestamps, each from the keyframe before it."""
        survey = self.survey
        opened = open_stream(survey.path, self.threads, HEADER_ONLY, survey.stream, self.limits)
        with opened as (container, stream):
            for start, wanted in self._runs(timestamps):
                pts, seek_to = (None, None) if start is None else survey.seek_points[start].tolist()
                if seek_to is not None:
                    container.seek(seek_to, stream=stream)
                yield from _Run(survey, pts, wanted).frames(container, stream)

    def _runs(self, timestamps: np.ndarray) -> Iterator[tuple[int | None, np.ndarray]]:
        """Parts to decode without a seek: the start (None is that of the file), the timestamps."""
        starts, known = self.survey.seek_points[:, 0], self.survey.timestamps
        starts = starts[1:] if len(starts) and starts[0] == known[0] else starts
        nearest = np.searchsorted(starts, timestamps, side="right") - 1  # -1: the file's
        index = np.searchsorted(known, timestamps)
        index_of_start = np.append(np.searchsorted(known, starts), 0)[nearest]
        gap = index_of_start - np.append(0, index[:-1])
        seeks = (np.diff(nearest, prepend=-1) > 0) & (gap >= _MIN_SKIPPED)
        skipped = len(self.survey.seek_points) - len(starts)
        for part in np.split(np.arange(len(timestamps)), np.flatnonzero(seeks)):
            if len(part):
                start = nearest[part[0]].item() + skipped if seeks[part[0]] else None
                yield start, timestamps[part]

    def _from_start(
        self, packets: list[_PacketTime] | None = None
    ) -> Generator[VideoFrame, None, None]:
        """The frames that are shown, in order, each compared with its packet's timestamp.

        Args:
            packets: Takes what the packets state.
        """
        survey, index = self.survey, 0
        expected = zip(survey.timestamps.tolist(), survey.shown.tolist(), strict=True)
        opened = open_stream(survey.path, self.threads, index=survey.stream, limits=self.limits)
        with opened as (container, stream):
            try:
                for frame in _decode(survey, container, stream, packets):
                    whole, shown = not frame.is_corrupt, True
                    if survey.is_exact:
                        if frame.pts is not None and frame.pts < survey.timestamps[0]:
                            continue  # refers to what was cut off
                        time, shown = next(expected, (None, True))
                        whole = whole and time == frame.pts
                    if not whole:
                        raise VideoError(f"{survey.path}: damaged: frame {index} cannot be decoded")
                    if shown:
                        yield frame
                        index += 1
                    del frame
            except av.FFmpegError as error:
                raise VideoError(
                    f"{survey.path}: damaged or truncated after frame {index - 1}: {error.strerror}"
                ) from error


class _UnexpectedError(Exception):
    """A decoded frame does not have the timestamp of its packet."""


class _Run:
    """Decoding from one packet to the last frame that is asked for, in ticks."""

    def __init__(self, survey: Survey, start: int | None, wanted: np.ndarray) -> None:
        self.survey = survey
        self.start = survey.timestamps[0].item() if start is None else start
        self.is_reached = start is None
        self.wanted, self.last = set(wanted.tolist()), wanted[-1].item()
        first, stop = np.searchsorted(survey.timestamps, (self.start, self.last + 1)).tolist()
        self.expected = iter(survey.timestamps[first:stop].tolist())
        self.missing = set(survey.timestamps[first:stop].tolist())  # whose packets are to come
        self.left_out: set[int] = set()

    def frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        context, codec = stream.codec_context, self.survey.codec
        width = bitstream.length_bytes(codec, context.extradata)
        for packet in read_packets(self.survey.path, container, stream):
            if not self._is_behind_start(packet):
                continue
            self.missing.discard(packet.pts)
            if packet.pts in self.wanted or not bitstream.is_droppable(
                codec, memoryview(packet), width
            ):
                yield from self._checked(stream.decode(without_discard(packet)))
            elif packet.pts is not None:
                self.left_out.add(packet.pts)
            if not self.missing:  # the decoder has all it needs, and would wait for more
                break
        yield from self._checked(stream.decode(None))
        if self.wanted:
            raise _UnexpectedError

    def _is_behind_start(self, packet: Packet) -> bool:
        if not self.is_reached:
            self.is_reached = packet.pts == self.start
            if packet.is_keyframe and packet.pts is not None and packet.pts > self.start:
                raise _UnexpectedError  # the seek went too far
        return self.is_reached

    def _checked(self, frames: list[VideoFrame]) -> Iterator[VideoFrame]:
        """Those asked for."""
        for frame in frames:
            if frame.pts is not None and frame.pts < self.start:
                continue  # refers to what comes before
            if frame.pts is not None and frame.pts > self.last:
                continue
            due = next((time for time in self.expected if time not in self.left_out), None)
            if frame.is_corrupt or frame.pts != due:
                raise _UnexpectedError
            if due in self.wanted:
                self.wanted.remove(due)
                yield frame


def _decode(
    survey: Survey,
    container: InputContainer,
    stream: VideoStream,
    packets: list[_PacketTime] | None,
) -> Iterator[VideoFrame]:
    """Decoded frames; those of packets marked "discard" too if all are known, errors and all."""
    for packet in read_packets(survey.path, container, stream):
        if packets is not None:
            packets.append(_PacketTime(packet.dts, packet.is_corrupt))
        yield from stream.decode(without_discard(packet) if survey.is_exact else packet)
    yield from stream.decode(None)


def _ticks(times: list[int | None]) -> np.ndarray:
    return np.array([NO_TIMESTAMP if time is None else time for time in times], np.int64)
