"""Worker processes end with the process that started them; the number of usable cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
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
    """Initialises a worker process: it leaves Ctrl-C to the parent, and ends with it.

    Args:
        number: Index of the worker, as a `DataLoader` passes it to `worker_init_fn`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
