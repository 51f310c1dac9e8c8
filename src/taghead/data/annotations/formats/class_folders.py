"""Format `folders`: a folder for each class, as of Kinetics."""

from __future__ import annotations

from collections.abc import Sequence
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
from taghead.data.annotations.video_files import class_folders
from taghead.errors import DataError

SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


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
    found = class_folders(Path(folder))
    numbers = class_numbers(folder, list(found), classes)
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
        found = {split: root / name for split, name in files.items()} or split_folders(root)
        if found and "train" not in found:
            raise DataError(f"{root}: has no folder train, which names the classes")
        return {split: str(folder) for split, folder in (found or {"train": root}).items()}

    def read_split(
        self, split: Split, source: str, arguments: Arguments, classes: list[str] | None
    ) -> list[Clip]:
        return read_folders(source, classes)


FORMAT = ClassFolders()
