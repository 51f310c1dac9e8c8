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


PROOF: dict[str, dict[str, int]] = {}


@pytest.fixture
def proof() -> dict[str, dict[str, int]]:
    """By backend: how many frames were read and found right, of how many files; files refused."""
    return PROOF


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for backend, found in PROOF.items():
        terminalreporter.write_line(
            f"frames read by {backend}: {found['read']} of {found['files']} files, none wrong; "
            f"{found['refused']} files refused"
        )
