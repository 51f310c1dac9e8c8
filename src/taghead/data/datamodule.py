"""Lightning data module of annotated videos: batches of clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from taghead.data.annotations import Annotations, Clip, Format, Split, read_annotations
from taghead.data.dataset import ClipDataset, LabelledDataset
from taghead.data.index.excluded import ExcludedClip, excluded_table, find_missing
from taghead.data.index.journal import Journal
from taghead.data.index.manifest import Manifest, read_manifest
from taghead.data.index.scan import Bounds, scan
from taghead.data.index.scan_result import ClipKey, clip_key, surveys_of
from taghead.data.sampler import EpochSampler, LateLoader
from taghead.errors import DataError
from taghead.files import atomic_file
from taghead.processes import start_worker
from taghead.video.preprocessing import Preprocessing

log = logging.getLogger(__name__)

OnError = Literal["raise", "exclude"]
STAGES: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
}


class VideoDataModule(LightningDataModule):
    """Clips of a dataset in any of the formats of :func:`~taghead.data.read_annotations`.

    Args:
        root: The folder of videos.
        train: What lists the training split, which names the classes: a CSV, JSON or text file.
            Datasets that are folders need none; in them it is a folder of `root`.
        val: What lists the validation split, if there is one.
        test: What lists the test split, if there is one.
        preprocessing: How frames are sampled and transformed.
        batch_size: Clips in a batch.
        num_workers: Processes that read clips; 0 reads in the training process.
        on_error: What happens to a clip that cannot be read. `raise` stops with its name.
            `exclude` leaves it out and lists it in `excluded.csv` in the run's folder. To know,
            every clip is read once before training, unless `manifest` or an earlier run tells.
        class_balance: How far training evens out classes of different numbers of clips, 0 to 1: 0
            sees every clip once an epoch, 1 draws all classes equally often
            (:class:`~taghead.data.sampler.EpochSampler`).
        format: The format of the annotations; `auto` finds it by what the files hold.
        classes: A file with the names of the classes, for formats that need one.
        times: FineGym's JSON file of times, if it is not beside `train`.
        manifest: The `manifest.parquet` that `taghead index` wrote. It has which clips cannot be
            read, and the survey of each file; only files that have changed since, by size or time,
            are read again.
        outside_root: Whether annotations may name videos outside `root`.
        timeout_sec: How long a batch may be waited for, lest a process that has stopped, or a
            disk that hangs, stops training without a word; 0 waits for ever.

    Raises:
        DataError: If an annotation file or, with `on_error` raise, a clip cannot be used.
        ValueError: If an argument breaks its rule.
    """

    features: Any = None
    """The `FeatureCache` of a data module that gives feature maps; None if it gives clips."""

    def __init__(
        self,
        root: str,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        preprocessing: Preprocessing = Preprocessing(),  # noqa: B008, it is frozen
        batch_size: int = 8,
        num_workers: int = 2,
        on_error: OnError = "raise",
        class_balance: float = 0.0,
        format: Format = "auto",
        classes: str | None = None,
        times: str | None = None,
        manifest: str | None = None,
        outside_root: bool = False,
        timeout_sec: float = 600.0,
    ) -> None:
        super().__init__()
        if not 0 <= class_balance <= 1:
            raise ValueError(f"class_balance must be from 0 to 1 (got {class_balance})")
        if not 0 <= timeout_sec < float("inf"):
            raise ValueError(f"timeout_sec must be 0 or more (got {timeout_sec})")
        if on_error not in ("raise", "exclude"):
            raise ValueError(f"on_error must be raise or exclude (got {on_error!r})")
        if batch_size < 1 or num_workers < 0:
            raise ValueError(
                f"batch_size must be at least 1 and num_workers at least 0 "
                f"(got {batch_size} and {num_workers})"
            )
        self.root = root
        self.files = {"train": train, "val": val, "test": test}
        self.format = format
        self.classes = classes
        self.times = times
        self.manifest = manifest
        self.outside_root = outside_root
        self.timeout_sec = timeout_sec
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.class_balance = class_balance
        self.clips: dict[Split, list[Clip]] = {}
        self.excluded: dict[Split, list[ExcludedClip]] = {}
        self.surveys: dict[Path, str] = {}
        self.order_seed: int | None = None

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> VideoDataModule:
        """Refused: Lightning would build what the file's hyper-parameters name.

        Raises:
            ValueError: In any case.
        """
        raise ValueError(f"a checkpoint holds no data: make {cls.__name__} of its arguments")

    @cached_property
    def annotations(self) -> Annotations:
        """What the annotation files list; read once."""
        return read_annotations(
            self.root,
            **self.files,
            format=self.format,
            classes=self.classes,
            times=self.times,
            outside_root=self.outside_root,
        )

    @cached_property
    def listed(self) -> dict[Split, list[Clip]]:
        """All clips that the annotation files list, by split."""
        return dict(self.annotations.clips)

    @property
    def class_names(self) -> list[str]:
        """The classes, by number."""
        return self.annotations.class_names

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.order_seed is None:
            seed = torch.initial_seed()
            # all processes need the same order
            self.order_seed = self.trainer.strategy.broadcast(seed) if self.trainer else seed
        new = [split for split in STAGES.get(stage, ()) if split not in self.clips]
        for split in new:
            if split in self.listed:
                self.choose(split)
        if any(self.excluded.get(split) for split in new):
            self._write_excluded()

    def counts(self, split: Split) -> tuple[int, int]:
        """How many clips of a split are used, of how many listed."""
        return len(self.clips[split]), len(self.listed[split])

    def class_counts(self) -> list[int]:
        """How many clips of each class training uses; before `setup("fit")`, how many it lists."""
        clips = self.clips.get("train", self.listed["train"])
        return np.bincount([clip.label for clip in clips], minlength=len(self.class_names)).tolist()

    def train_dataloader(self) -> DataLoader:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader | list:
        return self._loader("val") if "val" in self.clips else []

    def test_dataloader(self) -> DataLoader:
        if "test" not in self.clips:
            raise DataError("data.test: no annotation file or folder lists the test split")
        return self._loader("test")

    def dataset(self, split: Split) -> LabelledDataset:
        """The clips of a split that are used, as training or a test sees them."""
        return ClipDataset(
            self.clips[split],
            self.preprocessing,
            train=split == "train",
            views=split == "test",
            surveys=self.surveys,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to sample the clips that are left of its epoch."""
        return {"order_seed": self.order_seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.order_seed = state_dict["order_seed"]

    def _loader(self, split: Split) -> DataLoader:
        dataset = self.dataset(split)
        options: dict[str, Any] = {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": start_worker,
            "timeout": self.timeout_sec if self.num_workers > 0 else 0,
        }
        if split != "train":
            return DataLoader(dataset, **options)
        sampler = EpochSampler(
            dataset.labels,
            torch.initial_seed() if self.order_seed is None else self.order_seed,
            self.class_balance,
            **getattr(self.trainer, "distributed_sampler_kwargs", None) or {},
            done=lambda: self._batches_done() * self.batch_size,
        )
        return LateLoader(dataset, sampler=sampler, **options)

    def _batches_done(self) -> int:
        """How many batches of the epoch are done, where a training is resumed within it."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def choose(self, split: Split) -> None:
        """Decides which clips of a split are used.

        Raises:
            DataError: If `on_error` is raise and one cannot be, or none can.
        """
        listed, source = self.listed[split], self.annotations.sources[split]
        unreadable = self._unreadable(split)
        if unreadable and self.on_error == "raise":
            more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
            if len(unreadable) == len(listed):
                more = f": none of its {len(listed)} clips can be used"
            raise DataError(f"{unreadable[0].reason}, listed in {source}{more}")
        left_out = {bad.clip for bad in unreadable}
        self.clips[split] = [clip for clip in listed if clip not in left_out]
        self.excluded[split] = unreadable
        if not self.clips[split]:
            raise DataError(
                f"{source}: none of its {len(listed)} clips can be read; the first is "
                f"{unreadable[0].reason}"
            )

    def _unreadable(self, split: Split) -> list[ExcludedClip]:
        """The clips of a split that cannot be used; with a manifest or `exclude`, all are read."""
        listed = self.listed[split]
        if self.on_error == "raise" and self.manifest is None:
            return find_missing(listed)
        journal = Journal.in_user_cache(self.root)
        known = journal.known
        if self._indexed is not None:
            self._warn_of_missing(split, self._indexed.listed.get(split, []))
            known = {**self._indexed.known, **known}
        results = scan(
            listed,
            self.root,
            known,
            journal,
            num_workers=self.num_workers,
            title=f"{split} clips",
            bounds=Bounds(self.preprocessing.limits, self.preprocessing.num_frames),
        )
        self.surveys |= surveys_of([*known.values(), *results], self.root)
        return [
            ExcludedClip.of(clip, result.reason)
            for clip, result in zip(listed, results, strict=True)
            if result.reason
        ]

    @cached_property
    def _indexed(self) -> Manifest | None:
        return None if self.manifest is None else read_manifest(self.manifest)

    def _warn_of_missing(self, split: Split, indexed: Sequence[ClipKey]) -> None:
        """Names clips of the manifest that are not listed any more, as deleted ones of a folder."""
        listed = {clip_key(clip, self.root) for clip in self.listed[split]}
        gone = [key for key in indexed if key not in listed]
        if gone:
            log.warning(
                "%s: %d clips that %s has are not listed any more, the first is %s",
                *(split, len(gone), self.manifest, " ".join(gone[0])),
            )

    def _write_excluded(self) -> None:
        """Writes the excluded clips to a file, and logs how many they are."""
        folder = Path((self.trainer and self.trainer.log_dir) or ".")
        with atomic_file(folder / "excluded.csv") as partial:
            excluded_table(self.excluded).to_csv(partial, index=False)
        for split in self.clips:
            used, listed = self.counts(split)
            log.warning(
                "%s: %d of %d clips are used; the others are listed in %s",
                *(split, used, listed, folder / "excluded.csv"),
            )
