"""File stamps: detect that a file has changed, without reading it again."""

import os
import time
from pathlib import Path
from typing import NamedTuple

# A file system may give two changes within this time the same timestamp (FAT counts 2 seconds).
SETTLED_SEC = 2.0


class FileStamp(NamedTuple):
    """State of a file. Writing to it, replacing it and setting its times change the stamp.

    Attributes:
        size: Bytes.
        mtime_ns: When its content was changed, in nanoseconds; copying tools may set it.
        ctime_ns: When its content or its attributes were changed; nothing can set it.
        inode: Number of the file in its file system.
        device: Number of the file system.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


def stamp_of(path: Path) -> FileStamp | None:
    """The stamp of a file; None if there is none, or if it has changed in the last seconds.

    A change that follows another one at once might not show in the file's times.
    """
    try:
        stat = os.stat(path)
    except OSError:
        return None
    stamp = FileStamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev)
    age_ns = time.time_ns() - max(stamp.mtime_ns, stamp.ctime_ns)
    return stamp if age_ns >= SETTLED_SEC * 1e9 else None
