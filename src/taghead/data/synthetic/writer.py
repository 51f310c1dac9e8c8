"""Writer of a generated dataset: H.264 files, annotation files, and the parameters."""

import csv
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from operator import index
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn

from taghead.data.workers import run_surely
from taghead.errors import DataError, is_disk_full
from taghead.files import atomic_file, json_text, parse_json, remove_unfinished
from taghead.processes import usable_cores

from .classes import ClipSpec, check_fraction, class_labels, class_names
from .render import count_frames, draw_clip, plan_clip

FRAME_RATE = 25
DEFAULT_SPLITS: Mapping[str, int] = MappingProxyType({"train": 1440, "val": 90, "test": 270})
GENERATOR_VERSION = 1  # raised when the same parameters give other clips
CLIPS_PER_WORKER = 100  # starting a process takes as long as about so many clips
CLIP_SEC = 600.0  # a clip takes some milliseconds; a process that was stopped takes this long
ABANDONED_SEC = 60  # a run that is alive takes less than a second a file
RECORD_NAME = "dataset.json"
CSV_HEADER = ("FileName", "Class", "TotalFrames", "ClassEncoded")
_ENCODER = {"crf": "26", "preset": "superfast", "g": "12"}


@dataclass(frozen=True)
class PlannedClip:
    """A clip to write: what it shows, the name of its file, and its class's number."""

    spec: ClipSpec
    file_name: str
    number: int

    @property
    def class_name(self) -> str:
        return class_names(self.spec.family)[self.spec.label]


def write_dataset(
    root: str | Path,
    *,
    splits: Mapping[str, int] = DEFAULT_SPLITS,
    family: str = "somersault",
    level: float = 0.3,
    mirror: float = 0.0,
    seed: int = 0,
    num_workers: int | None = None,
    progress: bool = True,
    classes: Sequence[str] | None = None,
) -> None:
    """Writes a dataset: ``videos/<Class>/<FileName>`` and one annotation file per split.

    Every clip has its own seed, made of `seed`, the split's name and the clip's index in the split.
    So no clip is in two splits, a larger split starts with the clips of a smaller one, and
    the files are the same bytes for any number of workers. Classes are balanced and interleaved.

    A stopped run can be resumed: existing clips are not written again. The annotation files are
    written last.

    Args:
        root: Folder of the dataset; made if missing.
        splits: Number of clips per split.
        family: ``somersault`` or ``order``.
        level: Strength of everything that varies within a class, from 0 to 1.
        mirror: Probability that a clip is shown mirrored, left to right.
        seed: Non-negative; another seed gives another dataset.
        num_workers: Processes that write clips; 0 for this process alone, `None` for one per usable
            CPU core but none without at least 100 clips to write. With any, a script needs the
            usual ``if __name__ == "__main__":``.
        progress: Whether to show a progress bar.
        classes: Names of the family's classes to write, numbered as they stand here; all of them
            if not given.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If `root` holds something else, was made with other parameters, or cannot be
            written.
    """
    splits = _checked_splits(splits)
    labels = class_labels(family, classes)
    check_fraction("level", level)
    check_fraction("mirror", mirror)
    seed = _non_negative("seed", seed)
    if num_workers is not None:
        num_workers = _non_negative("num_workers", num_workers)
    parameters = {
        "splits": splits,
        "family": family,
        "level": float(level),
        "mirror": float(mirror),
        "seed": seed,
        "generator_version": GENERATOR_VERSION,
        "classes": None if classes is None else list(classes),
    }

    root = Path(root)
    try:
        _check_or_record(root, parameters)
        remove_unfinished(root, ABANDONED_SEC)
        clips = {
            split: list(_split_clips(split, size, family, labels, level, mirror, seed))
            for split, size in splits.items()
        }
        _write_clips(root / "videos", clips, num_workers, progress)
        for split, members in clips.items():
            _write_annotations(root / f"{split}.csv", members)
    except OSError as error:
        if is_disk_full(error):
            raise DataError(f"{root}: no space left on the disk") from error
        path = error.filename or root
        raise DataError(f"{path}: {error.strerror or error}") from error


def _non_negative(name: str, value: int) -> int:
    try:
        number = index(value)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"{name} must be a non-negative integer (got {value!r})")
    return number


def _checked_splits(splits: Mapping[str, int]) -> dict[str, int]:
    if not splits:
        raise ValueError(f"splits must name at least one split (got {dict(splits)!r})")
    for name in splits:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"splits must have names of letters, digits and _ (got {name!r})")
    return {name: _non_negative(f"splits[{name!r}]", size) for name, size in splits.items()}


