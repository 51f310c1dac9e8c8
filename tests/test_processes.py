import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from taghead.processes import end_with_parent


def _child(pid_file: str) -> None:
    end_with_parent()
    Path(pid_file).write_text(str(os.getpid()))
    time.sleep(600)


def _parent(pid_file: str) -> None:
    multiprocessing.get_context("spawn").Process(target=_child, args=(pid_file,)).start()
    time.sleep(600)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_child_ends_with_its_killed_parent(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    parent = multiprocessing.get_context("spawn").Process(target=_parent, args=(str(file),))
    parent.start()
    while not (file.exists() and file.read_text()):
        assert parent.is_alive()
        time.sleep(0.05)
    child, end = int(file.read_text()), time.monotonic() + 30
    assert _runs(child)
    assert parent.pid is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    while _runs(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(child)


def test_without_a_parent_it_does_nothing() -> None:
    end_with_parent()
