"""Bitstream headers of coded pictures: whether one is shown, a reference, or a seek point.

Exact seeking rests on this: neither containers nor FFmpeg's keyframe flag tell whether a picture
decodes without anything before it, whether a packet hides a picture, or whether others refer to it.
Only headers are read; what is not understood is taken for a shown picture that others refer to.
"""

from collections.abc import Iterator
from itertools import pairwise

# H.264 (ISO/IEC 14496-10, table 7-1) and HEVC (ISO/IEC 23008-2, table 7-1) NAL unit types
_H264_SLICE, _H264_IDR, _H264_SEI = 1, 5, 6
_HEVC_RANDOM_ACCESS = range(16, 22)
_HEVC_CRA = 21  # which pictures that are shown before it may refer past
_RECOVERY_POINT = 6  # payload type of an SEI message
_START_CODE = b"\x00\x00\x01"
_MPEG_GROUP = 0xB8  # MPEG-1 and MPEG-2 (ISO/IEC 13818-2, 6.2.2.6): header of a group of pictures


def length_bytes(codec: str, extradata: bytes | None) -> int:
    """Bytes of the lengths between the NAL units of H.264 and HEVC; 0 where there are none."""
    at = {"h264": 4, "hevc": 21}.get(codec)
    if at is None or extradata is None or len(extradata) <= at:
        return 0
    if extradata[0] != 1 or extradata.startswith(b"\x00" + _START_CODE):
        return 0
    return (extradata[at] & 3) + 1


def can_start(codec: str, data: memoryview, width: int) -> bool:
    """Whether a keyframe is a seek point: it and all shown after it decode without what is before.

    So do an IDR picture and one with the promise of an exact recovery at once (open GOP). An
    H.264 "keyframe" may also begin a gradual refresh.

    Args:
        codec: Name of the codec.
        data: A packet that the container marks as a keyframe.
        width: The codec's :func:`length_bytes`.
    """
    if codec == "h264":
        return any(
            unit[0] & 31 == _H264_IDR or (unit[0] & 31 == _H264_SEI and _recovers_at_once(unit))
            for unit in _units(data, width)
        )
    if codec == "hevc":
        return any(unit[0] >> 1 & 63 in _HEVC_RANDOM_ACCESS for unit in _units(data, width))
    if codec == "vp8":
        return not data[0] & 1
    if codec == "vp9":
        return _vp9_is_key(data[0])
    return True


def starts_anew(codec: str, data: memoryview, width: int) -> bool:
    """Whether neither a keyframe nor what follows refers to anything before it (a closed GOP).

    Args:
        codec: Name of the codec.
        data: A packet that the container marks as a keyframe.
        width: The codec's :func:`length_bytes`; 0 if units begin with start codes.
    """
    if codec in ("mpeg1video", "mpeg2video"):
        groups = [unit for unit in _start_code_units(data) if unit[0] == _MPEG_GROUP]
        return bool(groups) and all(len(unit) > 4 and unit[4] & 0b01000000 for unit in groups)
    if codec not in ("h264", "hevc"):
        return can_start(codec, data, width)
    units = _units(data, width) if width else _start_code_units(data)
    if codec == "h264":
        return any(unit[0] & 31 == _H264_IDR for unit in units)
    kinds = {unit[0] >> 1 & 63 for unit in units}
    return any(kind in _HEVC_RANDOM_ACCESS for kind in kinds) and _HEVC_CRA not in kinds


def is_droppable(codec: str, data: memoryview, width: int) -> bool:
    """Whether no other picture refers to this one: H.264 states it in each of its slices."""
    if codec != "h264":
        return False
    slices = [unit[0] for unit in _units(data, width) if unit[0] & 31 in range(1, 6)]
    return bool(slices) and all(first & 127 == _H264_SLICE for first in slices)


def pictures_shown(codec: str, data: memoryview) -> int:
    """How many pictures of a packet are shown; VP8 and VP9 have hidden ones.

    In VP9 a hidden picture shares its packet with one that is shown.
    """
    if codec == "vp8":
        return data[0] >> 4 & 1
    if codec == "vp9":
        return sum(_vp9_is_shown(data[start]) for start in _vp9_starts(data))
    return 1


def _units(data: memoryview, width: int) -> Iterator[memoryview]:
    """The NAL units, or none at all if lengths do not fill the packet."""
    units, start = [], 0
    while width and start + width < len(data):
        size = int.from_bytes(data[start : start + width], "big")
        start += width
        units.append(data[start : start + size])
        start += size
    return iter(units if start == len(data) and all(map(len, units)) else [])


def _start_code_units(data: memoryview) -> list[memoryview]:
    """What follows each start code, up to the next one."""
    parts = bytes(data).split(_START_CODE)[1:]
    return [memoryview(part) for part in parts if part]


def _recovers_at_once(unit: memoryview) -> bool:
    """Whether SEI messages hold a recovery point of 0 frames that is an exact match."""
    start = 1
    while start + 2 < len(unit):
        kind, size = unit[start], unit[start + 1]
        if 255 in (kind, size):  # longer numbers
            return False
        if kind == _RECOVERY_POINT:
            return unit[start + 2] & 0b11000000 == 0b11000000
        start += 2 + size
    return False


def _vp9_starts(data: memoryview) -> list[int]:
    """Where the frames of a packet begin: several form a superframe, with an index at its end."""
    last = data[-1]
    frames, width = (last & 7) + 1, (last >> 3 & 3) + 1
    index = len(data) - (2 + frames * width)
    if last & 0b11100000 != 0b11000000 or index < 0 or data[index] != last:
        return [0]
    starts = [0]
    for number in range(frames):
        at = index + 1 + number * width
        starts.append(starts[-1] + int.from_bytes(data[at : at + width], "little"))
    return [start for start, end in pairwise(starts) if start < end <= index]


def _vp9_header(first: int) -> int:
    """Of a frame's first byte, the bits behind the marker and the profile, at the top."""
    profile = (first >> 5 & 1) | (first >> 4 & 1) << 1
    return first << (5 if profile == 3 else 4) & 255


def _vp9_is_shown(first: int) -> bool:
    shown_again, _, shown = (_vp9_header(first) >> bit & 1 for bit in (7, 6, 5))
    return bool(shown_again or shown)


def _vp9_is_key(first: int) -> bool:
    return _vp9_header(first) & 0b11000000 == 0
