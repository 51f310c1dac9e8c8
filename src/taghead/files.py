"""Files: state dicts from anywhere, atomic writes, differences of configs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taghead.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

UNFINISHED = ".unfinished-"  # how names of files begin that are still being written
NESTED_UNDER = ("model_state_dict", "model_state", "state_dict")


def read_tensors(path: str | Path) -> Any:
    """Loads a file of `torch.save` that holds tensors and plain containers; no code in it runs.

    Raises:
        DataError: If the file is missing, damaged or holds anything else.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    import torch  # reading a table needs no torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip files and torch raise types of their own
        raise DataError(f"{path}: not a readable state dict: {first_line(error)}") from error


def state_dict_in(content: Any, source: str | Path) -> dict[str, Tensor]:
    """A state dict, bare or under one of the names that training scripts give it.

    Args:
        content: What a file holds.
        source: The file's name, for the error.

    Raises:
        DataError: If there is none.
    """
    for name in NESTED_UNDER:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    from torch import Tensor

    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(key, str) for key in content)
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise DataError(f"{source}: not a state dict: it must map names to tensors")
    return content


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Where to write a file that appears under its name whole, or not at all.

    It is written beside the target, since renaming is atomic only within a file system, and synced
    to disk before it is renamed: after a crash, the previous file is still there.

    Args:
        path: The file; its folder is created.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # of a write to an open file
            error.filename = os.fspath(path)
        raise
    _sync(path.parent)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A hidden folder to write files into; at the end they are moved into `folder`.

    Each replaces its predecessor in one step; after an error none of them appears.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as stage:
            yield Path(stage)
            for file in sorted(Path(stage).iterdir()):
                _sync(file)
                os.replace(file, folder / file.name)
    except OSError as error:
        if error.filename is None:  # of a write to an open file
            error.filename = os.fspath(folder)
        raise
    _sync(folder)


def config_differences(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The differences of two configs: the dotted key and both values, None for a missing one.

    The `init_args` of a class are left out of keys, as on the command line: `model.head.mode`.

    Args:
        one: Nested mappings, lists and values, as JSON and YAML hold them.
        other: The config to compare it with.
        key: The key of both in a larger config.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            inner = key if name == "init_args" else f"{key}.{name}".lstrip(".")
            yield from config_differences(one.get(name), other.get(name), inner)
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"length of {key}", len(one), len(other)
        for index, pair in enumerate(zip(one, other, strict=False)):
            yield from config_differences(*pair, f"{key}[{index}]")
    elif one != other:
        yield key, one, other


def remove_unfinished(folder: Path, min_age_sec: float = 0.0) -> None:
    """Removes the files in a folder, and below it, that killed processes left half-written.

    Args:
        folder: The folder.
        min_age_sec: How long ago a file was written at least; where other processes may be writing
            in the folder, more than one file takes.
    """
    for left in folder.rglob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):  # its process has finished it, or another one removed it
            if left.is_file() and time.time() - left.stat().st_mtime >= min_age_sec:
                left.unlink()


def _sync(path: Path) -> None:
    """Makes sure that a file, or a renaming in a folder, is on disk, where the system can."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    with suppress(PermissionError):  # folders cannot be opened on Windows
        handle = os.open(path, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
