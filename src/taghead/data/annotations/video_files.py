"""Video files in folders: which files of a folder are videos, and in which class folder."""

from __future__ import annotations

import logging
from pathlib import Path

from taghead.errors import DataError

log = logging.getLogger(__name__)

_SUFFIXES = "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())


def class_folders(root: Path) -> dict[str, list[Path]]:
    """The videos of each class folder, both in alphabetical order.

    Raises:
        DataError: If there is no class folder, or no video in one.
    """
    folders = [path for path in _entries(root) if path.is_dir()]
    if not folders:
        raise DataError(f"{root}: no class folders in it")
    found = {folder.name: videos_in(folder) for folder in folders}
    for folder in folders:
        if not found[folder.name]:
            raise DataError(f"{folder}: no video in this class folder")
    return found


def videos_in(folder: Path) -> list[Path]:
    """The entries of a folder with a video's suffix, sorted; other files are named in a warning.

    Raises:
        DataError: If there is no such folder, or it cannot be read.
    """
    entries = _entries(folder)
    videos = [path for path in entries if path.suffix.lower() in SUFFIXES]
    others = [path for path in entries if path not in set(videos) and not path.is_dir()]
    if videos and others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        log.warning("%s%s: left aside: the suffix is not that of a video", others[0], more)
    return videos


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no such folder") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error
