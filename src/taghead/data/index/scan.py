"""Scan of a dataset: decodes every frame of every clip once, in isolated processes."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.filesize import decimal
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from taghead.data.annotations import Clip
from taghead.data.index.journal import Journal
from taghead.data.index.scan_result import ClipKey, ScanResult, clip_key
from taghead.data.workers import Failure, memory_limit, run_isolated
from taghead.errors import VideoError
from taghead.video import Limits, Segment, VideoReader
from taghead.video.survey_cache import survey_to_text

R = TypeVar("R")
SEGMENTS_OF_A_JOB = 32  # opening a long file takes as long as reading some segments of it
SLOWEST_DISK = 5e6  # bytes per second, below which a file counts as hanging


@dataclass(frozen=True)
class FileState:
    """A file's size in bytes and time of change, or why there is no video file."""

    size: int = 0
    mtime_ns: int = 0
    reason: str = ""


class Bounds(NamedTuple):
    """What a clip may take: limits, and the number of frames of a clip that is read."""

    limits: Limits = Limits()
    clip_frames: int = 1

    def check(self, path: Path, height: int, width: int) -> None:
        """Refuses clips of frames of a size; raises a VideoError."""
        self.limits.check_frame(path, height, width)
        self.limits.check_clip(path, self.clip_frames, height, width)

    def allow(self, result: ScanResult) -> bool:
        """Whether a result says of the clip what another scan would."""
        if result.exceeds_limits:
            return False
        try:
            self.check(Path(result.file), result.height, result.width)
        except VideoError:
            return False
        return True


@dataclass(frozen=True)
class ScanJob:
    """Segments of one file, for one process; the file's hash, None if it is to be computed."""

    file: str
    path: Path
    state: FileState
    segments: tuple[Segment | None, ...]
    content_hash: str | None
    bounds: Bounds


def scan(
    clips: Sequence[Clip],
    root: str | Path,
    known: Mapping[ClipKey, ScanResult],
    journal: Journal | None = None,
    *,
    num_workers: int = 0,
    hashed: bool = False,
    timeout_sec: float = 300.0,
    title: str = "clips",
    bounds: Bounds = Bounds(),  # noqa: B008, it is immutable
) -> list[ScanResult]:
    """The scan result of every clip, in the order of the clips.

    Clips with a known result whose file has kept its size and time are not read again, unless
    limits have changed for them. All frames of the others are decoded. A clip at which a process
    dies is read again in a process of its own, alone; if that dies too, or takes too long, the clip
    cannot be used, like one that cannot be decoded. Where it was ended from outside, as the system
    does when memory runs out, the reason says so, and the next scan reads it again.

    Args:
        clips: The clips.
        root: The folder of videos.
        known: Results from before.
        journal: Where each new result is written at once, so that a scan can be interrupted.
        num_workers: Processes that read; 0 reads here, where a crash is not caught.
        hashed: Whether to compute `content_hash`.
        timeout_sec: How long a clip may take, beside the time to read its file from a slow disk.
        title: What the progress bar calls them.
        bounds: What a clip may take; one that takes more cannot be used.
    """
    states = file_states(clips)
    found: dict[ClipKey, ScanResult] = {}
    unread: dict[ClipKey, Clip] = {}
    for clip in clips:
        key, state = clip_key(clip, root), states[clip.path]
        if state.reason:
            found[key] = ScanResult(*key, state.reason)
        elif _is_fresh(known.get(key), state, hashed, bounds):
            found[key] = known[key]
        elif not clip.fault:
            unread[key] = clip
    jobs = _jobs(unread, states, hashed, bounds)
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not unread) as bar:
        task = bar.add_task(
            f"Reading {title}", total=len(unread) + len(found), completed=len(found)
        )
        with closing(_each(jobs, num_workers, timeout_sec)) as results:
            for several in results:
                if journal is not None:
                    journal.add([result for result in several if not result.is_transient])
                found.update((result.key, result) for result in several)
                bar.advance(task, len(several))
    return [
        ScanResult(*clip_key(clip, root), clip.fault) if clip.fault else found[clip_key(clip, root)]
        for clip in clips
    ]


def file_states(clips: Iterable[Clip]) -> dict[Path, FileState]:
    """The state of every clip's file. No file is opened."""
    return {path: _state(path) for path in {clip.path for clip in clips}}


def scan_file(job: ScanJob) -> list[ScanResult]:
    """Opens a file and reads all frames of the segments; whatever is wrong is in the results."""
    content_hash = _content_hash(job)
    empty = [replace(_unread(job, segment), content_hash=content_hash) for segment in job.segments]
    try:
        reader = VideoReader(job.path, threads=1, limits=job.bounds.limits)
    except Exception as error:  # of libraries too: whatever it is, it is this file's
        return [replace(result, reason=_reason(job.path, error)) for result in empty]
    pairs = zip(empty, job.segments, strict=True)
    results = [
        _with_frames(_with_file(result, reader), reader, part, job.bounds) for result, part in pairs
    ]
    return [replace(results[0], survey=survey_to_text(reader.survey)), *results[1:]]


def _with_file(result: ScanResult, reader: VideoReader) -> ScanResult:
    """The result, with what is known of the file."""
    return replace(
        result,
        codec=reader.codec,
        backend=reader.backend,
        backend_reason=reader.reason,
        fps=round(reader.fps, 6),
        width=reader.width,
        height=reader.height,
        file_frames=len(reader),
        file_sec=round(reader.duration, 6),
    )


