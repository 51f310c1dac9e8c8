"""Folders of videos: a folder for each class, as of Kinetics, or HAA500's."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from taghead.data.annotations.classes import numbers_of
from taghead.data.annotations.clip import Clip
from taghead.errors import DataError

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
_SUFFIXES = "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# 16 clips of a class to train, 1 to validate, 3 to test
HAA500_CLIPS: dict[Split, range] = {"train": range(16), "val": range(16, 17), "test": range(17, 20)}
_HAA500_NAME = re.compile(r"(?P<name>.+)_(?P<number>\d{3})")


def read_folders(folder: str | Path, classes: Sequence[str] | None = None) -> list[Clip]:
    """The clips of a split in the layout `<folder>/<class>/<file>`, as of Kinetics.

    Clips are the files with the suffix of a video; hidden files are none, and others are counted in
    a warning.

    Args:
        folder: The folder of the split.
        classes: The classes, by number; the folders in the order of the alphabet when not given.

    Raises:
        DataError: If there is no such folder, or no clip in it or in a class that it has; or a
            class that is not in `classes`.
    """
    found = _class_folders(Path(folder))
    numbers = numbers_of(folder, list(found), classes)
    return [Clip(path, numbers[name], name) for name, paths in found.items() for path in paths]


def split_folders(root: str | Path) -> dict[Split, Path]:
    """The folders `train`, `val` and `test` (or the like) that a folder has.

    Raises:
        DataError: If it has two for one split.
    """
    found: dict[Split, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        there = [Path(root) / name for name in names if (Path(root) / name).is_dir()]
        if len(there) > 1:
            raise DataError(
                f"{root}: both {there[0].name} and {there[1].name} are there: say which"
            )
        if there:
            found[split] = there[0]
    return found


def read_haa500(root: str | Path, split: Split, classes: Sequence[str] | None = None) -> list[Clip]:
    """The clips of a split of `HAA500 <https://arxiv.org/abs/2009.05224>`_.

    Each class has clips `<class>_000` to `<class>_019`, of which 000 to 015 are for training, 016
    for validation and 017 to 019 for the test. They lie in a folder of the class's name, or all in
    one folder.

    Args:
        root: The folder of the class folders, or of all clips.
        split: Which clips.
        classes: The classes, by number; in the order of the alphabet when not given.

    Raises:
        DataError: If a file is not named like that, or there is none.
    """
    root = Path(root)
    found = haa500_clips(root)
    numbers = numbers_of(root, [name for name, _, _ in found], classes)
    return [
        Clip(path, numbers[name], name)
        for name, number, path in found
        if number in HAA500_CLIPS[split]
    ]


def haa500_clips(root: Path) -> list[tuple[str, int, Path]]:
    """Class, number and file of all clips in HAA500's layout.

    Raises:
        DataError: If a file is not named as in HAA500, or there is none.
    """
    flat = [path for path in _videos(root) if not path.is_dir()]
    named = {"": flat} if flat else _class_folders(root)
    found = []
    for folder, paths in named.items():
        for path in paths:
            match = _HAA500_NAME.fullmatch(path.stem)
            if not match or int(match["number"]) > 19 or not _alike(match["name"], folder):
                raise DataError(f"{path}: HAA500 has files named <class>_000 to <class>_019 only")
            found.append((folder or match["name"], int(match["number"]), path))
    return found


def _alike(name: str, folder: str) -> bool:
    """Whether a name is that of its folder, but for spaces and the like; without one, it is."""
    letters, of_folder = (re.sub(r"[\W_]", "", text).lower() for text in (name, folder))
    return not folder or letters == of_folder


def looks_like_haa500(root: Path) -> bool | None:
    """Whether a folder has HAA500's layout; None if it may have.

    It has, if each class has all clips 000 to 019. It has not, if a file is named otherwise.
    """
    try:
        found = haa500_clips(root)
    except DataError:
        return False
    numbers: dict[str, set[int]] = {}
    for name, number, _ in found:
        numbers.setdefault(name, set()).add(number)
    return True if all(len(of_class) == 20 for of_class in numbers.values()) else None


def _class_folders(root: Path) -> dict[str, list[Path]]:
    """The videos of each class folder, both in the order of the alphabet."""
    folders = [path for path in _entries(root) if path.is_dir()]
    if not folders:
        raise DataError(f"{root}: no class folders in it")
    found = {folder.name: _videos(folder) for folder in folders}
    for folder in folders:
        if not found[folder.name]:
            raise DataError(f"{folder}: no video in this class folder")
    return found


def _videos(folder: Path) -> list[Path]:
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
