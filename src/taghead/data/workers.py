"""Isolated jobs: a crash or a hang in a worker process costs one job, not the run."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from pebble import ProcessExpired, ProcessPool

from taghead.processes import start_worker

T = TypeVar("T")
R = TypeVar("R")
MAX_ATTEMPTS = 5
POLL_SEC = 1.0  # how often a pool is looked after that has ended without telling


@dataclass(frozen=True)
class Failure:
    """What a job did instead of giving a result, such as `took longer than 3 s`."""

    reason: str


def run_isolated(
    function: Callable[[T], R],
    jobs: Sequence[T],
    num_workers: int,
    time_limit_sec: Callable[[T], float],
) -> Generator[tuple[T, R | Failure], None, None]:
    """Runs a function on every job, in processes that may die.

    Results come in the order in which they are ready. A process that dies or takes too long is
    that job's failure; another one replaces it.

    Args:
        function: What to run; found by its module and name in the processes. What
            it raises is raised here.
        jobs: Its arguments.
        num_workers: Number of processes, at least 1. A script that starts them needs the usual
            ``if __name__ == "__main__":``.
        time_limit_sec: How long a job may take.

    Raises:
        RuntimeError: If processes die before they are given any job.
    """
    queue = deque(jobs)
    idle = [_Worker(function) for _ in range(min(num_workers, len(jobs)))]
    busy: list[_Worker[T, R]] = []
    try:
        while queue or busy:
            while queue and idle:
                job = queue.popleft()
                busy.append(idle.pop())
                busy[-1].start(job, time_limit_sec(job))
            wait([worker.future for worker in busy], POLL_SEC, FIRST_COMPLETED)
            for worker in [worker for worker in busy if worker.is_done()]:
                result = worker.result()
                busy.remove(worker)
                idle.append(worker)
                yield worker.job, result
    finally:
        for worker in (workers := [*busy, *idle]):
            worker.pool.stop()
        for worker in workers:
            worker.pool.join()


class _Worker(Generic[T, R]):
    """A pebble pool of one process, which runs one job at a time.

    A pebble pool of several processes gives up all of its jobs, those of the other processes too,
    when a process dies so early that the pool has not noticed which job it had (once in about
    2,000 crashes). With one job in one process it is known, and the job is tried again. Processes
    are spawned: of those that are forked from a server, several threads that start and watch them
    lose exit codes to each other.
    """

    def __init__(self, function: Callable[[T], R]) -> None:
        self.function = function
        self.pool = self._new_pool()

    def start(self, job: T, limit_sec: float) -> None:
        """Starts a job."""
        self.job, self.limit_sec, self.attempts = job, limit_sec, 0
        self._submit()

    def is_done(self) -> bool:
        """Whether the job has a result; one whose pool broke is tried again."""
        if self.pool.active and not self.future.done():
            return False
        if self.future.done() and not isinstance(self.future.exception(), BrokenProcessPool):
            return True
        if self.attempts == MAX_ATTEMPTS:
            raise RuntimeError(
                "a worker process died at its start: a script that starts processes needs "
                '`if __name__ == "__main__":`, or num_workers=0'
            )
        self._submit()
        return False

    def result(self) -> R | Failure:
        """What has become of the job."""
        try:
            return self.future.result()
        except TimeoutError:
            return Failure(f"took longer than {self.limit_sec:g} s")
        except ProcessExpired as error:
            code = error.exitcode
            how = _signal_name(-code) if code and code < 0 else f"exit code {code}"
            return Failure(f"ended the process ({how})")

    def _submit(self) -> None:
        self.attempts += 1
        if not self.pool.active:  # its process has died, in this job or before it
            self.pool.join()
            self.pool = self._new_pool()
        self.future: Future[R] = self.pool.schedule(
            self.function, (self.job,), timeout=self.limit_sec
        )

    def _new_pool(self) -> ProcessPool:
        context = multiprocessing.get_context("spawn")
        return ProcessPool(1, initializer=start_worker, context=context)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
