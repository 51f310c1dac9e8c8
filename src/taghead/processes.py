"""Child processes that end when their parent does."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import connection


def end_with_parent() -> None:
    """Ends this child process as soon as its parent has ended, also where that was killed.

    A daemonic process ends with its parent only where the parent can still clean up. The function
    returns at once; in a process that `multiprocessing` did not start it does nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    thread = threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True)
    thread.start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
