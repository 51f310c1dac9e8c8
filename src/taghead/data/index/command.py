"""The command `taghead index`: checks a dataset before training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from taghead.data.annotations import Annotations, Format, Split, read_annotations
from taghead.data.index.excluded import ExcludedClip, excluded_table
from taghead.data.index.journal import Journal
from taghead.data.index.manifest import ManifestEntry, read_manifest, write_manifest
from taghead.data.index.report import draw_classes, write_report
from taghead.data.index.scan import Bounds, scan
from taghead.data.index.scan_result import ClipKey, ScanResult, written_by
from taghead.errors import DataError
from taghead.files import atomic_file, name_to_text, text_to_name
from taghead.processes import usable_cores
from taghead.video import Limits

MANIFEST, EXCLUDED, REPORT, PICTURE, PARTIAL = (
    "manifest.parquet",
    "excluded.csv",
    "report.txt",
    "classes.png",
    "partial.jsonl",
)
LOCK_TIMEOUT_SEC = 5.0  # the processes of a killed command end within it


def index(
    root: str,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    format: Format = "auto",
    classes: str | None = None,
    times: str | None = None,
    output: str = "runs/index",
    min_frames: int = 32,
    num_workers: int | None = None,
    timeout_sec: float = 300.0,
    rescan: bool = False,
    outside_root: bool = False,
    limits: Limits = Limits(),  # noqa: B008, it is frozen
) -> None:
    """Checks a dataset: reads every frame of every clip, and reports what is wrong with it.

    In the folder `output` are then `manifest.parquet`, which training reads; `excluded.csv`, the
    clips that cannot be used, which training leaves out only with `on_error=exclude`;
    `report.txt` and `classes.png`. A stopped command is resumed by the same command; files that
    have changed are read again.

    Args:
        root: The folder of videos.
        train: What lists the training split, as in `VideoDataModule`, like those that follow.
        val: What lists the validation split.
        test: What lists the test split.
        format: The format of the annotations.
        classes: A file with the names of the classes.
        times: FineGym's JSON file of times.
        output: The folder for what is found.
        min_frames: Frames that a clip needs lest some are repeated; shorter ones are reported.
        num_workers: Processes that read; one for each CPU core when not given; 0 reads in this
            process, where a crash is not caught.
        timeout_sec: How long reading a clip may take.
        rescan: Whether to read all clips again.
        outside_root: Whether annotations may name videos outside `root`.
        limits: What a video file may ask for; the clips of a larger one cannot be used. The bytes
            are those of `min_frames` frames.

    Raises:
        DataError: If the dataset cannot be listed, or `output` is of another one, or another
            process is writing it.
        ValueError: If an argument breaks its rule.
    """
    _check(min_frames=min_frames, timeout_sec=timeout_sec)
    if num_workers is None:
        num_workers = usable_cores()
    elif num_workers < 0:
        raise ValueError(f"num_workers must be at least 0 (got {num_workers})")
    annotations = read_annotations(root, train, val, test, format, classes, times, outside_root)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=LOCK_TIMEOUT_SEC)
    except Timeout:
        raise DataError(f"{folder}: another process is writing it") from None
    with lock:
        bounds = Bounds(limits, min_frames)
        _index(annotations, root, folder, num_workers, bounds, timeout_sec, rescan)


def _index(
    annotations: Annotations,
    root: str,
    folder: Path,
    num_workers: int,
    bounds: Bounds,
    timeout_sec: float,
    rescan: bool,
) -> None:
    """Reads the clips and writes the files, in a locked folder; the arguments are `index`'s."""
    known = _earlier_results(folder / MANIFEST, root)
    journal = Journal(folder / PARTIAL, root)
    clips = [(split, clip) for split in annotations.clips for clip in annotations.clips[split]]
    try:
        results = scan(
            [clip for _, clip in clips],
            root,
            {} if rescan else {**known, **journal.known},
            journal,
            num_workers=num_workers,
            hashed=True,
            timeout_sec=timeout_sec,
            bounds=bounds,
        )
    except KeyboardInterrupt:
        print("stopped; the same command resumes it", file=sys.stderr)
        raise SystemExit(130) from None
    entries = with_duplicates(
        [
            ManifestEntry(split, clip, found)
            for (split, clip), found in zip(clips, results, strict=True)
        ]
    )
    write_manifest(folder / MANIFEST, root, annotations, entries)
    with atomic_file(folder / EXCLUDED) as partial:
        _excluded(entries).to_csv(partial, index=False)
    journal.path.unlink(missing_ok=True)
    _check_counts(folder, annotations)
    draw_classes(annotations, entries, folder / PICTURE)
    write_report(folder / REPORT, root, annotations, entries, bounds.clip_frames)
    print((folder / REPORT).read_text(encoding="utf-8"), end="")
    print(f"\nWritten to {name_to_text(folder)}: {MANIFEST}, {EXCLUDED}, {REPORT}, {PICTURE}")


