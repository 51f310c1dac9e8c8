"""Annotation format: the base class of all formats, and what a format gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from taghead.data.annotations.class_list import check_classes, class_names, read_classes
from taghead.data.annotations.clip import Clip, Split
from taghead.data.annotations.clip_path import clip_path, is_inside


@dataclass(frozen=True)
class Annotations:
    """What a dataset lists.

    Args:
        format: Name of its format.
        class_names: The classes, by number.
        clips: The clips of each split.
        sources: What lists them: a file or a folder for each split.
    """

    format: str
    class_names: list[str]
    clips: Mapping[Split, list[Clip]]
    sources: Mapping[Split, str]


class Certainty(IntEnum):
    """How certain it is that a dataset has a format."""

    NO = 0
    POSSIBLE = 1
    CERTAIN = 2


@dataclass(frozen=True)
class Detection:
    """Whether a dataset has a format.

    Args:
        certainty: How certain it is.
        reason: Why it is not certain, for the error.
    """

    certainty: Certainty
    reason: str = ""


@dataclass(frozen=True)
class Arguments:
    """What a user gives for a dataset.

    Args:
        root: The folder of videos.
        files: What lists each split, where it is given.
        classes: A class list file.
        times: A file of times.
        outside_root: Whether annotations may name videos outside `root`.
    """

    root: Path
    files: Mapping[Split, str]
    classes: str | None = None
    times: str | None = None
    outside_root: bool = False


class AnnotationFormat(ABC):
    """A format of annotations.

    A format is one module in `taghead.data.annotations.formats` with a subclass of this and an
    instance of it, `FORMAT`; nothing else needs to know of it.

    Attributes:
        name: Its name in configs and on the command line.
        arguments: Which arguments it takes, beside `root`.
        needs_train: Whether `train` must be given.
        class_column: What its files call a class's number.
    """

    name: str
    arguments: frozenset[str] = frozenset({"train", "val", "test", "classes"})
    needs_train = True
    class_column = "class number"

    @abstractmethod
    def detect(self, root: Path, source: str | None) -> Detection:
        """Whether a dataset has this format.

        Args:
            root: The folder of videos.
            source: What lists a split, if it is given; without it, `root` itself is looked at.
        """

    @abstractmethod
    def read_split(
        self, split: Split, source: str, arguments: Arguments, classes: list[str] | None
    ) -> list[Clip]:
        """The clips of a split.

        Args:
            split: The split.
            source: What lists it.
            arguments: What the user gave.
            classes: The classes, by number; None if the split `train` is to name them.

        Raises:
            DataError: If the source cannot be used.
        """

    def sources(self, arguments: Arguments) -> dict[Split, str]:
        """What lists each split."""
        return dict(arguments.files)

    def class_list(self, arguments: Arguments) -> str | None:
        """The class list file: the one that is given, or the one that is published with it."""
        return arguments.classes

    def read(self, arguments: Arguments) -> Annotations:
        """All splits and the classes.

        Raises:
            DataError: If a file cannot be used, or a class of another split is not one of training.
            ValueError: If `train` is needed and not given.
        """
        if self.needs_train and "train" not in arguments.files:
            raise ValueError(f"train must be given for format {self.name}: it names the classes")
        sources = self.sources(arguments)
        file = self.class_list(arguments)
        listed = read_classes(file) if file else None
        train = self.read_split("train", sources["train"], arguments, listed)
        names = listed or class_names(sources["train"], train, self.class_column)
        clips: dict[Split, list[Clip]] = {"train": train}
        for split, source in sources.items():
            if split != "train":
                clips[split] = self.read_split(split, source, arguments, names)
            check_classes(source, clips[split], names)
            _check_inside(source, clips[split], arguments)
        return Annotations(self.name, names, clips, sources)


def _check_inside(source: str, clips: Sequence[Clip], arguments: Arguments) -> None:
    """Checks where videos lie, for formats that do not know :func:`clip_path`.

    A folder that the user gave for a split may lie anywhere.
    """
    for clip in [] if arguments.outside_root else clips:
        if not is_inside(clip.path, Path(source)):
            clip_path(arguments.root, str(clip.path.absolute()), source)


def detected(condition: bool, reason: str = "") -> Detection:
    """A detection without doubt: certain if a condition holds, none otherwise."""
    return Detection(Certainty.CERTAIN) if condition else Detection(Certainty.NO, reason)
