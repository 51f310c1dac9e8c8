"""Format `haa500`: a folder for each class, whose file names tell the split."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from taghead.data.annotations.annotation_format import (
    AnnotationFormat,
    Arguments,
    Certainty,
    Detection,
)
from taghead.data.annotations.class_list import class_numbers
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.formats.class_folders import split_folders
from taghead.data.annotations.video_files import (
    class_folders,
    folders_in,
    holds_videos,
    videos_in,
)
from taghead.errors import DataError
from taghead.files import name_to_text

# 16 clips of a class to train, 1 to validate, 3 to test
HAA500_CLIPS: dict[Split, range] = {"train": range(16), "val": range(16, 17), "test": range(17, 20)}
_HAA500_NAME = re.compile(r"(?P<name>.+)_(?P<number>\d{3})")


def read_haa500(root: str | Path, split: Split, classes: Sequence[str] | None = None) -> list[Clip]:
    """The clips of a split of `HAA500 <https://arxiv.org/abs/2009.05224>`_.

    Each class has clips `<class>_000` to `<class>_019`, of which 000 to 015 are for training, 016
    for validation and 017 to 019 for the test. They lie in a folder of the class's name, or all in
    one folder.

    Args:
        root: The folder of the class folders, or of all clips.
        split: Which clips.
        classes: The classes, by number; in alphabetical order when not given.

    Raises:
        DataError: If a file is not named like that, or there is none.
    """
    root = Path(root)
    found = haa500_clips(root)
    numbers = class_numbers(root, [name for name, _, _ in found], classes)
    return [
        Clip(path, numbers[name], name)
        for name, number, path in found
        if number in HAA500_CLIPS[split]
    ]


def haa500_clips(root: Path) -> list[tuple[str, int, Path]]:
    """Class, number and file of all clips in HAA500's layout.

    Raises:
        DataError: If a file is not named as in HAA500, or there is none; or if some lie in class
            folders and others beside these.
    """
    flat = _flat(root)
    if flat and (folder := _first_class_folder(root)):
        raise DataError(
            f"{flat[0]}: lies beside class folders such as {folder.name} (1 of {len(flat)}): "
            f"HAA500's clips lie all in class folders, or all in one folder"
        )
    return _named({"": flat} if flat else class_folders(root))


def _flat(root: Path) -> list[Path]:
    """The videos in a folder itself."""
    return [path for path in videos_in(root) if not path.is_dir()]


def _first_class_folder(root: Path) -> Path | None:
    return next((folder for folder in folders_in(root) if holds_videos(folder)), None)


def _named(files: Mapping[str, list[Path]]) -> list[tuple[str, int, Path]]:
    """Class, number and file of the clips of each folder; the folder's name is empty for root.

    Raises:
        DataError: If a file is not named as in HAA500.
    """
    found = []
    for folder, paths in files.items():
        for path in paths:
            match = _HAA500_NAME.fullmatch(path.stem)
            if not match or int(match["number"]) > 19 or not _same_name(match["name"], folder):
                raise DataError(f"{path}: HAA500 has files named <class>_000 to <class>_019 only")
            name = folder or name_to_text(match["name"])
            found.append((name, int(match["number"]), path))
    return found


def _same_name(name: str, folder: str) -> bool:
    """Whether a name is that of its folder, but for spaces and the like; without one, it is."""
    letters, of_folder = (re.sub(r"[\W_]", "", text).lower() for text in (name, folder))
    return not folder or letters == of_folder


def looks_like_haa500(root: Path) -> bool | None:
    """Whether a folder has HAA500's layout; None if it may have.

    It has, if each class has all clips 000 to 019. It has not, if a file is named otherwise; but
    it may have, if only files beside the class folders are.
    """
    is_mixed = False
    try:
        is_mixed = bool(_flat(root)) and _first_class_folder(root) is not None
        found = _named(class_folders(root)) if is_mixed else haa500_clips(root)
    except DataError:
        return False
    if is_mixed:
        return None
    numbers: dict[str, set[int]] = {}
    for name, number, _ in found:
        numbers.setdefault(name, set()).add(number)
    return True if all(len(of_class) == 20 for of_class in numbers.values()) else None


class HAA500(AnnotationFormat):
    """HAA500: see :func:`read_haa500`."""

    name = "haa500"
    arguments = frozenset({"classes"})  # the files' names tell the split
    needs_train = False

    def detect(self, root: Path, source: str | None) -> Detection:
        if source is not None or split_folders(root):
            return Detection(Certainty.NO)
        certain = looks_like_haa500(root)
        if certain is not None:
            return Detection(Certainty.CERTAIN if certain else Certainty.NO)
        return Detection(
            Certainty.POSSIBLE,
            "files are named as in HAA500, but some of 000 to 019 are missing in a class, or files "
            "lie beside the class folders",
        )

    def sources(self, arguments: Arguments) -> dict[Split, str]:
        return {split: str(arguments.root) for split in get_args(Split)}

    def read_split(
        self, split: Split, source: str, arguments: Arguments, classes: list[str] | None
    ) -> list[Clip]:
        return read_haa500(arguments.root, split, classes)


FORMAT = HAA500()
