"""Worker processes: they end with the process that started them, and with nothing else; cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing import connection


def end_with_parent() -> None:
    """Ends this process when its parent ends, even if the parent is killed.

    multiprocessing ends its processes only when the parent leaves in an orderly way, and torch
    watches the parent's process id, which is that of a server where processes are forked from one.
    In a process that nothing has started this does nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def start_worker(number: int = 0) -> None:
    """Initialises a worker process: it leaves Ctrl-C and SIGTERM to the parent, and ends with it.

    A SIGTERM to all processes of a job would otherwise take a training its readers before it has
    written its checkpoint. One that the parent itself sends ends the worker.

    Args:
        number: Index of the worker, as a `DataLoader` passes it to `worker_init_fn`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and hasattr(signal, "sigwaitinfo"):  # macOS cannot tell who sent one
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before there are threads
        threading.Thread(target=_exit_on_sigterm_of, args=(parent.pid,), daemon=True).start()
    end_with_parent()


def end_workers(timeout_sec: float = 5.0) -> None:
    """Ends the worker processes that a command has left, as its last step.

    At its exit, multiprocessing waits for ever for one that does not end, such as a stopped one;
    here it is killed.

    Args:
        timeout_sec: How long all of them have to end by themselves.
    """
    workers = multiprocessing.active_children()
    if not workers:
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises for those that end
    for worker in workers:
        worker.terminate()
    end = time.monotonic() + timeout_sec
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))
        if worker.is_alive():
            worker.kill()
            worker.join()


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _exit_on_sigterm_of(parent: int) -> None:
    """Waits for SIGTERM, which all threads of the process block."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # as torch's own workers do: another code would be an error


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
