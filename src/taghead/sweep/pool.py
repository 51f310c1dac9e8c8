"""The workers of a sweep on this machine."""

from __future__ import annotations

import multiprocessing
import os
import socket
import uuid
from pathlib import Path

import torch

from taghead.errors import DataError
from taghead.sweep.store import MAX_LOST, Store
from taghead.sweep.worker import Job, work

STOP_SEC = 30


class Pool:
    """Worker processes; one that dies is replaced, and its run is queued again by the command.

    It is a context: on leaving, the workers end, and what they were doing is given up.

    Args:
        store: The sweep's store.
        num_workers: How many workers there are.
        threads: Threads that each computes with.
        limit: How many runs they may begin together; any number if None.
        logs: The folder of their logs.
    """

    def __init__(
        self, store: Store, num_workers: int, threads: int, limit: int | None, logs: Path
    ) -> None:
        self._store = store
        self._num_workers = num_workers
        self._threads = threads
        self._logs = logs
        self._context = multiprocessing.get_context("spawn")
        self._stop = self._context.Event()
        self._left = self._context.Value("i", -1 if limit is None else limit)
        self._died_idle = 0
        self._workers: dict[int, tuple[multiprocessing.process.BaseProcess, Job]] = {}

    def __enter__(self) -> Pool:
        return self

    def start(self) -> None:
        """Starts the workers."""
        for number in range(self._num_workers):
            self._start(number)

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if error[0] is None:
            for process, _ in self._workers.values():
                process.join(STOP_SEC)
        for process, job in self._workers.values():
            process.kill()
            process.join()
            self._store.lose(job.owner, "")

    def tend(self) -> bool:
        """Replaces workers that have died.

        Returns:
            Whether any is at work.

        Raises:
            DataError: If several died before they had begun with a run.
        """
        for number, (process, job) in list(self._workers.items()):
            if process.is_alive():
                continue
            del self._workers[number]
            if process.exitcode == 0:  # there is no run left that it may begin
                continue
            reason = f"its process died with exit code {process.exitcode}"
            if not self._store.lose(job.owner, reason):
                self._died_idle += 1
                if self._died_idle == MAX_LOST:
                    raise DataError(f"a worker of the sweep: {reason}; see {job.log}")
            self._start(number)
        return bool(self._workers)

    def _start(self, number: int) -> None:
        job = Job(
            self._store.url,
            self._store.name,
            new_owner(),
            self._logs / f"worker-{number}.log",
            self._threads,
            _gpu(number),
        )
        arguments = (job, self._stop, self._left)
        process = self._context.Process(target=work, args=arguments, name=job.owner)
        process.start()
        self._workers[number] = process, job


def new_owner() -> str:
    """A name for a worker that this process starts: the machine, this process, and a number."""
    return f"{_machine()} {os.getpid()} {uuid.uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether an owner's command was of this machine and is no more."""
    machine, pid, _ = owner.rsplit(" ", 2)
    if machine != _machine():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _machine() -> str:
    """This machine, since it was started; where processes are numbered apart, these."""
    name = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{name} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return name


def _gpu(number: int) -> str | None:
    """The GPU of a worker, where there are several."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    return gpus[number % len(gpus)] if len(gpus) > 1 else None
