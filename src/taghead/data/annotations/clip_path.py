"""Clip path: where a video lies that an annotation names, within the folder of videos."""

from __future__ import annotations

import os
from pathlib import Path

from taghead.errors import DataError


def clip_path(root: Path, name: str, where: str, outside_root: bool = False) -> Path:
    """The path of a video.

    Args:
        root: The folder of videos.
        name: What the annotation calls it: relative to `root`, or absolute.
        where: The file and the line that name it, for the error.
        outside_root: Whether it may lie anywhere.

    Raises:
        DataError: If it leaves `root`. Links within `root` are the user's own.
    """
    path = root / name
    if outside_root or is_inside(path, root):
        return path
    raise DataError(
        f"{where}: {name!r} is outside the folder of videos {root}: outside_root=true allows it"
    )


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path lies in a folder, links aside."""
    if path.is_relative_to(root) and ".." not in path.relative_to(root).parts:
        return True  # most are, and this is fast
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))
