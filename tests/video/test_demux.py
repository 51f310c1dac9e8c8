"""What libavformat is given, and what of it is no video."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from numbered import write_video

from taghead.errors import VideoError
from taghead.video import VideoReader


def test_ffmpeg_is_given_a_file_and_nothing_else(
    h264: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, dict[str, str]]] = []
    by_av = av.open

    def record(file: str, *args: Any, options: dict[str, str], **others: Any) -> Any:
        opened.append((file, options))
        return by_av(file, *args, options=options, **others)

    avi = write_video(tmp_path / "a.avi", 12, "mpeg4")
    monkeypatch.setattr(av, "open", record)
    for path in (h264, avi):
        opened.clear()
        VideoReader(path).read([0, 11])
        assert len(opened) >= 2  # the survey, and reading
        for file, options in opened:
            assert file == f"file:{path}"
            assert options["protocol_whitelist"] == "file"
            assert options["pattern_type"] == "none"


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {}\n"


@pytest.mark.parametrize(("name", "text"), [("a.m3u8", HLS), ("a.txt", CONCAT)])
def test_playlists_are_no_videos(tmp_path: Path, name: str, text: str) -> None:
    video, path = write_video(tmp_path / "part.ts", 12), tmp_path / name
    path.write_text(text.format(video.name))
    with av.open(str(path)) as container:  # it is a playlist that leads to a video
        assert container.streams.video
    with pytest.raises(VideoError, match=rf"^{path}: is text, not a video$"):
        VideoReader(path)


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
        container.mux(cover.encode(picture.reformat(format="yuvj420p")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video
    with pytest.raises(VideoError, match=rf"^{path}: has no video stream$"):
        VideoReader(path)
