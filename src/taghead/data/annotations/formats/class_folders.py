"""Format `folders`: a folder for each class, as of Kinetics."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from taghead.data.annotations.annotation_format import (
    AnnotationFormat,
    Arguments,
    Certainty,
    Detection,
    detected,
)
from taghead.data.annotations.class_list import class_numbers
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.video_files import (
    class_folders,
    folders_in,
    holds_videos,
    videos_in,
)
from taghead.errors import DataError

log = logging.getLogger(__name__)

CLASSES_HINT = "where all folders are classes, say train=."
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
"""What folders of splits are called, in any case."""


def read_folders(folder: str | Path, classes: Sequence[str] | None = None) -> list[Clip]:
    """The clips of a split in the layout `<folder>/<class>/<file>`, as of Kinetics.

    Clips are the files with the suffix of a video; hidden files are none, and others are counted in
    a warning, as class folders without a clip are.

    Args:
        folder: The folder of the split.
        classes: The classes, by number; the folders in the order of the alphabet when not given.

    Raises:
        DataError: If there is no such folder, or no clip in it; if clips lie in folders below
            those of the classes; or a class is not in `classes`.
    """
    found = class_folders(Path(folder))
    numbers = class_numbers(folder, list(found), classes)
    return [Clip(path, numbers[name], name) for name, paths in found.items() for path in paths]


def split_folders(root: str | Path) -> dict[Split, Path]:
    """The folders `train`, `val` and `test` (or the like, in any case) that a folder has.

    Raises:
        DataError: If it has two for one split.
    """
    found: dict[Split, Path] = {}
    folders = folders_in(Path(root))
    for split, names in SPLIT_FOLDERS.items():
        there = [folder for folder in folders if folder.name.casefold() in names]
        if len(there) > 1:
            raise DataError(
                f"{root}: both {there[0].name} and {there[1].name} are there: say which"
            )
        if there:
            found[split] = there[0]
    return found


def _check_siblings(root: Path, found: Mapping[Split, Path]) -> None:
    """Refuses a folder of videos beside split folders, which would be left out; warns of files.

    Raises:
        DataError: Naming the folder.
    """
    loose = [path for path in videos_in(root) if path.is_file()] if found else []
    if loose:
        log.warning("%s: left aside: it is in no split (1 of %d)", loose[0], len(loose))
    for folder in folders_in(root) if found else []:
        if folder not in found.values() and holds_videos(folder):
            known = ", ".join(name for names in SPLIT_FOLDERS.values() for name in names)
            raise DataError(
                f"{folder}: holds videos, but is no split beside {found['train'].name} (splits are "
                f"{known}): move it, or say which folders are train, val and test; {CLASSES_HINT}"
            )


class ClassFolders(AnnotationFormat):
    """Folders of classes: see :func:`read_folders`. `train`, `val` and `test` are in `root`."""

    name = "folders"
    needs_train = False

    def detect(self, root: Path, source: str | None) -> Detection:
        if source is not None:
            return detected((root / source).is_dir())
        return Detection(Certainty.CERTAIN if split_folders(root) else Certainty.POSSIBLE)

    def sources(self, arguments: Arguments) -> dict[Split, str]:
        root, files = arguments.root, arguments.files
        if files and "train" not in files:
            raise ValueError("train must be given with val or test: it names the classes")
        if files:
            return {split: str(root / name) for split, name in files.items()}
        found = split_folders(root)
        if found and "train" not in found:
            raise DataError(
                f"{root}: has no folder train, which names the classes, but has "
                f"{next(iter(found.values())).name}; {CLASSES_HINT}"
            )
        _check_siblings(root, found)
        return {split: str(folder) for split, folder in (found or {"train": root}).items()}

    def read_split(
        self, split: Split, source: str, arguments: Arguments, classes: list[str] | None
    ) -> list[Clip]:
        return read_folders(source, classes)


FORMAT = ClassFolders()
