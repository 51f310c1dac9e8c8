from pathlib import Path

import av
import pytest
from numbered import H264, HEVC, VPX, packets_of, write_video

from taghead.video import bitstream

GOPS = "keyint=12:min-keyint=12"
CLOSED_MPEG2 = {"g": "12", "bf": "2", "flags": "+cgop", "sc_threshold": "1000000000"}
CLOSED_HEVC = {**HEVC, "x265-params": HEVC["x265-params"] + ":open-gop=0"}


@pytest.mark.parametrize("extension", ["mp4", "ts"])
@pytest.mark.parametrize(
    ("codec", "options", "is_closed"),
    [
        ("libx264", {**H264, "x264-params": GOPS}, True),
        ("libx264", {**H264, "x264-params": f"open-gop=1:{GOPS}"}, False),
        ("libx264", {**H264, "bf": "0", "x264-params": "intra-refresh=1"}, False),
        ("libx265", CLOSED_HEVC, True),
        ("libx265", HEVC, False),
        ("mpeg2video", {"g": "12", "bf": "2"}, False),
        ("mpeg2video", CLOSED_MPEG2, True),
    ],
)
def test_keyframes_of_closed_and_open_gops(
    tmp_path: Path, extension: str, codec: str, options: dict, is_closed: bool
) -> None:
    path = write_video(tmp_path / f"a.{extension}", 40, codec, options=options)
    with av.open(path) as container:
        context = container.streams.video[0].codec_context
        name = context.codec.canonical_name
        width = bitstream.length_bytes(name, context.extradata)
    keyframes = [memoryview(bytes(one)) for one in packets_of(path) if one.is_keyframe]
    assert width == (4 if extension == "mp4" and "mpeg2" not in codec else 0)
    anew = [bitstream.starts_anew(name, one, width) for one in keyframes]
    assert anew[0]  # there is nothing before it
    assert anew[1:] == [is_closed] * (len(keyframes) - 1)
    assert "refresh" in str(options) or len(keyframes) > 2


def test_keyframes_of_vp9_start_anew(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", 20, "libvpx-vp9", options={**VPX, "g": "10"})
    for packet in packets_of(path):
        is_start = bitstream.starts_anew("vp9", memoryview(packet), 0)
        assert is_start == packet.is_keyframe


def test_what_is_no_unit_starts_nothing() -> None:
    for data in (b"", b"\x00\x00\x01", b"rubbish", bytes(40)):
        for codec in ("h264", "hevc", "mpeg2video"):
            assert not bitstream.starts_anew(codec, memoryview(data), 0)
