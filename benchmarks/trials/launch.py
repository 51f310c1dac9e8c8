"""Starts `taghead` in processes that are sessions of their own, quickly.

A server imports the package once and forks a process for each command, so a command takes seconds
where importing alone would take as many.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOADED = (
    "taghead.training.task",
    "taghead.training.lightning_cli",
    "taghead.training.report",
    "taghead.inference.predictor",
    "taghead.explain.command",
    "taghead.features.extract",
    "taghead.features.datamodule",
    "taghead.data.index.command",
    "taghead.data.synthetic.writer",
    "taghead.sweep.command",
    "taghead.sweep.run",
    "taghead.sweep.store",
)
CODE = "from trials.launch import serve\nargs = serve()\nfrom taghead.cli import main\nmain(args)\n"
GONE_SEC = 60.0  # until the processes of a command that has ended must be gone, on a busy machine


class Server:
    """Forks a process for each command; a context manager, which ends all that it started."""

    def __enter__(self) -> Server:
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        )
        self._codes: dict[int, int] = {}  # by the number of the request: pids come again
        self._newest: dict[int, int] = {}  # the number of a pid's newest request
        self._pids: list[int] = []
        self._num_requests = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for number, pid in enumerate(self._pids):
            if number not in self._codes:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def start(self, args: Sequence[str], folder: Path, log: Path) -> Process:
        """Starts `taghead` with arguments in a folder; what it prints goes to a log."""
        request = {"args": list(args), "folder": str(folder), "log": str(log)}
        assert self._process.stdin is not None
        with self._changed:  # which waiting releases: the server answers in the order of requests
            number, self._num_requests = self._num_requests, self._num_requests + 1
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            if not self._changed.wait_for(lambda: len(self._pids) > number, timeout=300):
                raise RuntimeError("the server of processes has ended")
            return Process(self._pids[number], number, self, tuple(args), log)

    def code(self, number: int, timeout_sec: float | None) -> int | None:
        """The exit code of a request's process, negative for a signal; None if it still runs."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._codes, timeout_sec)
            return self._codes.get(number)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            with self._changed:
                if "code" in told:
                    self._codes[self._newest[told["pid"]]] = told["code"]
                else:
                    self._newest[told["pid"]] = len(self._pids)
                    self._pids.append(told["pid"])
                self._changed.notify_all()


@dataclass(frozen=True)
class Process:
    """A command that was started, and all processes of its session."""

    pid: int
    number: int
    server: Server
    args: tuple[str, ...]
    log: Path

    def wait(self, timeout_sec: float | None = None) -> int | None:
        """Its exit code, negative for a signal; None if it runs on after that time."""
        return self.server.code(self.number, timeout_sec)

    def workers(self) -> list[int]:
        """The processes that it has started, without multiprocessing's own helper."""
        return [pid for pid in session(self.pid) if pid != self.pid and not _is_helper(pid)]

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def signal_all(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def left_over(self) -> list[int]:
        """Its processes that live on after it has ended, and should not; they are killed."""
        end = time.monotonic() + GONE_SEC
        while (left := session(self.pid)) and time.monotonic() < end:
            time.sleep(0.1)
        self.signal_all(signal.SIGKILL)
        return left


def session(leader: int) -> list[int]:
    """The live processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, number = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(number) == leader and state != "Z":
                    found.append(int(entry.name))
    return found


def _is_helper(pid: int) -> bool:
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def serve() -> list[str]:
    """Forks a process for each line of standard input; in such a process, returns its arguments."""
    import warnings

    warnings.simplefilter("ignore")
    for module in PRELOADED:
        importlib.import_module(module)
    warnings.resetwarnings()
    text, is_open = b"", True
    running: set[int] = set()
    while is_open or running:
        if select.select([0], [], [], 0.02)[0] if is_open else time.sleep(0.02):
            part = os.read(0, 65536)
            is_open, text = bool(part), text + part
        *lines, text = text.split(b"\n")
        for line in lines:
            request = json.loads(line)
            if (pid := os.fork()) == 0:
                return _become(request)
            running.add(pid)
            _tell({"pid": pid})
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                running.remove(pid)
                _tell({"pid": pid, "code": os.waitstatus_to_exitcode(status)})
    os._exit(0)


def _tell(content: Mapping[str, Any]) -> None:
    os.write(1, json.dumps(content).encode() + b"\n")


def _become(request: Mapping[str, Any]) -> list[str]:
    """Makes this process what a shell would start: its session, folder and streams."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    os.chdir(request["folder"])
    empty, log = (
        os.open(os.devnull, os.O_RDONLY),
        os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
    )
    for stream, target in ((0, empty), (1, log), (2, log)):
        os.dup2(target, stream)
    os.environ["XDG_CACHE_HOME"] = str(Path(request["folder"], ".cache"))
    sys.argv = ["taghead"]
    return list(request["args"])
