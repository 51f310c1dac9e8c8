"""Pipes, sockets, devices and files of terabytes in place of a file: refused before they are read.

A pipe would be waited for, and a device or a file of zeros read until memory ends.
"""

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import make_model

from taghead.cli import main
from taghead.data import read_annotations
from taghead.data.annotations import read_classes
from taghead.data.index.journal import Journal
from taghead.data.index.manifest import read_manifest
from taghead.errors import DataError, VideoError
from taghead.features import FeatureCache
from taghead.features.extract import options_from_fit
from taghead.sweep import read_sweep
from taghead.sweep.store import Store
from taghead.video import VideoReader

LARGE = 2**40  # bytes
ANSWER_SEC, MORE_MEMORY = 120, 2**31


def pipe(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # an address has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def large(path: Path) -> None:
    """Zeros without an end to speak of; none of them is on the disk."""
    path.touch()
    os.truncate(path, LARGE)


def of_command(*words: str) -> Callable[[Path], object]:
    def run(path: Path) -> None:
        try:
            main([word.format(path) for word in words])
        except SystemExit as end:
            raise DataError(str(end)) from None

    return run


def class_list(path: Path) -> None:
    (path.parent / "train.csv").write_text("path,label\na.mp4,x\nb.mp4,y\n")
    read_annotations(path.parent, str(path.parent / "train.csv"), classes=str(path))


def list_of_names(path: Path) -> None:
    (path.parent / "finegym_annotation_info_v1.1.json").write_text("{}")
    read_annotations(path.parent, str(path), format="finegym")


def predict(path: Path) -> None:
    make_model().save_pretrained(path.parent / "model")
    of_command("predict", "{}", f"--model={path.parent / 'model'}", "--modules=[tiny]")(path)


def explicit(name: str) -> Callable[[Path], object]:
    return lambda path: read_annotations(path.parent, str(path), format=name)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a table of clips": ("a.csv", lambda path: read_annotations(path.parent, str(path))),
    "a plain table": ("a.csv", explicit("plain")),
    "a list of entries": ("a.json", explicit("diving48")),
    "a list of names": ("a.txt", list_of_names),
    "a class list": ("classes.txt", class_list),
    "a class table": ("classes.csv", read_classes),
    "names of classes": ("classes.json", read_classes),
    "a manifest": ("manifest.parquet", read_manifest),
    "results of an index": ("journal.jsonl", lambda path: Journal(path, path.parent)),
    "a spec of features": ("manifest.json", lambda path: FeatureCache(str(path.parent))),
    "a sweep": ("sweep.yaml", read_sweep),
    "a store": ("runs.db", lambda path: Store(f"sqlite:///{path}", "sweep")),
    "a video": ("clip.mp4", VideoReader),
    "a transport stream": ("clip.ts", VideoReader),
    "a config": ("fit.yaml", of_command("fit", "--config={}")),
    "a config of data": ("data.yaml", of_command("fit", "--data={}", "--model.head=TAGHead")),
    "a config of a training": ("config.yaml", options_from_fit),
    "a video on the command line": ("clip.mp4", predict),
}


@pytest.fixture(autouse=True)
def bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Time and memory end before those of the machine: a reader that takes the file fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, before[1]))

    def end(*_: object) -> None:
        raise TimeoutError("the file was waited for")

    old = signal.signal(signal.SIGALRM, end)
    signal.alarm(ANSWER_SEC)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="sockets and limits as Linux has them")
@pytest.mark.parametrize("make", [pipe, socket_file, device, large])
@pytest.mark.parametrize("what", READERS)
def test_they_are_refused_by_name(tmp_path: Path, what: str, make: Callable[[Path], None]) -> None:
    name, read = READERS[what]
    if make is large and what == "results of an index":
        pytest.skip("it is of this program, and bounded by what it has written")
    make(tmp_path / name)
    with pytest.raises((DataError, VideoError)) as refusal:
        read(tmp_path / name)
    message = str(refusal.value)
    assert name in message
    assert message.count("\n") <= 2
    assert "MemoryError" not in message
