"""Files: untrusted state dicts, JSON, atomic writes, differences of configs, names as text."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taghead.errors import DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

UNFINISHED = ".unfinished-"  # how names of files begin that are still being written
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_CLEARED: set[Path] = set()  # folders from which this process has removed what dead ones left
MAX_TEXT_BYTES = 2**30  # of a file that is read as text: no list of clips or classes is longer
NESTED_UNDER = ("model_state_dict", "model_state", "state_dict")


def check_regular(path: str | Path, max_bytes: int | None = None) -> None:
    """Refuses what is no file of bytes: a pipe, a socket or a device need not end.

    Args:
        path: The file.
        max_bytes: How large it may be.

    Raises:
        DataError: If there is no such file, or it is of another kind or larger.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: is not a regular file")
    size = path.stat().st_size
    if max_bytes is not None and size > max_bytes:
        raise DataError(f"{path}: has {size:,} bytes, more than the {max_bytes:,} of such a file")


def read_tensors(path: str | Path) -> Any:
    """Loads a file of `torch.save` that holds tensors and plain containers; no code in it runs.

    Raises:
        DataError: If the file is missing, damaged or holds anything else.
    """
    check_regular(path)
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


def json_text(
    value: Any,
    source: str | os.PathLike[str],
    *,
    indent: int | None = None,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
    separators: tuple[str, str] | None = None,
) -> str:
    """JSON of a value; a number that is NaN or infinite, which JSON has not, is refused.

    Args:
        value: Mappings, sequences and plain values.
        source: The file that it is written to, or what it describes, for the error.
        indent: As of `json.dumps`, like the others.
        sort_keys: Whether keys are sorted.
        ensure_ascii: Whether other characters than ASCII are escaped.
        separators: Between items, and between a key and its value.

    Raises:
        DataError: Naming the key of the first non-finite number.
    """
    try:
        return json.dumps(
            value,
            allow_nan=False,
            indent=indent,
            sort_keys=sort_keys,
            ensure_ascii=ensure_ascii,
            separators=separators,
        )
    except ValueError as error:
        for key, number in _non_finite(value):
            where = f"{name_to_text(source)}: {key or 'the value'}"
            raise DataError(f"{where} is {number}, and JSON has finite numbers alone") from error
        raise


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, which may come from anywhere.

    Raises:
        ValueError: If it is no JSON, has a number that is not finite, such as `NaN` or `1e999`, or
            is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_finite_number, parse_float=_finite_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def _non_finite(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a value that are NaN or infinite, with their keys: `clips[3].start_sec`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            inner_key = f"{key}.{name}".lstrip(".")
            yield from _non_finite(inner, inner_key)
            yield from _non_finite(name, f"a key of {key or 'the object'}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _non_finite(inner, f"{key}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, value


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
    _remove_of_dead(path.parent)
    partial = path.with_name(f"{UNFINISHED}{_process()}-{path.name}")
    try:
        yield partial
        _make_readable(partial)
        sync(partial)
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        _name_file(error, path)
        raise
    sync(path.parent)


@contextmanager
def line_writer(path: str | Path) -> Iterator[Callable[[str], object]]:
    """A function that writes a line of a text file, which takes its place when it is finished.

    Until then the lines are in `<path>.partial-<process id>`, each whole as soon as it is made.
    After an error, or when the process is killed, they stay there, and the file of before stays.

    Args:
        path: The file; its folder is created. A pipe or a device is written itself.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    replaced = path.is_file() or not path.exists()
    partial = Path(f"{path.resolve()}.partial-{os.getpid()}") if replaced else path
    try:
        with partial.open("w", encoding="utf-8", buffering=1) as file:  # flushed at each line
            yield lambda line: file.write(f"{line}\n")
        if replaced:
            sync(partial)
            os.replace(partial, path.resolve())
    except BaseException as error:
        if replaced and partial.is_file() and partial.stat().st_size == 0:
            partial.unlink()
        if isinstance(error, OSError) and error.filename is None:  # of a write to an open file
            error.filename = os.fspath(partial)
        if isinstance(error, KeyboardInterrupt) and partial.is_file():
            raise KeyboardInterrupt(f"{partial} has the lines so far") from None
        raise


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A hidden folder to write files into; at the end they are moved into `folder`.

    Each replaces its predecessor in one step; after an error none of them appears.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_of_dead(folder)
    try:
        prefix = f"{UNFINISHED}{_process()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as stage:
            yield Path(stage)
            for file in sorted(Path(stage).iterdir()):
                _make_readable(file)
                sync(file)
                os.replace(file, folder / file.name)
    except OSError as error:
        _name_file(error, folder)
        raise
    sync(folder)


def name_to_text(name: str | os.PathLike[str]) -> str:
    r"""A file name as valid text: a byte that is no UTF-8 stands as `\xe9`.

    Most names stay as they are. :func:`text_to_name` is the inverse, whatever the name.
    """
    try:
        octets = os.fspath(name).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a character, as JSON may have it: the name of no file
        octets = os.fspath(name).encode("utf-8", "surrogatepass")
    if _ESCAPED.search(octets) or not _is_utf8(octets):
        octets = octets.replace(b"\\", rb"\x5c")
    return octets.decode("utf-8", "backslashreplace")


def text_to_name(text: str) -> str:
    """The file name that a text stands for: the inverse of :func:`name_to_text`."""
    octets = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return octets.decode("utf-8", "surrogateescape")


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


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
    """Removes what killed processes left half-written in a folder, and below it.

    Args:
        folder: The folder.
        min_age_sec: How long ago a file was written at least; where other processes may be writing
            in the folder, more than one file takes. Those of dead processes of this machine go at
            any age.
    """
    for left in folder.rglob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):  # its process has finished it, or another one removed it
            if _is_of_dead(left) or time.time() - left.stat().st_mtime >= min_age_sec:
                _remove(left)


def _process() -> str:
    """This process and its machine, for names of unfinished files."""
    return f"{re.sub('[^A-Za-z0-9.]', '_', platform.node())}-{os.getpid()}"


def _remove_of_dead(folder: Path) -> None:
    """Removes what dead processes of this machine left unfinished in a folder; once for each."""
    if folder in _CLEARED:
        return
    _CLEARED.add(folder)
    for left in folder.glob(f"{UNFINISHED}*"):
        if _is_of_dead(left):
            _remove(left)


def _is_of_dead(left: Path) -> bool:
    """Whether a dead process of this machine left an unfinished file."""
    machine = re.escape(_process().rpartition("-")[0])
    match = re.match(rf"{re.escape(UNFINISHED)}{machine}-(\d+)-", left.name)
    return match is not None and not is_alive(int(match[1]))


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # of another user
        return True
    return True


def _remove(path: Path) -> None:
    """Removes a file or a folder, unless another process has, or owns it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(FileNotFoundError, PermissionError):
        path.unlink()


def _make_readable(path: Path) -> None:
    """Gives a file the mode of any new one: some libraries write theirs for their owner alone."""
    if path.is_file():
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def _name_file(error: BaseException, path: Path) -> None:
    """Names the file in the system's error of a write to an open file, which names none."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = os.fspath(path)


def sync(path: Path) -> None:
    """Makes sure that a file, or a renaming in a folder, is on disk, where the system can."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    with suppress(PermissionError):  # folders cannot be opened on Windows
        handle = os.open(path, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
