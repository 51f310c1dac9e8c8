"""A process that is killed while its readers are in the middle of a clip, and what they do."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BEGIN_SEC, END_SEC = 300.0, 60.0  # until a test fails: a busy machine imports slowly


def killed_while_reading(
    command: Sequence[str | Path], folder: Path, readers: int = 2
) -> list[int]:
    """Runs a Python script, and kills it once its readers have begun.

    Args:
        command: The script and its arguments; the folder follows them, in which each reader makes
            a file of the name of its process.
        folder: An empty folder is made in it.
        readers: How many there are.

    Returns:
        The processes of the readers.
    """
    notes = folder / "readers"
    notes.mkdir()
    parent = subprocess.Popen([sys.executable, *map(str, command), str(notes)])
    try:
        end = time.monotonic() + BEGIN_SEC
        while len(list(notes.iterdir())) < readers:
            assert parent.poll() is None, "the script ended before its readers had begun"
            assert time.monotonic() < end, "its readers do not begin"
            time.sleep(0.02)
    finally:
        parent.kill()
        parent.wait()
    return [int(note.name) for note in notes.iterdir()]


def all_ended(processes: Sequence[int]) -> bool:
    """Whether processes end; those that do not are killed."""
    end = time.monotonic() + END_SEC
    while any(map(is_alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    left = [process for process in processes if is_alive(process)]
    for process in left:
        os.kill(process, 9)
    return not left


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
