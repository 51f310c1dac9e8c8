"""Checkpoints on disk: written atomically, kept as `last.ckpt`, found, and checked before use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from taghead.errors import DataError, first_line
from taghead.files import atomic_file, remove_unfinished
from taghead.training.finite import check_weights_finite

FOLDERS = ("version_*/checkpoints", "checkpoints")  # below the trainer's `default_root_dir`


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, but atomic on a local disk.

    A file under a checkpoint's name is complete whenever the process or the machine dies
    (:func:`~taghead.files.atomic_file`); Lightning's own writer truncates the old file first.
    Partial files that killed processes left in the folder are removed before the first write to it.
    """

    def __init__(self) -> None:
        self._cleaned: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if get_filesystem(path).protocol[0] != "file" or storage_options is not None:
            return super().save_checkpoint(checkpoint, path, storage_options)
        folder = Path(path).absolute().parent
        if folder not in self._cleaned:
            remove_unfinished(folder)
            self._cleaned.add(folder)
        with atomic_file(path) as partial:
            torch.save(checkpoint, partial)


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` in the run's folder: every so many steps, and at the end of each epoch.

    With the trainer's `max_steps` it is written at the end of training instead of each epoch.
    Non-finite weights are not saved: training stops, and the last good file stays.

    Where a validation follows a step, the checkpoint is written after it, so that a resumed
    training neither repeats nor skips a validation. List it after the callbacks that keep the best
    checkpoint, so that their state is in the file.

    Args:
        every_n_steps: Optimizer steps from one checkpoint to the next.
        dirpath: The folder; `checkpoints` in the run's folder when not given.

    Raises:
        ValueError: If `every_n_steps` is not positive.
        DataError: From training, if weights are not finite.
    """

    def __init__(self, every_n_steps: int = 500, dirpath: str | None = None) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be a positive integer (got {every_n_steps})")
        self.every_n_steps = every_n_steps
        self.dirpath = dirpath
        self.last_model_path = ""
        self._saved_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir or trainer.default_root_dir  # the same on all ranks
        self.dirpath = self.dirpath or str(Path(folder) / "checkpoints")
        if stage == "fit" and trainer.is_global_zero:
            remove_unfinished(Path(self.dirpath))  # also where nothing is left to save

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step  # a resumed training has this checkpoint already

    def on_train_batch_end(self, trainer: Trainer, *others: Any) -> None:
        is_due = trainer.global_step - self._saved_step >= self.every_n_steps
        if is_due and not _is_last_batch(trainer) and not _may_validate(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_due = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_due and not _is_last_batch(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # with `max_steps`, Lightning ends an epoch twice if it is resumed at its end
        if trainer.max_steps in (-1, trainer.global_step):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run or trainer.global_step == self._saved_step:  # type: ignore[attr-defined]
            return
        check_weights_finite(trainer.lightning_module)
        self._saved_step = trainer.global_step
        self.last_model_path = str(Path(self.dirpath or "") / "last.ckpt")
        trainer.save_checkpoint(self.last_model_path, weights_only=False)


def _is_last_batch(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _may_validate(trainer: Trainer) -> bool:
    """Whether a validation may follow the batch that has just been trained on."""
    loop = trainer.fit_loop.epoch_loop
    by_epoch = trainer.check_val_every_n_epoch is not None
    done = (loop.batch_idx if by_epoch else loop.total_batch_idx) + 1
    every = trainer.val_check_batch
    return every is not None and done % every == 0  # None: validated at intervals of time


def last_checkpoint(root: str | Path) -> Path | None:
    """The newest `last.ckpt` of the runs below a folder; None if there is none.

    Args:
        root: The folder of the runs, the trainer's `default_root_dir`.
    """
    found = [path for folder in FOLDERS for path in Path(root).glob(f"{folder}/last*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def num_steps(checkpoint: str | Path) -> int:
    """Number of optimizer steps before a checkpoint.

    Raises:
        DataError: If the file is no checkpoint.
    """
    return _read(checkpoint, "global_step")


def check_checkpoint(path: str | Path, task: nn.Module) -> None:
    """Checks that a checkpoint fits a task, before training or a test starts with it.

    Args:
        path: A training checkpoint.
        task: The module that its weights are for.

    Raises:
        DataError: If the file is missing, no checkpoint, or one of another model.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such checkpoint")
    found = {key: list(value.shape) for key, value in _read(path, "state_dict").items()}
    wanted = {key: list(value.shape) for key, value in task.state_dict().items()}
    for key in sorted(wanted.keys() | found.keys()):
        has, needs = found.get(key, "nothing"), wanted.get(key, "nothing")
        if has != needs:
            raise DataError(
                f"{path}: a checkpoint of another model: {key} is {has}, the model has {needs}"
            )


def _read(path: str | Path, key: str) -> Any:
    """One value of a checkpoint; tensors are mapped, not read."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)[key]
    except Exception as error:  # pickle, zip files and torch raise types of their own
        raise DataError(f"{path}: not a checkpoint: {first_line(error)}") from error
