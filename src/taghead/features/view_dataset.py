"""Torch dataset of all views of every clip, for extraction."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from taghead.data.annotations import Clip, Split
from taghead.data.dataset import ClipDataset
from taghead.data.index.excluded import ExcludedClip
from taghead.errors import VideoError
from taghead.features.shards import Shard
from taghead.processes import start_worker
from taghead.video.preprocessing import Preprocessing

ViewKey = tuple[Split, int]
"""A split, and the index of a clip in its list."""

ViewBatch = list[tuple[ViewKey, Tensor | str]]
"""For each clip, its views `[V, 3, T, H, W]`, or why it cannot be read."""


class ViewDataset(Dataset):
    """All views of a clip, by key: first that of a test, then random ones as in training.

    Args:
        clips: The clips of each split.
        preprocessing: How frames are sampled and transformed.
        num_views: Views of a clip of the split `train`.
        seed: Seed of the random views. A view does not depend on the order of reading.
        unreadable: Clips that are known to be unreadable, with the reason; they are not read.
        surveys: Stored surveys of files, by absolute path.

    Shapes:
        - **item** the key; the views `[V, 3, T, H, W]`, or why the clip cannot be read
    """

    def __init__(
        self,
        clips: Mapping[Split, Sequence[Clip]],
        preprocessing: Preprocessing,
        num_views: int,
        seed: int,
        unreadable: Mapping[ViewKey, str],
        surveys: Mapping[Path, str] | None = None,
    ) -> None:
        self.tested = {
            split: ClipDataset(listed, preprocessing, views=split == "test", surveys=surveys)
            for split, listed in clips.items()
        }
        self.drawn = ClipDataset(clips.get("train", ()), preprocessing, train=True, surveys=surveys)
        self.num_views = num_views
        self.seed = seed
        self.unreadable = dict(unreadable)

    def __getitem__(self, key: ViewKey) -> tuple[ViewKey, Tensor | str]:
        if key in self.unreadable:
            return key, self.unreadable[key]
        split, number = key
        try:
            seen = self.tested[split][number][0]
            if seen.dim() == 5:  # all views of a test
                return key, seen
            later = range(1, self.num_views if split == "train" else 1)
            return key, torch.stack([seen, *(self._drawn(number, view) for view in later)])
        except VideoError as error:
            clip = self.tested[split].clips[number]
            return key, ExcludedClip(clip, str(error)).bare_reason

    def _drawn(self, number: int, view: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(view_seed(self.seed, number, view))
            return self.drawn[number][0]


def view_seed(seed: int, number: int, view: int) -> int:
    """A seed of 64 bits for a view, unique but for rare collisions.

    It depends on the clip's index, not its path, so it is the same on every machine.
    """
    digest = hashlib.sha256(f"{seed} {number} {view}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def view_loader(
    dataset: ViewDataset,
    shards: Iterable[Shard],
    batch_size: int,
    num_workers: int,
    pin: bool,
    timeout_sec: float = 0.0,
) -> DataLoader:
    """Loads the clips of shards in batches of about `batch_size` views, which do not cross shards.

    A clip is therefore in the same batch in every run: its feature map's rounding depends on the
    size of the batch.
    """
    batches: list[list[ViewKey]] = []
    for shard in shards:
        size = max(1, batch_size // shard.num_views)
        for start in range(shard.start, shard.stop, size):
            stop = min(start + size, shard.stop)
            batches.append([(shard.split, number) for number in range(start, stop)])
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=list,
        pin_memory=pin,
        worker_init_fn=start_worker,
        timeout=timeout_sec if num_workers > 0 else 0,
    )
