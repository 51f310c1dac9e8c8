"""Generated clips in the folders and annotation files of published datasets."""

import json
import os
from pathlib import Path

VIDEO = "a.mp4"


def arranged(root: Path, video: Path, format: str, num_classes: int) -> dict[str, object]:
    """A clip of each class, all the same file, and the data module's arguments for them."""
    write = {"reference": _reference, "diving48": _diving48}[format]
    listed = write(root, video, num_classes)
    return {"root": root / "videos", "train": listed, "val": listed, "test": listed}


def _link(video: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(video, path)


def _reference(root: Path, video: Path, num_classes: int) -> Path:
    """The paper's CSV, with numbers as names and not sorted by class, as FineGym's is."""
    rows = []
    for label in range(num_classes):
        name = str(200 + label * 7 % num_classes)  # num_classes is no multiple of 7
        _link(video, root / "videos" / name / VIDEO)
        rows.append(f"{VIDEO},{name},20,{label}")
    path = root / "clips.csv"
    path.write_text("\n".join(["FileName,Class,TotalFrames,ClassEncoded", *rows[::-1]]) + "\n")
    return path


def _diving48(root: Path, video: Path, num_classes: int) -> Path:
    clips = []
    for label in range(num_classes):
        _link(video, root / "videos" / f"dive_{label}.mp4")
        clips.append({"vid_name": f"dive_{label}", "label": label, "start_frame": 0})
    path = root / "clips.json"
    path.write_text(json.dumps(clips))
    return path
