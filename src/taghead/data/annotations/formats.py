"""Datasets in any of the formats: which clips each split has, and which classes there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from taghead.data.annotations import diving48, finegym, folders, plain, reference
from taghead.data.annotations.classes import check_classes, class_names, read_classes
from taghead.data.annotations.clip import Clip
from taghead.data.annotations.folders import Split
from taghead.data.annotations.tables import first_row, read_json, read_lines
from taghead.errors import DataError

Format = Literal["auto", "reference", "plain", "folders", "haa500", "finegym", "diving48"]
_OF_FOLDERS = ("folders", "haa500")


@dataclass(frozen=True)
class Annotations:
    """What a dataset lists.

    Args:
        format: Its format.
        class_names: The classes, by number.
        clips: The clips of each split.
        sources: What lists them: a file or a folder for each split.
    """

    format: str
    class_names: list[str]
    clips: Mapping[Split, list[Clip]]
    sources: Mapping[Split, str]


def read_annotations(
    root: str | Path,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    format: Format = "auto",
    classes: str | None = None,
    times: str | None = None,
) -> Annotations:
    """Reads what a dataset lists.

    ============= ================================ ===========================================
    format        `train`, `val`, `test`           a clip lies at
    ============= ================================ ===========================================
    `reference`   CSV `FileName,Class,...`         `<root>/<Class>/<FileName>`
    `plain`       CSV `path,label[,start_sec,...]` `<root>/<path>`, or a part of it
    `folders`     folders in root; none are needed `<root>/train/<class>/<file>`
    `haa500`      none                             `<root>/<class>/<class>_<000 to 019>.mp4`
    `finegym`     `gym99_train_element_v1.1.txt`   a part of `<root>/<video>.mp4`
    `diving48`    `Diving48_V2_train.json`         `<root>/<vid_name>.mp4`
    ============= ================================ ===========================================

    Args:
        root: The folder of videos.
        train: What lists the training split. It names the classes, unless `classes` does.
        val: What lists the validation split, if there is one.
        test: What lists the test split, if there is one.
        format: One of the table, or `auto` for the one that the files are in without doubt.
        classes: A class list (`read_classes`). For FineGym and Diving48 it is the one beside
            `train` when not given.
        times: FineGym's JSON file of times; the one beside `train` when not given.

    Raises:
        DataError: If a file cannot be used, if the format is not certain, or if a class of another
            split is not one of training.
        ValueError: If there is no such format, or an argument is not for the format.
    """
    if format not in get_args(Format):
        raise ValueError(f"format must be one of {', '.join(get_args(Format))} (got {format!r})")
    given: dict[Split, str | None] = {"train": train, "val": val, "test": test}
    files = {split: source for split, source in given.items() if source}
    if not Path(root).is_dir():
        raise DataError(f"{root}: no such folder of videos")
    if format == "auto":
        format = detect_format(root, list(files.values()))
    _check_arguments(format, files, classes, times)
    sources = _sources(format, Path(root), files)
    if format == "finegym":
        times = times or str(Path(files["train"]).with_name(finegym.TIMES_NAME))
    classes = classes or _classes_beside(format, files)
    listed = read_classes(classes) if classes else None
    train_clips = _read(format, root, "train", sources["train"], listed, times)
    clips: dict[Split, list[Clip]] = {"train": train_clips}
    what = "ClassEncoded" if format == "reference" else "class number"
    names = listed or class_names(sources["train"], train_clips, what)
    for split in sources:
        if split != "train":
            clips[split] = _read(format, root, split, sources[split], names, times)
        check_classes(sources[split], clips[split], names)
    return Annotations(format, names, clips, sources)


def detect_format(root: str | Path, sources: list[str]) -> Format:
    """The format of a dataset by what its files hold.

    Raises:
        DataError: If it is not certain.
    """
    if not sources:
        return _detect_folders(Path(root))
    found = {source: _detect_file(Path(source), Path(root)) for source in sources}
    (first, one), *others = found.items()
    for source, other in others:
        if other != one:
            raise DataError(f"{source}: has the format {other}, but {first} has {one}")
    return one


def _detect_file(path: Path, root: Path) -> Format:
    if (root / path).is_dir():
        return "folders"
    if not path.is_file():
        raise DataError(f"{path}: no such annotation file")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        row = first_row(path)
        if set(reference.COLUMNS) & set(row):
            return "reference"
        if plain.has_header(row):
            return "plain"
        raise DataError(
            f"{path}: its first line names neither {', '.join(reference.COLUMNS)} nor path and "
            f"label: without names of columns, say format=plain"
        )
    if suffix == ".json":
        if diving48.is_diving48(read_json(path)):
            return "diving48"
        raise DataError(f"{path}: not a list of clips with vid_name and label, as of Diving48")
    lines = (line.strip() for line in read_lines(path))
    if finegym.LINE.fullmatch(next(filter(None, lines), "")):
        return "finegym"
    raise DataError(f"{path}: in none of the formats {', '.join(get_args(Format)[1:])}")


def _detect_folders(root: Path) -> Format:
    if folders.split_folders(root):
        return "folders"
    certain = folders.looks_like_haa500(root)
    if certain is None:
        raise DataError(
            f"{root}: files are named as in HAA500, but some of 000 to 019 are missing in a class: "
            "say format=haa500 or format=folders"
        )
    return "haa500" if certain else "folders"


def _check_arguments(
    format: Format, files: Mapping[Split, str], classes: str | None, times: str | None
) -> None:
    if format not in _OF_FOLDERS and "train" not in files:
        raise ValueError(f"train must be given for format {format}: it names the classes")
    if format == "haa500" and files:
        raise ValueError(f"{next(iter(files))} is not for format haa500: its file names tell")
    if format == "reference" and classes:
        raise ValueError("classes is not for format reference: its files name the classes")
    if format != "finegym" and times:
        raise ValueError(f"times is for format finegym (got format {format})")


def _sources(format: Format, root: Path, files: Mapping[Split, str]) -> dict[Split, str]:
    """What lists each split."""
    if format == "haa500":
        return {split: str(root) for split in get_args(Split)}
    if format != "folders":
        return dict(files)
    if files and "train" not in files:
        raise ValueError("train must be given with val or test: it names the classes")
    found = {split: root / name for split, name in files.items()} or folders.split_folders(root)
    if found and "train" not in found:
        raise DataError(f"{root}: has no folder train, which names the classes")
    return {split: str(folder) for split, folder in (found or {"train": root}).items()}


def _classes_beside(format: Format, files: Mapping[Split, str]) -> str | None:
    """The class list that is published with a dataset, if it lies beside the training split."""
    if format == "finegym":
        path = finegym.categories_beside(files["train"])
    elif format == "diving48":
        path = Path(files["train"]).with_name(diving48.CLASSES_NAME)
    else:
        return None
    return str(path) if path.is_file() else None


def _read(
    format: Format,
    root: str | Path,
    split: Split,
    source: str,
    classes: list[str] | None,
    times: str | None,
) -> list[Clip]:
    if format == "reference":
        return reference.read_reference(source, root)
    if format == "plain":
        return plain.read_plain(source, root, classes)
    if format == "folders":
        return folders.read_folders(source, classes)
    if format == "haa500":
        return folders.read_haa500(root, split, classes)
    if format == "finegym":
        return finegym.read_finegym(source, root, times, classes)
    return diving48.read_diving48(source, root, classes)