def _split_clips(
    split: str,
    size: int,
    family: str,
    labels: Sequence[int],
    level: float,
    mirror: float,
    seed: int,
) -> Iterator[PlannedClip]:
    """The clips of a split: runs of all classes, each run in its own random order."""
    num_classes = len(labels)
    split_key = zlib.crc32(split.encode())
    numbers: list[int] = []
    for position in range(size):
        if position % num_classes == 0:
            # A fourth word keeps this stream apart from those of the clips.
            order = np.random.default_rng([seed, split_key, position, 1])
            numbers = order.permutation(num_classes).tolist()
        number = numbers[position % num_classes]
        spec = ClipSpec((seed, split_key, position), labels[number], family, level, mirror)
        yield PlannedClip(spec, f"{split}_{position:06d}.mp4", number)


def _check_or_record(root: Path, parameters: dict[str, Any]) -> None:
    """Records the parameters in a new folder, or compares them with those of an old one."""
    record = root / RECORD_NAME
    if record.exists():
        _compare(record, parameters)
        return
    if root.is_dir() and any(root.iterdir()):
        raise DataError(
            f"{root}: is not empty and holds no {RECORD_NAME}; choose another folder, or delete it "
            f"if it is a generated dataset"
        )
    root.mkdir(parents=True, exist_ok=True)
    with atomic_file(record) as partial:
        partial.write_text(json_text(parameters, record, indent=2) + "\n", encoding="utf-8")


def _compare(record: Path, parameters: dict[str, Any]) -> None:
    try:
        found = parse_json(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{record}: is not JSON ({error}); {_anew(record)}") from error
    if not isinstance(found, dict):
        raise DataError(f"{record}: must hold a JSON object; {_anew(record)}")
    for name, value in parameters.items():
        if found.get(name) != value:
            raise DataError(
                f"{record}: the dataset was made with {name}={found.get(name)!r}, "
                f"asked for {name}={value!r}; choose another folder"
            )


def _anew(record: Path) -> str:
    """How to go on with a dataset whose parameters are lost: its clips may be any."""
    return f"delete the whole folder {record.parent}, and it is generated anew"


def _write_clips(
    videos: Path, clips: Mapping[str, list[PlannedClip]], num_workers: int | None, progress: bool
) -> None:
    """Writes the clips that are not there yet."""
    members = [clip for split in clips.values() for clip in split]
    for class_name in sorted({clip.class_name for clip in members}):
        (videos / class_name).mkdir(parents=True, exist_ok=True)
    jobs = [(clip.spec, videos / clip.class_name / clip.file_name) for clip in members]
    missing = [(spec, path) for spec, path in jobs if not path.exists()]
    if not missing:
        return
    if num_workers is None:
        num_workers = min(usable_cores(), len(missing) // CLIPS_PER_WORKER)

    columns = (SpinnerColumn(), *Progress.get_default_columns()[:2], MofNCompleteColumn())
    console = Console(stderr=True)
    try:
        with Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not progress
        ) as bar:
            task = bar.add_task("clips", total=len(jobs), completed=len(jobs) - len(missing))
            with closing(_each_written(missing, min(num_workers, len(missing)))) as written:
                for _ in written:
                    bar.advance(task)
    finally:
        remove_unfinished(videos, ABANDONED_SEC)  # of processes that were ended


def _each_written(
    jobs: list[tuple[ClipSpec, Path]], num_workers: int
) -> Generator[None, None, None]:
    """Writes all clips, here or in other processes, and yields after each."""
    if num_workers == 0:
        for job in jobs:
            _write(job)
            yield
        return
    results = run_surely(_write, jobs, num_workers, lambda job: CLIP_SEC, is_finished=True)
    with closing(results):
        for (_, path), failure in results:
            if failure is not None:
                raise DataError(f"{path}: writing it {failure.reason}")
            yield


def _write(job: tuple[ClipSpec, Path]) -> None:
    write_clip(*job)


def write_clip(spec: ClipSpec, path: Path) -> None:
    """Draws one clip into a file, which appears only when it is complete."""
    with atomic_file(path) as partial:
        encode(draw_clip(plan_clip(spec)), partial)


def encode(frames: NDArray[np.uint8], path: Path) -> None:
    """Writes frames `[T, H, W, 3]` as H.264 in mp4, on one thread."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAME_RATE), options=_ENCODER)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _write_annotations(path: Path, clips: Iterable[PlannedClip]) -> None:
    rows = [
        (clip.file_name, clip.class_name, count_frames(clip.spec), clip.number) for clip in clips
    ]
    with atomic_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_HEADER)
        writer.writerows(rows)
