"""Completeness of video files: their sizes compared with those in the container's headers.

Demuxers end without an error where a truncated file ends, and skip damaged parts of Matroska and
AVI files, as if the video were shorter: frames would be numbered wrongly. Only the sizes that a
container states about itself tell.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from taghead.errors import VideoError

# Matroska element IDs (RFC 9559)
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_BLOCK = 4096  # bytes that are read at once: a page of a disk
_MAX_LISTS = 8  # of an AVI file in one another: there is one, and one more for a record
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF})


def check_complete(path: Path) -> None:
    """Refuses an MP4, Matroska, WebM or AVI file that is shorter than its container states.

    Matroska and AVI files are also walked block by block, to check that their parts join up.
    Other containers, and parts of unknown length (a live recording), state nothing to check.

    Raises:
        VideoError: If bytes are missing, or if elements do not join up.
    """
    with path.open("rb", buffering=0) as file:
        data = _Bytes(file.fileno())
        try:
            declared = _declared_length(data)
        except _DisjointedError as error:
            raise VideoError(f"{path}: damaged: the container breaks at byte {error}") from None
        except _CutError:
            raise VideoError(f"{path}: became shorter while it was read") from None
        if declared > len(data):
            raise VideoError(f"{path}: truncated: it has {len(data)} of {declared} bytes")


class _CutError(Exception):
    """The file has become shorter than it was."""


class _Bytes:
    """The bytes of an open file, read where they are asked for.

    A memory map would end the process if the file were cut meanwhile.

    Args:
        descriptor: The file's.

    Raises:
        _CutError: From reading, if the file is shorter than it was.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._length = os.fstat(descriptor).st_size
        self._block, self._start = b"", 0

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> bytes:
        """Bytes from `start` up to `stop`; fewer at the end of the file, as a slice has."""
        stop = min(stop, self._length)
        first = start - self._start
        if not 0 <= first <= first + stop - start <= len(self._block):
            self._block = os.pread(self._descriptor, max(stop - start, _BLOCK), start)
            self._start, first = start, 0
        found = self._block[first : first + max(0, stop - start)]
        if len(found) < stop - start:
            raise _CutError
        return found

    def number(self, start: int, stop: int, order: Literal["big", "little"] = "big") -> int:
        """The number that some bytes hold."""
        return int.from_bytes(self.read(start, stop), order)


class _DisjointedError(Exception):
    """An element is invalid or exceeds the one around it; holds the byte offset."""


def _declared_length(data: _Bytes) -> int:
    if data.read(0, 4) == b"\x1a\x45\xdf\xa3":
        return _declared_matroska(data)
    if data.read(0, 4) == b"RIFF" and data.read(8, 12) == b"AVI ":
        return _declared_avi(data)
    if data.read(4, 8) in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _declared_mp4(data)
    return 0


def _declared_mp4(data: _Bytes) -> int:
    start = declared = 0
    while start + 8 <= len(data):
        size, kind = data.number(start, start + 4), data.read(start + 4, start + 8)
        if size == 1:  # a 64-bit size follows
            size = data.number(start + 8, start + 16)
        if size < 8:  # 0: up to the end of the file
            break
        start += size
        if kind in (b"mdat", b"moov", b"moof"):  # anything else may be rubbish at the end
            declared = start
    return declared


def _declared_avi(data: _Bytes) -> int:
    declared = data.number(4, 8, "little")  # some writers count the 8 bytes before it too
    if declared <= len(data):
        _walk_riff(data, 12, min(8 + declared, len(data)))
    return declared


def _walk_riff(data: _Bytes, start: int, end: int) -> None:
    ends = [(end, 0)]  # of the lists around, and what pads them
    while ends:
        if start + 8 > ends[-1][0]:
            start = sum(ends.pop())
            continue
        kind, size = data.read(start, start + 4), data.number(start + 4, start + 8, "little")
        after = start + 8 + size
        if after > ends[-1][0] or not kind.isascii():
            raise _DisjointedError(start)
        if kind == b"LIST" and data.read(start + 8, start + 12) in (b"movi", b"rec "):
            if len(ends) > _MAX_LISTS:  # libavformat goes down by recursion
                raise _DisjointedError(start)
            ends.append((after, size % 2))
            start += 12
        else:
            start = after + size % 2


def _declared_matroska(data: _Bytes) -> int:
    for kind, start, end in _elements(data, 0, None):
        if kind != _SEGMENT:
            continue
        if end is None or end > len(data):
            return end or 0
        for child, child_start, child_end in _elements(data, start, end):
            if child == _CLUSTER and child_end is not None:
                _walk_cluster(data, child_start, child_end)
        return end  # what follows may be rubbish
    return 0


def _walk_cluster(data: _Bytes, start: int, end: int) -> None:
    for kind, first, stop in _elements(data, start, end):
        if kind not in _IN_CLUSTER or stop is None:
            raise _DisjointedError(first)


def _elements(data: _Bytes, start: int, limit: int | None) -> Iterator[tuple[int, int, int | None]]:
    """ID, first byte and end of each EBML element; the end is None, and the last, if unknown."""
    while start < (len(data) if limit is None else limit):
        first = start
        kind, start = _number(data, start, marked=True)
        size, after = _number(data, start, marked=False)
        unknown = size == (1 << 7 * (after - start)) - 1
        end = None if unknown else after + size
        if end is not None and limit is not None and end > limit:
            raise _DisjointedError(first)
        yield kind, after, end
        if end is None:
            return
        start = end


def _number(data: _Bytes, start: int, marked: bool) -> tuple[int, int]:
    """A number of 1 to 8 bytes, whose first set bit tells its length, and where it ends."""
    length = 9 - data.number(start, start + 1).bit_length() if start < len(data) else 9
    if length > 8 or start + length > len(data):
        raise _DisjointedError(start)
    value = data.number(start, start + length)
    return (value if marked else value & ((1 << 7 * length) - 1)), start + length
