"""Work in processes of their own, where a crash or a hang costs one job and not the run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Failure:
    """What a job did instead of giving a result, such as `took longer than 3 s`."""

    reason: str


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_isolated(
    function: Callable[[T], R],
    jobs: Sequence[T],
    num_workers: int,
    time_limit_sec: Callable[[T], float],
) -> Generator[tuple[T, R | Failure], None, None]:
    """Runs a function on every job, in processes that may die.

    Results come in the order in which they are ready. A process that dies or takes too long is
    that job's failure; another one takes its place.

    Args:
        function: What to run; found by its module and name in the processes. It must not raise.
        jobs: Its arguments.
        num_workers: Number of processes, at least 1. A script that starts them needs the usual
            ``if __name__ == "__main__":``.
        time_limit_sec: How long a job may take.

    Raises:
        RuntimeError: If a process dies before it is given any job.
    """
    queue = deque(jobs)
    context = _context(function.__module__)
    workers = [_Worker(context, function) for _ in range(min(num_workers, len(jobs)))]
    try:
        while queue or any(worker.job for worker in workers):
            for worker in workers:
                if worker.is_idle and queue:
                    job = queue.popleft()
                    worker.give(job, time_limit_sec(job))
            for worker in _ready(workers):
                given = worker.job
                result = worker.collect()
                if given is not None and result is not None:
                    yield given.value, result.value
            workers = [w for w in workers if w.is_alive]
            wanted = min(num_workers, len(queue) + len(workers))
            workers += [_Worker(context, function) for _ in range(wanted - len(workers))]
    finally:
        for worker in workers:
            worker.stop()


def start_worker() -> None:
    """In a worker process: an interrupt is the parent's to handle, and it does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def start_reader(number: int) -> None:
    """The same in a process of a data loader.

    Torch's own watch is on the parent process, which where processes are forked from a server is
    that server: readers would outlive a training that is killed.

    Args:
        number: Which of the loader's processes it is.
    """
    start_worker()


def _leave_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@dataclass(frozen=True)
class _Box(Generic[T]):
    """A value that may be None, told from no value."""

    value: T


class _Worker(Generic[T, R]):
    """A process that runs a function, one job at a time."""

    def __init__(self, context: BaseContext, function: Callable[[T], R]) -> None:
        self.connection, theirs = context.Pipe()
        self.process: Any = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, function), daemon=True
        )
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection
        self.is_ready = False
        self.is_alive = True
        self.job: _Box[T] | None = None
        self.deadline = float("inf")
        self.limit_sec = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a job."""
        return self.is_alive and self.is_ready and self.job is None

    def give(self, job: T, limit_sec: float) -> None:
        """Starts a job."""
        self.job, self.limit_sec = _Box(job), limit_sec
        self.deadline = time.monotonic() + limit_sec
        with suppress(OSError):  # a process that has died meanwhile: `collect` finds it out
            self.connection.send(job)

    def collect(self) -> _Box[R | Failure] | None:
        """What has become of its job; None for the message that it is ready."""
        if not self.connection.poll():
            return self._fail(f"took longer than {self.limit_sec:g} s")
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            return self._fail("")
        if not self.is_ready:
            self.is_ready = True
            return None
        self.job, self.deadline = None, float("inf")
        return _Box(result)

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        self.is_alive, self.job = False, None

    def _fail(self, reason: str) -> _Box[R | Failure]:
        if not reason:
            self.process.join(1)
            code = self.process.exitcode
            how = _signal_name(-code) if code and code < 0 else f"exit code {code}"
            reason = f"ended the process ({how})"
        self.stop()
        if not self.is_ready:
            raise RuntimeError(
                "a worker process died at its start: a script that starts processes needs "
                '`if __name__ == "__main__":`, or num_workers=0'
            )
        return _Box(Failure(reason))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _ready(workers: Sequence[_Worker[T, R]]) -> list[_Worker[T, R]]:
    """The workers that have something to say, or have had their time."""
    busy = [worker for worker in workers if worker.is_alive and not worker.is_idle]
    left = min((worker.deadline for worker in busy), default=0.0) - time.monotonic()
    timeout = None if left == float("inf") else max(0.0, left)
    heard = connection.wait([worker.connection for worker in busy], timeout)
    now = time.monotonic()
    return [w for w in busy if w.connection in heard or w.deadline <= now]


def _serve(theirs: Connection, function: Callable[[T], R]) -> None:
    start_worker()
    theirs.send("ready")
    while True:
        try:
            job = theirs.recv()
        except EOFError:
            return
        theirs.send(function(job))


def _context(module: str) -> BaseContext:
    """How processes start: forked from a small server that has the module, where that is there."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context
