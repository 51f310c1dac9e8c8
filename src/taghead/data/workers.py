"""A pool of isolated worker processes: a crash or a hang costs one job, not the run."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar

from pebble import ProcessExpired, ProcessPool
from rich.filesize import decimal

from taghead.processes import start_worker

T = TypeVar("T")
R = TypeVar("R")
MAX_ATTEMPTS = 5
POLL_SEC = 1.0  # how often a pool is checked for having ended without a result


@dataclass(frozen=True)
class Failure:
    """What a job did instead of giving a result, such as `took longer than 3 s`.

    Args:
        reason: What it did.
        died: Whether its process died, or had no memory, which need not be the job's fault.
        stopped: Whether its process was ended from outside, as the system does without memory.
    """

    reason: str
    died: bool = field(default=False, compare=False)
    stopped: bool = field(default=False, compare=False)


def run_isolated(
    function: Callable[[T], R],
    jobs: Sequence[T],
    num_workers: int,
    time_limit_sec: Callable[[T], float],
    method: str | None = "spawn",
    is_finished: bool = False,
) -> Generator[tuple[T, R | Failure], None, None]:
    """Runs a function on every job, in processes that may die.

    Results come in the order in which they are ready, with one process in that of the jobs; the
    processes go on with the next jobs meanwhile. A process that dies or takes too long is that
    job's failure; another one replaces it.

    Args:
        function: What to run; found by its module and name in the processes. What
            it raises is raised here.
        jobs: Its arguments.
        num_workers: Number of processes, at least 1. A script that starts them needs the usual
            ``if __name__ == "__main__":``.
        time_limit_sec: How long a job may take.
        method: How processes are started, as multiprocessing names it; None for the system's usual
            way, which may start them faster.
        is_finished: Whether jobs under way are finished when the results are not wanted any more.

    Raises:
        RuntimeError: If processes die before they are given any job.
    """
    queue = deque(jobs)
    idle = [_Worker(function, method) for _ in range(min(num_workers, len(jobs)))]
    busy: list[_Worker[T, R]] = []

    def start() -> None:
        while queue and idle:
            job = queue.popleft()
            busy.append(idle.pop())
            busy[-1].start(job, time_limit_sec(job))

    try:
        start()
        while busy:
            wait([worker.future for worker in busy], POLL_SEC, FIRST_COMPLETED)
            for worker in [worker for worker in busy if worker.is_done()]:
                job, result = worker.job, worker.result()
                busy.remove(worker)
                idle.append(worker)
                start()
                yield job, result
    finally:
        for worker in (workers := [*busy, *idle]):
            finishes = is_finished and worker.pool.active
            worker.pool.close() if finishes else worker.pool.stop()
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

    def __init__(self, function: Callable[[T], R], method: str | None) -> None:
        self.function = function
        self.method = method
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
            outside = code in (-signal.SIGKILL, -signal.SIGTERM)
            return Failure(f"ended the process ({how})", died=True, stopped=outside)
        except MemoryError:
            return Failure("had no memory left", died=True, stopped=True)

    def _submit(self) -> None:
        self.attempts += 1
        if not self.pool.active:  # its process has died, in this job or before it
            self.pool.join()
            self.pool = self._new_pool()
        self.future: Future[R] = self.pool.schedule(
            self.function, (self.job,), timeout=self.limit_sec
        )

    def _new_pool(self) -> ProcessPool:
        context = multiprocessing.get_context(self.method)
        return ProcessPool(1, initializer=start_worker, context=context)


def run_surely(
    function: Callable[[T], R],
    jobs: Sequence[T],
    num_workers: int,
    time_limit_sec: Callable[[T], float],
    method: str | None = "spawn",
    is_finished: bool = False,
) -> Generator[tuple[T, R | Failure], None, None]:
    """Runs a function on every job as `run_isolated` does; a job whose process died runs again.

    The second time it has a process of its own. One that ends its process twice gives a failure
    that says so, with the memory that there was.
    """
    limits = time_limit_sec, method, is_finished
    with closing(run_isolated(function, jobs, num_workers, *limits)) as results:
        for job, result in results:
            if isinstance(result, Failure) and result.died:
                ((_, result),) = run_isolated(function, [job], 1, *limits)
                if isinstance(result, Failure) and result.died:
                    memory = f" (with {decimal(memory_limit())} of memory)" * result.stopped
                    result = replace(result, reason=f"{result.reason} twice{memory}")
            yield job, result


def memory_limit() -> int:
    """Bytes of memory that this process may use: of the machine, its container or its user."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits += [one for one in resource.getrlimit(resource.RLIMIT_AS) if one > 0]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # of cgroups 2 and 1
        with suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", file).read_text()))
    return min(limits)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
