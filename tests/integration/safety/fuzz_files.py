"""Fuzz targets: videos, annotations, and what an index stores."""

from __future__ import annotations

import base64
import json
import os
import time
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import av.logging
import numpy as np
import pandas as pd  # which a format imports when it reads
from fuzz_watch import Target, as_json, check_refused, parts

from taghead.data.annotations import FORMATS, read_annotations, read_classes
from taghead.data.index.journal import Journal
from taghead.data.index.scan_result import written_by
from taghead.errors import DataError, VideoError
from taghead.video import Limits, VideoReader, bitstream
from taghead.video.containers import check_complete
from taghead.video.file_stamp import stamp_of
from taghead.video.survey import survey
from taghead.video.survey_cache import survey_from_text, survey_to_text
from taghead.video.transport_stream import count_joins

av.logging.set_level(None)
pd.DataFrame()


def containers(data: bytes, folder: Path) -> None:
    """The sizes that MP4, Matroska and AVI files state."""
    (folder / "a.video").write_bytes(data or b"\0")
    check_complete(folder / "a.video")


def video(data: bytes, folder: Path) -> None:
    """A whole video, from its packets to its frames."""
    path = folder / "a.video"
    path.write_bytes(data)
    reader = VideoReader(path, threads=1, limits=Limits(2**18, 2**24))
    if len(reader):
        last = len(reader) - 1
        frames = reader.read([0, last // 2, last], size=(8, 8))
        assert frames.shape == (3, 8, 8, 3)
        assert len(reader.times) == len(reader)
        assert (np.diff(reader.times) >= 0).all()


CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg1video", "mpeg4")


def bitstreams(data: bytes, folder: Path) -> None:
    """Headers of a coded picture; the first two bytes choose the codec and the extradata."""
    if len(data) < 3:
        return
    codec, split = CODECS[data[0] % len(CODECS)], data[1] % len(data)
    packet, extradata = memoryview(data)[2:], bytes(data[2 : 2 + split])
    for width in {0, 4, bitstream.length_bytes(codec, extradata)}:
        bitstream.can_start(codec, packet, width)
        bitstream.starts_anew(codec, packet, width)
        bitstream.is_droppable(codec, packet, width)
    assert bitstream.pictures_shown(codec, packet) >= 0


def transport_stream(data: bytes, folder: Path) -> None:
    """Joins of a transport stream: the first bytes choose codec and stream."""
    if len(data) < 3:
        return
    path = folder / "a.ts"
    path.write_bytes(data[2:])
    joins = count_joins(path, 256 + data[1] % 2, CODECS[data[0] % len(CODECS)])
    assert 0 <= joins <= len(data)


@cache
def sample_video() -> tuple[Path, dict[str, Any]]:
    """A small video, and the survey that an index stores of it."""
    path = Path("sample.mkv").absolute()
    while stamp_of(path) is None:  # it has just been written
        time.sleep(0.1)
    return path, json.loads(zlib.decompress(base64.b64decode(survey_to_text(survey(path)))))


def stored_survey(data: bytes, folder: Path) -> None:
    """A survey in a manifest: its content, or anything else as text."""
    path, whole = sample_video()
    content = as_json(data)
    if isinstance(content, dict):
        content = {**whole, **content, "versions": whole["versions"], "file": whole["file"]}
        text = base64.b64encode(zlib.compress(json.dumps(content).encode())).decode()
    else:
        text = data.decode("utf-8", "replace")
    found = survey_from_text(text, path)
    if found is not None:
        reader = VideoReader(path, threads=1, survey=found, limits=Limits(2**18, 2**24))
        reader.read(range(min(len(reader), 3)), size=(8, 8))


SUFFIXES = (".csv", ".json", ".txt", ".tsv")


def annotations(data: bytes, folder: Path) -> None:
    """Annotations: the format and a suffix, the splits train and val, a class list, times.

    Of formats without files, the second part names the videos.
    """
    first, train, val, classes, times = parts(data, 5)
    name, suffix = (*first.decode("utf-8", "replace").split(), "", "")[:2]
    name = name if name in FORMATS else "auto"
    suffix = suffix if suffix in SUFFIXES else ".csv"
    root = folder / "videos"
    root.mkdir()
    files = {"train": train, "val": val, "classes": classes, "times": times}
    given = {key: folder / f"{key}{suffix}" for key, content in files.items() if content}
    given |= {"times": folder / "times.json"} if times else {}
    for key, path in given.items():
        path.write_bytes(files[key])
    if classes:
        check_refused(lambda: read_classes(given["classes"]), (DataError,))
    if name in ("folders", "haa500"):
        make_files(root, train.splitlines()[:50])
        given = {key: given[key] for key in ("classes",) if key in given}
    arguments: dict[str, Any] = {key: str(path) for key, path in given.items()}
    if name != "auto":
        arguments = {k: v for k, v in arguments.items() if k in FORMATS[name].arguments}
    found = read_annotations(root, format=name, **arguments)
    for split, clips in found.clips.items():
        for clip in clips:
            assert found.class_names[clip.label] == clip.class_name, (split, clip)
            if name not in ("folders", "haa500"):
                assert os.path.abspath(clip.path).startswith(os.path.abspath(root)), clip


def make_files(root: Path, names: list[bytes]) -> None:
    """Empty files within a folder, of names that a file can have."""
    for name in names:
        path = Path(os.path.abspath(root / os.fsdecode(name.lstrip(b"/")).replace("\0", "")))
        if path.is_relative_to(os.path.abspath(root)) and path != root:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError:  # too long, or a folder
                continue


def journal(data: bytes, folder: Path) -> None:
    """Lines of the journal of an index, behind a header that is right."""
    header = json.dumps({"root": str(folder.absolute()), "written_by": written_by()})
    path = folder / "journal.jsonl"
    path.write_bytes(header.encode() + b"\n" + data)
    for key, result in Journal(path, folder).known.items():
        assert result.key == key
        assert isinstance(result.usable, bool)
        assert isinstance(result.is_transient, bool)


TARGETS = {
    "containers": Target(containers, (VideoError,), 8192),
    "video": Target(video, (VideoError,), 16384),
    "bitstreams": Target(bitstreams, (), 512),
    "transport_stream": Target(transport_stream, (), 188 * 8 + 2),
    "stored_survey": Target(stored_survey, (VideoError,), prepare=sample_video),
    "annotations": Target(annotations, (DataError, ValueError)),
    "journal": Target(journal, ()),
}
