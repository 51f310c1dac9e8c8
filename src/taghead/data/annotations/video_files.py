"""Video files in folders: which files of a folder are videos, and in which class folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from taghead.errors import DataError
from taghead.files import name_to_text

log = logging.getLogger(__name__)

_SUFFIXES = "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())


def class_folders(root: Path) -> dict[str, list[Path]]:
    """The videos of each class folder, both in alphabetical order.

    Folders without a video are no classes; they are named in a warning.

    Raises:
        DataError: If there is no class folder, no video in any, or a video in a folder below one.
    """
    folders = folders_in(root)
    if not folders:
        raise DataError(f"{root}: no class folders in it")
    loose = [path for path in videos_in(root) if path not in folders]
    if loose:
        log.warning("%s: left aside: it is in no class folder (1 of %d)", loose[0], len(loose))
    found = {name_to_text(folder.name): videos_in(folder) for folder in folders}
    for folder in folders:
        if not found[name_to_text(folder.name)]:
            log.warning("%s: no video in this class folder: it is not among the classes", folder)
        for below in folders_in(folder):
            if below not in found[name_to_text(folder.name)] and holds_videos(below):
                raise DataError(f"{below}: holds videos, but lies below a class folder")
    if not any(found.values()):
        raise DataError(f"{folders[0]}: no video in this class folder, nor in another")
    return {name: videos for name, videos in found.items() if videos}


def folders_in(root: Path) -> list[Path]:
    """The folders in a folder, sorted, but for hidden ones.

    Raises:
        DataError: If there is no such folder, or it cannot be read.
    """
    return [path for path in _entries(root) if path.is_dir()]


def holds_videos(folder: Path) -> bool:
    """Whether a folder, or one below it, has a file with a video's suffix."""
    return any(
        Path(file).suffix.lower() in SUFFIXES and not file.startswith(".")
        for _, _, files in os.walk(folder)
        for file in files
    )


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
