"""Decoding with PyAV: right on every file, because each frame is checked against its packet."""

from collections.abc import Generator, Iterator
from contextlib import closing

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from taghead.errors import VideoError
from taghead.video import bitstream
from taghead.video.conversion import Converter
from taghead.video.demux import KNOWN, opened, packets, unmarked
from taghead.video.survey import Survey

# A jump costs about as much as decoding a few frames.
_WORTH_A_JUMP = 8  # frames that nobody asked for


class PyAVBackend:
    """Decodes what the frames asked for need, where packets tell what that is.

    It starts at the last keyframe before them, jumps over what nobody asked for, and leaves out
    pictures that neither they nor others need. Each decoded frame must be the one promised by its
    packet; if one is not, the file is decoded from its first packet on, and the first frame that
    is not the one promised is an error. Where packets do not tell, all is decoded from the start.

    Args:
        survey: What is known about the file.
        threads: Decoding threads.
    """

    def __init__(self, survey: Survey, threads: int) -> None:
        self.survey, self.threads = survey, threads

    def read(self, wanted: np.ndarray, height: int, width: int) -> np.ndarray:
        """Frames by number: see :class:`~taghead.video.decode.Backend`."""
        pictures = np.empty((len(wanted), height, width, 3), np.uint8)
        convert = Converter(height, width, self.survey.orientation)
        numbers, places = np.unique(wanted, return_inverse=True)
        with closing(self._frames(numbers)) as frames:
            for number, frame in enumerate(frames):
                pictures[places == number] = convert(frame)
        return pictures

    def ticks(self) -> list[int | None]:
        """The time of each frame that is shown, by decoding all of them."""
        return [frame.pts for frame in self._from_start()]

    def _frames(self, numbers: np.ndarray) -> Generator[VideoFrame, None, None]:
        """The frames of rising numbers."""
        given = 0
        if self.survey.is_sure:
            with closing(self._directly(self.survey.times[self.survey.shown][numbers])) as frames:
                try:
                    for frame in frames:
                        yield frame
                        given += 1
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
                if next_one < 0:
                    return
        raise VideoError(f"{self.survey.path}: damaged: only {index + 1} frames of it are there")

    def _directly(self, ticks: np.ndarray) -> Generator[VideoFrame, None, None]:
        """The frames of rising times, each from the keyframe before it."""
        survey = self.survey
        with opened(survey.path, self.threads, KNOWN, survey.stream) as (container, stream):
            for start, of_run in self._runs(ticks):
                time, seek_to = (None, None) if start is None else survey.starts[start].tolist()
                if seek_to is not None:
                    container.seek(seek_to, stream=stream)
                yield from _Run(survey, time, of_run).frames(container, stream)

    def _runs(self, ticks: np.ndarray) -> Iterator[tuple[int | None, np.ndarray]]:
        """Parts to decode without a jump: the start (None is that of the file) and the times."""
        starts, times = self.survey.starts[:, 0], self.survey.times
        starts = starts[1:] if len(starts) and starts[0] == times[0] else starts
        nearest = np.searchsorted(starts, ticks, side="right") - 1  # -1: the file's
        place = np.searchsorted(times, ticks)
        place_of_start = np.append(np.searchsorted(times, starts), 0)[nearest]
        gap = place_of_start - np.append(0, place[:-1])
        jumps = (np.diff(nearest, prepend=-1) > 0) & (gap >= _WORTH_A_JUMP)
        skipped = len(self.survey.starts) - len(starts)
        for part in np.split(np.arange(len(ticks)), np.flatnonzero(jumps)):
            if len(part):
                start = nearest[part[0]].item() + skipped if jumps[part[0]] else None
                yield start, ticks[part]

    def _from_start(self) -> Generator[VideoFrame, None, None]:
        """The frames that are shown, in order, each checked to be the one promised."""
        survey, index = self.survey, 0
        promised = zip(survey.times.tolist(), survey.shown.tolist(), strict=True)
        with opened(survey.path, self.threads, index=survey.stream) as (container, stream):
            try:
                for frame in _decode(survey, container, stream):
                    whole, shown = not frame.is_corrupt, True
                    if survey.is_sure:
                        if frame.pts is not None and frame.pts < survey.times[0]:
                            continue  # refers to what was cut off
                        time, shown = next(promised, (None, True))
                        whole = whole and time == frame.pts
                    if not whole:
                        raise VideoError(f"{survey.path}: damaged: frame {index} cannot be decoded")
                    if shown:
                        yield frame
                        index += 1
            except av.FFmpegError as error:
                raise VideoError(
                    f"{survey.path}: damaged or truncated after frame {index - 1}: {error.strerror}"
                ) from error


class _UnexpectedError(Exception):
    """A decoded frame is not the one that the packets promised."""


class _Run:
    """Decoding from one packet to the last frame that is asked for, in ticks."""

    def __init__(self, survey: Survey, start: int | None, wanted: np.ndarray) -> None:
        self.survey = survey
        self.start = survey.times[0].item() if start is None else start
        self.is_reached = start is None
        self.wanted, self.last = set(wanted.tolist()), wanted[-1].item()
        first, stop = np.searchsorted(survey.times, (self.start, self.last + 1)).tolist()
        self.expected = iter(survey.times[first:stop].tolist())
        self.missing = set(survey.times[first:stop].tolist())  # whose packets are to come
        self.left_out: set[int] = set()

    def frames(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        context, codec = stream.codec_context, self.survey.codec
        width = bitstream.length_bytes(codec, context.extradata)
        for packet in packets(self.survey.path, container, stream):
            if not self._is_behind_start(packet):
                continue
            self.missing.discard(packet.pts)
            if packet.pts in self.wanted or not bitstream.is_droppable(
                codec, memoryview(packet), width
            ):
                yield from self._checked(stream.decode(unmarked(packet)))
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


def _decode(survey: Survey, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Decoded frames; those of packets marked "discard" too if all are known, errors and all."""
    for packet in packets(survey.path, container, stream):
        yield from stream.decode(unmarked(packet) if survey.is_sure else packet)
    yield from stream.decode(None)
