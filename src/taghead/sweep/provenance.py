"""What a run depends on beside its config: code, libraries and data."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
import torch_geometric

import taghead
from taghead.data import VideoDataModule
from taghead.data.annotations import Split
from taghead.data.index.scan_result import clip_key
from taghead.features.feature_spec import MANIFEST

DIGITS = 12


@cache
def code_version() -> str:
    """The commit of the package's repository, with `+dirty` if files differ from it.

    A package that is installed without a repository gives its version.
    """
    package = Path(taghead.__file__).parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return taghead.__version__
    commit = _git(package, "rev-parse", "HEAD")
    if commit is None:
        return taghead.__version__
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ":/")
    new = _git(package, "status", "--porcelain", "--", ".")
    return f"{commit}+dirty" if changed or new else commit


def _git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, check=False
        )
    except OSError:  # there is no git
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """The code's version and those of the libraries that decide the numbers."""
    return {
        "commit": code_version(),
        "torch": torch.__version__,
        "pyg": torch_geometric.__version__,
    }


def clip_names(data: VideoDataModule, split: Split) -> list[str]:
    """Ids of a split's clips, the same on every machine.

    Their paths begin in the deepest folder that all clips of the data share.
    """
    folders = {str(clip.path.absolute().parent) for clips in data.listed.values() for clip in clips}
    root = os.path.commonpath(folders)
    return [replace(clip, path=Path(clip_key(clip, root)[0])).id for clip in data.clips[split]]


def data_digest(data: VideoDataModule) -> str:
    """What data a run saw.

    For a feature cache, its backbone's weights and its manifest, which has the SHA-256 of every
    file; for videos, the list of clips.
    """
    if data.features is not None:
        weights = data.features.spec.weights_sha256
        manifest = hashlib.sha256((data.features.root / MANIFEST).read_bytes()).hexdigest()
        return f"features:{weights[:DIGITS]}:{manifest[:DIGITS]}"
    clips = {
        split: [[*clip_key(clip, data.root), clip.label] for clip in listed]
        for split, listed in data.listed.items()
    }
    text = json.dumps([data.class_names, clips], sort_keys=True)
    return f"clips:{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"
