import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taghead.processes import end_with_parent, end_workers, start_worker, usable_cores

SCRIPT = """
import multiprocessing, os, sys, time
from taghead.processes import start_worker

def work(path):
    start_worker()
    open(path, "w").write(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    context.Process(target=work, args=(sys.argv[2],)).start()
    time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_worker_ends_with_a_parent_that_is_killed(method: str, tmp_path: Path) -> None:
    script, note = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(script), method, str(note)])
    end = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    worker = int(note.read_text())
    assert is_alive(worker)
    parent.send_signal(signal.SIGINT)  # the parent's to handle
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while is_alive(worker):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_process_that_nothing_has_started_stays() -> None:
    end_with_parent()
    assert usable_cores() >= 1


def test_workers_leave_interrupts_to_their_parent() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        start_worker(1)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def sleep(pid: object) -> None:
    start_worker()
    pid.value = os.getpid()
    time.sleep(600)


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def worker(request: pytest.FixtureRequest) -> Iterator[multiprocessing.process.BaseProcess]:
    """A worker process that is at work."""
    context = multiprocessing.get_context(request.param)
    pid = context.Value("i", 0)
    process = context.Process(target=sleep, args=(pid,), daemon=True)
    process.start()
    while not pid.value:
        assert process.is_alive()
        time.sleep(0.02)
    yield process
    process.kill()
    process.join()


def test_a_worker_leaves_sigterm_to_its_parent(
    worker: multiprocessing.process.BaseProcess,
) -> None:
    """A job's SIGTERM goes to all processes; a training needs its readers until its checkpoint."""
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    worker.join(1)
    assert worker.is_alive()
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


def test_workers_that_do_not_end_are_killed(
    worker: multiprocessing.process.BaseProcess,
) -> None:
    os.kill(worker.pid or 0, signal.SIGSTOP)
    end_workers(0.1)
    assert worker.exitcode == -signal.SIGKILL
    assert multiprocessing.active_children() == []
