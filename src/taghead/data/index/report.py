"""Index report: a text file, and a histogram of the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from taghead.data.annotations import Annotations
from taghead.data.index.manifest import ManifestEntry
from taghead.files import atomic_file, name_to_text

MAX_LISTED = 40  # one page
MAX_NAMED = 60  # names of classes that can be read in one picture
GROUPS = {"head": "more than 100", "medium": "20 to 100", "tail": "fewer than 20"}


def write_report(
    path: Path,
    root: str,
    annotations: Annotations,
    entries: Sequence[ManifestEntry],
    min_frames: int,
) -> None:
    """Writes the report of a dataset.

    Args:
        path: The text file.
        root: The folder of videos.
        annotations: What the dataset lists.
        entries: Its clips.
        min_frames: Frames of the shortest clip that is not reported as short.
    """
    used = [entry for entry in entries if entry.result.usable]
    blocks = [
        _splits(root, annotations, entries),
        _excluded([entry for entry in entries if not entry.result.usable]),
        _findings(used, min_frames),
        _classes(annotations, used),
        _videos(used),
    ]
    text = "\n\n".join("\n".join(lines) for lines in map(list, blocks) if lines)
    with atomic_file(path) as partial:
        partial.write_text(f"{name_to_text(text)}\n", encoding="utf-8")


def class_counts(
    annotations: Annotations, entries: Sequence[ManifestEntry]
) -> dict[str, np.ndarray]:
    """Usable clips of each class, by split, `[K]`."""
    size = len(annotations.class_names)
    return {
        split: np.bincount(
            [e.clip.label for e in entries if e.split == split and e.result.usable], minlength=size
        )
        for split in annotations.clips
    }


def draw_classes(annotations: Annotations, entries: Sequence[ManifestEntry], path: Path) -> None:
    """Draws how many clips each class has in each split, the largest class first."""
    counts = class_counts(annotations, entries)
    names = annotations.class_names
    order = np.argsort(-counts["train"], kind="stable")
    few = len(names) <= MAX_NAMED
    width = max(6.0, 2 + 0.3 * len(names)) if few else 12  # inches
    figure = Figure(figsize=(width, 5), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(names))
    for number, (split, of_split) in enumerate(counts.items()):
        label = f"{split}, {of_split.sum()} clips"
        if few:
            part = 0.8 / len(counts)
            left = positions - 0.4 + part * number
            axes.bar(left, of_split[order], part, align="edge", label=label)
        else:
            axes.step(positions, of_split[order], where="mid", linewidth=1, label=label)
    for bound in (20, 100):  # of tail, medium and head
        axes.axhline(bound, color="gray", linewidth=0.8, linestyle=":")
    axes.set_yscale("symlog", linthresh=1, linscale=0.3)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("clips that can be used")
    if few:
        axes.set_xticks(positions, [names[i] for i in order], rotation=90, parse_math=False)
    else:
        axes.set_xlabel("classes, by their number of training clips")
    figure.legend(loc="outside upper right", ncols=len(counts))
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def _splits(root: str, annotations: Annotations, entries: Sequence[ManifestEntry]) -> Iterator[str]:
    usable = Counter(entry.split for entry in entries if entry.result.usable)
    total, used = len(entries), usable.total()
    yield f"{root}: {annotations.format}, {len(annotations.class_names)} classes"
    yield f"{'split':<8}{'listed':>8}{'used':>8}{'excluded':>10}  listed in"
    for split, clips in annotations.clips.items():
        left_out = len(clips) - usable[split]
        source = annotations.sources[split]
        yield f"{split:<8}{len(clips):>8}{usable[split]:>8}{left_out:>10}  {source}"
    yield f"{used} of {total} clips can be used: {used} + {total - used} = {total}"


def _excluded(entries: Sequence[ManifestEntry]) -> Iterator[str]:
    if entries:
        yield "Clips that cannot be used (excluded.csv; left out only with on_error=exclude):"
    for entry in entries[:MAX_LISTED]:
        yield f"  {entry.split}  {entry.clip.id}: {entry.result.reason}"
    if len(entries) > MAX_LISTED:
        yield f"  and {len(entries) - MAX_LISTED} more"


def _findings(used: Sequence[ManifestEntry], min_frames: int) -> Iterator[str]:
    yield "Found in clips that are used:"
    short = [entry for entry in used if entry.result.num_frames < min_frames]
    yield from _finding(
        f"shorter than {min_frames} frames, so that frames are repeated",
        short,
        lambda entry: f"{entry.result.num_frames} frames",
    )
    wrong = [e for e in used if e.clip.listed_frames not in (None, e.result.num_frames)]
    yield from _finding(
        "listed with a wrong number of frames",
        wrong,
        lambda entry: f"listed {entry.clip.listed_frames}, has {entry.result.num_frames}",
    )
    duplicates = [entry for entry in used if entry.same_as]
    leaks = [entry for entry in duplicates if not entry.same_as.startswith(f"{entry.split}: ")]
    repeated = [entry for entry in duplicates if entry.same_as.startswith(f"{entry.split}: ")]
    classes: dict[str, set[str]] = {}
    for entry in repeated:
        for name in (entry.same_as, f"{entry.split}: {entry.clip.id}"):
            classes.setdefault(name, set()).add(entry.clip.class_name)
    contradicting = [entry for entry in repeated if len(classes[entry.same_as]) > 1]
    yield from _finding("in two splits, wholly or in part", leaks, lambda entry: entry.same_as)
    yield from _finding("twice in a split", repeated, lambda entry: entry.same_as)
    yield from _finding(
        "twice in a split, in two classes", contradicting, lambda entry: entry.same_as
    )


def _finding(
    title: str, entries: Sequence[ManifestEntry], say: Callable[[ManifestEntry], str]
) -> Iterator[str]:
    """How many clips something is found with, and the first of them."""
    first = f"; the first: {entries[0].clip.id} ({say(entries[0])})" if entries else ""
    yield f"  {title}: {len(entries)}{first}"


def _classes(annotations: Annotations, used: Sequence[ManifestEntry]) -> Iterator[str]:
    from taghead.metrics import long_tail_groups  # torch, which reading does not need

    counts = class_counts(annotations, used)
    train, names = counts["train"], annotations.class_names
    yield "Classes by training clips: " + ", ".join(
        f"{members.sum()} {name} ({GROUPS[name]})"
        for name, members in long_tail_groups(train.tolist()).items()
    )
    for split, of_split in counts.items():
        largest, smallest = of_split.argmax(), of_split.argmin()
        yield (
            f"  {split}: {of_split[smallest]} ({names[smallest]}) to {of_split[largest]} "
            f"({names[largest]}) clips of a class, median {np.median(of_split):g}, "
            f"{(of_split == 0).sum()} classes without a clip"
        )


def _videos(used: Sequence[ManifestEntry]) -> Iterator[str]:
    if not used:
        return
    results = [entry.result for entry in used]
    frames = np.array([one.num_frames for one in results])
    hours = sum(one.duration_sec for one in results) / 3600
    yield (
        f"Videos: {len({one.file for one in results})} files; clips of {frames.min()} to "
        f"{frames.max()} frames, median {np.median(frames):g}; {hours:.2f} hours"
    )
    yield f"  codecs: {_shares([one.codec for one in results])}"
    yield f"  sizes: {_shares([f'{one.width}x{one.height}' for one in results])}"
    yield f"  frames per second: {_shares([f'{one.fps:g}' for one in results])}"
    yield f"  decoded by: {_shares([f'{one.backend} ({one.backend_reason})' for one in results])}"


def _shares(values: Sequence[str]) -> str:
    """The most frequent values, each with its count."""
    counts = Counter(values).most_common()
    more = f", and {len(counts) - 5} others" if len(counts) > 5 else ""
    return ", ".join(f"{value} {count}" for value, count in counts[:5]) + more