def with_duplicates(entries: Sequence[ManifestEntry]) -> list[ManifestEntry]:
    """The entries, each with another clip that shows frames of the same file content, if any.

    Of clips in other splits, sharing one frame is enough: what a model is tested on, it has seen
    in training. Of clips in the same split, they must be all frames.
    """
    table = pd.DataFrame(
        {
            "hash": [entry.result.content_hash for entry in entries],
            "split": [entry.split for entry in entries],
            "first": [entry.result.first_frame for entry in entries],
            "stop": [entry.result.first_frame + entry.result.num_frames for entry in entries],
        }
    )
    usable = np.array([entry.result.usable for entry in entries], bool)
    found = list(entries)
    for _, group in table[usable & (table["hash"] != "")].groupby("hash", sort=False):
        if len(group) == 1:
            continue
        split, first, stop = (group[name].to_numpy() for name in ("split", "first", "stop"))
        for row, number in enumerate(group.index):
            shared = (first < stop[row]) & (stop > first[row]) & (split != split[row])
            equal = (first == first[row]) & (stop == stop[row])
            equal[row] = False
            duplicates = shared if shared.any() else equal
            if duplicates.any():
                other = entries[group.index[duplicates.argmax()]]
                found[number] = replace(entries[number], same_as=f"{other.split}: {other.clip.id}")
    return found


def _earlier_results(manifest: Path, root: str) -> dict[ClipKey, ScanResult]:
    """The results of an earlier scan by the same versions.

    Raises:
        DataError: If it is of another folder of videos.
    """
    try:
        earlier = read_manifest(manifest)
    except DataError:  # none, or of another version
        return {}
    of = earlier.description["root"]
    if Path(text_to_name(of)).absolute() != Path(root).absolute():
        raise DataError(f"{manifest}: is of another folder of videos, {of}: say another output")
    return earlier.known if earlier.description["written_by"] == written_by() else {}


def _excluded(entries: Sequence[ManifestEntry]) -> pd.DataFrame:
    unreadable: dict[Split, list[ExcludedClip]] = {split: [] for split in get_args(Split)}
    for entry in entries:
        if not entry.result.usable:
            unreadable[entry.split].append(ExcludedClip(entry.clip, entry.result.reason))
    return excluded_table(unreadable)


def _check_counts(folder: Path, annotations: Annotations) -> None:
    """Checks in the files as written that every listed clip is in one of them."""
    with (folder / MANIFEST).open("rb") as file:  # the folder's name may be any bytes
        used = pd.read_parquet(file).query("reason == ''")["split"].value_counts()
    excluded = pd.read_csv(folder / EXCLUDED)["split"].value_counts()
    for split, clips in annotations.clips.items():
        counts = used.get(split, 0), excluded.get(split, 0)
        if sum(counts) != len(clips):
            raise RuntimeError(
                f"{folder}: {split}: {counts[0]} used and {counts[1]} excluded clips are not "
                f"{len(clips)} listed ones"
            )


def _check(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be positive (got {number})")
