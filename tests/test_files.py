import json
import math
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from taghead.errors import DataError
from taghead.files import (
    UNFINISHED,
    atomic_file,
    atomic_folder,
    config_differences,
    json_text,
    name_to_text,
    parse_json,
    remove_unfinished,
    text_to_name,
)


def write_half(path: Path) -> None:
    with atomic_file(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt


def write_half_of_folder(folder: Path) -> None:
    with atomic_folder(folder) as stage:
        (stage / "a").write_text("half")
        raise KeyboardInterrupt


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_file(path) as partial:
        partial.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def write_often(path: Path, text: str) -> None:
    for _ in range(30):
        with atomic_file(path) as partial:
            partial.write_text(text * 10_000)


def test_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_often, args=(tmp_path / "a", x)) for x in "xy"]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        if (tmp_path / "a").exists():
            assert (tmp_path / "a").read_text() in ("x" * 10_000, "y" * 10_000)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_of_files_is_written_together(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_half_of_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path) as stage:
        (stage / "a").write_text("1")
        (stage / "b").write_text("2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    old, new = tmp_path / "x" / f"{UNFINISHED}1-a", tmp_path / f"{UNFINISHED}2-b"
    for path in (old, new, tmp_path / "c"):
        path.touch()
    long_ago = time.time() - 100
    os.utime(old, (long_ago, long_ago))
    remove_unfinished(tmp_path, min_age_sec=60)
    assert not old.exists()
    assert new.exists()
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "x"]


