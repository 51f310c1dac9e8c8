from collections.abc import Callable
from pathlib import Path

import pytest
from numbered import H264, write_video

LINES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Takes lines to print at the end of the run."""
    return pytestconfig.stash.setdefault(LINES, []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if lines := config.stash.get(LINES, []):
        terminalreporter.section("what was read")
        for line in lines:
            terminalreporter.write_line(line)


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