def _with_frames(
    result: ScanResult, reader: VideoReader, segment: Segment | None, bounds: Bounds
) -> ScanResult:
    """The result, with what decoding the segment found out."""
    try:
        bounds.check(reader.path, reader.height, reader.width)
        frames = range(len(reader)) if segment is None else segment.frames(reader)
        with closing(reader.read_each(frames, size=(16, 16))) as pictures:
            deque(pictures, maxlen=0)  # small ones: decoding is what may fail
    except Exception as error:
        return replace(result, reason=_reason(reader.path, error))
    end = reader.times[frames.stop] if frames.stop < len(reader) else reader.duration
    return replace(
        result,
        first_frame=frames.start,
        num_frames=len(frames),
        duration_sec=round(float(end - reader.times[frames.start]), 6),
    )


def _reason(path: Path, error: Exception) -> str:
    """Why, in a line without the path."""
    text = " ".join(str(error).split()).removeprefix(f"{path}: ")
    return text if isinstance(error, VideoError) else f"{type(error).__name__}: {text}"


def _content_hash(job: ScanJob) -> str:
    """The hash of a job's file; empty if it cannot be read."""
    if job.content_hash is not None:
        return job.content_hash
    try:
        with job.path.open("rb") as file:
            return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
    except OSError:
        return ""


def _state(path: Path) -> FileState:
    try:
        if not path.exists():
            gone = [folder for folder in path.parents if not folder.exists()]
            where = f" (there is no folder {gone[-1]})" if gone else ""
            return FileState(reason=f"no such video file{where}")
        if path.is_dir():
            return FileState(reason="is a directory")
        if not path.is_file():
            return FileState(reason="is not a regular file")
        stat = path.stat()
    except OSError as error:
        return FileState(reason=(error.strerror or str(error)).lower())
    if stat.st_size == 0:
        return FileState(reason="the file is empty")
    return FileState(stat.st_size, stat.st_mtime_ns)


def _is_fresh(result: ScanResult | None, state: FileState, hashed: bool, bounds: Bounds) -> bool:
    """Whether the file is as it was, and no more is asked for than is known."""
    if result is None or (result.size, result.mtime_ns) != (state.size, state.mtime_ns):
        return False
    if not bounds.allow(result):
        return False
    return not result.is_transient and bool(result.content_hash or result.reason or not hashed)


def _jobs(
    unread: Mapping[ClipKey, Clip],
    states: Mapping[Path, FileState],
    hashed: bool,
    bounds: Bounds,
) -> list[ScanJob]:
    """Clips that are to be read, by file, some at a time."""
    files: dict[tuple[str, Path], list[Segment | None]] = {}
    for (file, _), clip in unread.items():
        files.setdefault((file, clip.path), []).append(clip.segment)
    content_hash = None if hashed else ""
    return [
        ScanJob(
            file,
            path,
            states[path],
            tuple(of_file[i : i + SEGMENTS_OF_A_JOB]),
            content_hash,
            bounds,
        )
        for (file, path), of_file in files.items()
        for i in range(0, len(of_file), SEGMENTS_OF_A_JOB)
    ]


def _each(
    jobs: Sequence[ScanJob], num_workers: int, timeout_sec: float
) -> Generator[list[ScanResult], None, None]:
    """The results of each job; of one that fails, those of each of its segments."""
    run = partial(_run, num_workers, partial(_time_limit, timeout_sec))
    again: list[ScanJob] = []
    alone: list[ScanJob] = []
    with closing(run(scan_file, _hashed_once(jobs, run))) as results:
        for job, result in results:
            if not isinstance(result, Failure):
                if num_workers > 0 and any(one.is_transient for one in result):
                    alone.append(job)
                else:
                    yield result
            elif len(job.segments) > 1:
                again += [replace(job, segments=(segment,)) for segment in job.segments]
            elif result.died:
                alone.append(job)
            else:
                yield [_unread(job, job.segments[0], f"reading it {result.reason}")]
    if again:
        yield from _each(again, num_workers, timeout_sec)
    for job in alone:
        yield from _alone(job, timeout_sec)


def _alone(job: ScanJob, timeout_sec: float) -> Generator[list[ScanResult], None, None]:
    """The results of a job whose process has died, from a process beside which none reads."""
    for _, result in run_isolated(scan_file, [job], 1, partial(_time_limit, timeout_sec)):
        if not isinstance(result, Failure):
            yield result
            continue
        reason = f"reading it {result.reason}"
        if result.stopped:
            reason = (
                f"not read: reading it {result.reason} twice, the second time alone, with "
                f"{decimal(memory_limit())} of memory"
            )
        yield [_unread(job, segment, reason) for segment in job.segments]


def _hashed_once(jobs: Sequence[ScanJob], run: Callable[..., Any]) -> list[ScanJob]:
    """The jobs, with the hash of each file that several of them share."""
    counts = Counter(job.path for job in jobs)
    shared = {job.path: job for job in jobs if job.content_hash is None and counts[job.path] > 1}
    hashes = {
        job.path: "" if isinstance(found, Failure) else found
        for job, found in run(_content_hash, list(shared.values()))
    }
    return [replace(job, content_hash=hashes.get(job.path, job.content_hash)) for job in jobs]


def _run(
    num_workers: int,
    time_limit_sec: Callable[[ScanJob], float],
    function: Callable[[ScanJob], R],
    jobs: Sequence[ScanJob],
) -> Generator[tuple[ScanJob, R | Failure], None, None]:
    """A function of each job, here or in processes of their own."""
    if num_workers > 0:
        yield from run_isolated(function, jobs, num_workers, time_limit_sec)
        return
    for job in jobs:
        yield job, function(job)


def _unread(job: ScanJob, segment: Segment | None, reason: str = "") -> ScanResult:
    return ScanResult(job.file, str(segment or ""), reason, job.state.size, job.state.mtime_ns)


def _time_limit(timeout_sec: float, job: ScanJob) -> float:
    return timeout_sec * len(job.segments) + job.state.size / SLOWEST_DISK
