from pathlib import Path

import pytest
from numbered import H264, write_video


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def h264(folder: Path) -> Path:
    """90 numbered frames, H.264 with B-frames in 12-frame GOPs, MP4 with its index first."""
    return write_video(folder / "h264.mp4", 90, container_options={"movflags": "faststart"})


@pytest.fixture(scope="session")
def open_gop(folder: Path) -> Path:
    """90 numbered frames, H.264 whose GOPs refer to each other."""
    return write_video(
        folder / "open.mp4", 90, options={**H264, "bf": "2", "x264-params": "open-gop=1"}
    )