KILLED = """
import os, sys, signal
from pathlib import Path
from taghead.files import atomic_file, atomic_folder
folder = Path(sys.argv[1])
with atomic_file(folder / "a") as partial, atomic_folder(folder) as stage:
    partial.write_text("half")
    (stage / "b").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("write", ["file", "folder"])
def test_what_dead_processes_left_is_removed(tmp_path: Path, write: str) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert run.returncode == -9
    assert len(list(tmp_path.glob(f"{UNFINISHED}*"))) == 2
    machine = re.sub("[^A-Za-z0-9.]", "_", platform.node())
    alive = tmp_path / f"{UNFINISHED}{machine}-{os.getppid()}-a"
    other = tmp_path / f"{UNFINISHED}other_machine-1-a"
    alive.touch()
    other.touch()
    if write == "file":
        with atomic_file(tmp_path / "c") as partial:
            partial.touch()
    else:
        with atomic_folder(tmp_path) as stage:
            (stage / "c").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"c", other.name, alive.name}


def test_what_dead_processes_left_is_removed_at_any_age(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    alive = tmp_path / f"{UNFINISHED}2-b"
    alive.touch()
    remove_unfinished(tmp_path, min_age_sec=3600)
    assert list(tmp_path.iterdir()) == [alive]


def test_files_are_readable_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic_file(tmp_path / "a") as partial:
            os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
        with atomic_folder(tmp_path) as stage:
            os.close(os.open(stage / "b", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert [oct((tmp_path / name).stat().st_mode & 0o777) for name in "ab"] == ["0o644"] * 2


def test_unfinished_folders_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"{UNFINISHED}1-x").mkdir()
    (tmp_path / f"{UNFINISHED}1-x" / "a").touch()
    remove_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"a b/\xc3\xa9.mp4", "a b/é.mp4"),
        (rb"c\d\x.mp4", r"c\d\x.mp4"),
        (b"caf\xe9.mp4", r"caf\xe9.mp4"),
        (rb"caf\xe9.mp4", r"caf\x5cxe9.mp4"),
        (b"\xff\\\x80\xc3\xa9", r"\xff\x5c\x80é"),
        (rb"\x5c\n", r"\x5cx5c\x5cn"),
    ],
)
def test_any_name_of_a_file_is_text_and_back(name: bytes, text: str) -> None:
    path = Path(os.fsdecode(name))
    assert name_to_text(path) == text
    assert os.fsencode(text_to_name(text)) == name
    assert text.encode().decode() == text


def test_names_of_no_file_are_text_too() -> None:
    assert name_to_text("a\ud800.mp4") == r"a\xed\xa0\x80.mp4"


def test_differences_of_configs() -> None:
    one = {"model": {"class_path": "A", "init_args": {"heads": 4, "names": ["x", "y"]}}, "seed": 0}
    other = {"model": {"class_path": "A", "init_args": {"heads": 8, "names": ["x", "z"]}}, "lr": 1}
    assert list(config_differences(one, one)) == []
    assert list(config_differences(one, other)) == [
        ("model.heads", 4, 8),
        ("model.names[1]", "y", "z"),
        ("seed", 0, None),
        ("lr", None, 1),
    ]
    nested = {"relations": ["x", {"reach": 3}]}, {"relations": ["x", {"reach": 2}]}
    assert list(config_differences(*nested)) == [("relations[1].reach", 3, 2)]
    shorter = {"a": [1, 2, 3]}, {"a": [1, 5]}
    assert list(config_differences(*shorter)) == [
        ("length of a", 3, 2),
        ("a[1]", 2, 5),
    ]


def test_json_of_a_value_is_that_of_the_library() -> None:
    value = {"b": [1, 2.5, None, True], "a": ("é", {})}
    assert json_text(value, "a.json") == json.dumps(value)
    options = {"indent": 1, "sort_keys": True, "ensure_ascii": False, "separators": (",", ":")}
    assert json_text(value, "a.json", **options) == json.dumps(value, **options)
    assert parse_json(json_text(value, "a.json")) == {"b": [1, 2.5, None, True], "a": ["é", {}]}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, np.float64("nan")])
@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda number: {"clips": [{}, {"start_sec": number}]}, "clips[1].start_sec"),
        (lambda number: [0.5, (1, number)], "[1][1]"),
        (lambda number: {"a": {number: 1}}, "a key of a"),
        (lambda number: number, "the value"),
    ],
)
def test_a_number_that_json_has_not_is_refused_by_its_key(
    tmp_path: Path, number: float, wrap: Callable[[float], object], key: str
) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9.json")
    message = rf"{tmp_path}/caf\xe9.json: {key} is {number}, and JSON has finite numbers alone"
    with pytest.raises(DataError) as caught:
        json_text(wrap(number), name)
    assert str(caught.value) == message


def test_a_value_that_holds_itself_is_no_json() -> None:
    value: list[object] = [1.0]
    value.append(value)
    with pytest.raises((ValueError, RecursionError)):
        json_text(value, "a.json")


@pytest.mark.parametrize(
    "text", ["NaN", '{"a": [Infinity]}', "-Infinity", "1e999", "[-1e400]", "{", "[" * 100_000]
)
def test_text_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"finite|nested|Expecting"):
        parse_json(text)
    with pytest.raises(ValueError, match=r"finite|nested|Expecting"):
        parse_json(text.encode())


def test_a_file_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash of the machine, a name leads to whole content, old or new."""
    done: list[tuple[str, int]] = []
    sync, replace = os.fsync, os.replace

    def fsync(handle: int) -> None:
        done.append(("on disk", os.fstat(handle).st_ino))
        sync(handle)

    def rename(source: Path, target: Path) -> None:
        done.append(("named", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    with atomic_file(tmp_path / "a") as partial:
        partial.write_text("text")
    file, folder = ((tmp_path / name).stat().st_ino for name in ("a", "."))
    assert done == [("on disk", file), ("named", file), ("on disk", folder)]
    done.clear()
    with atomic_folder(tmp_path) as stage:
        (stage / "b").write_text("text")
    file = (tmp_path / "b").stat().st_ino
    assert done == [("on disk", file), ("named", file), ("on disk", folder)]


def test_a_write_to_a_full_disk_names_the_file(tmp_path: Path) -> None:
    for write in (atomic_file, atomic_folder):
        with pytest.raises(OSError, match="No space left on device") as error:
            with write(tmp_path / "a"), open("/dev/full", "wb", buffering=0) as full:
                full.write(b"text")
        assert error.value.filename == str(tmp_path / "a")
