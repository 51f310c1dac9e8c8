"""Checkpoints on disk: written atomically, kept as `last.ckpt`, and read as data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from taghead.errors import DataError, first_line
from taghead.files import atomic_file, remove_unfinished
from taghead.training.finite import check_state_finite

PARTS = {
    "state_dict": dict,
    "callbacks": dict,
    "global_step": int,
    "unlogged_row": dict,
    "video_classifier": dict,
}
"""Types of the parts of a checkpoint that are read."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, but atomic on a local disk.

    A file under a checkpoint's name is complete whenever the process or the machine dies
    (:func:`~taghead.files.atomic_file`); Lightning's own writer truncates the old file first.
    Partial files that killed processes left in the folder are removed before the first write to it.
    Non-finite weights are refused, whichever callback saves them, and the file of before stays.

    Raises:
        DataError: From saving, if weights are not finite.
        OSError: From saving, if the file cannot be written; it names the file.
    """

    def __init__(self) -> None:
        self._cleaned: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        check_state_finite(checkpoint, path)
        if get_filesystem(path).protocol[0] != "file" or storage_options is not None:
            return super().save_checkpoint(checkpoint, path, storage_options)
        folder = Path(path).absolute().parent
        if folder not in self._cleaned:
            remove_unfinished(folder)
            self._cleaned.add(folder)
        with atomic_file(path) as partial, partial.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's own, whose context tells why a write failed
                reason = error.__context__
                if not isinstance(reason, OSError):
                    raise
                raise OSError(reason.errno, reason.strerror, os.fspath(path)) from error


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` in the run's folder: every so many steps, and at the end of each epoch.

    With the trainer's `max_steps` it is written at the end of training instead of each epoch.
    Non-finite weights are not saved: training stops, and the last good file stays. After SIGTERM it
    is written at the end of the step, or of the validation, in which the signal comes.

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
        self._is_stopped = False  # by a SIGTERM in a validation, until its end

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir or trainer.default_root_dir  # the same on all ranks
        self.dirpath = self.dirpath or str(Path(folder) / "checkpoints")
        if stage == "fit" and trainer.is_global_zero:
            remove_unfinished(Path(self.dirpath))  # also where nothing is left to save

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step  # a resumed training has this checkpoint already

    def on_train_batch_end(self, trainer: Trainer, *others: Any) -> None:
        is_due = trainer.global_step - self._saved_step >= self.every_n_steps
        is_due = is_due or trainer.received_sigterm
        if is_due and not _is_last_batch(trainer) and not _may_validate(trainer):
            self._save(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *others: Any) -> None:
        # Lightning would stop within the validation, from where no training goes on exactly
        signals = trainer._signal_connector
        if trainer.state.fn == "fit" and not trainer.sanity_checking and signals.received_sigterm:
            self._is_stopped, signals.received_sigterm = True, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_stopped:
            self._is_stopped, trainer._signal_connector.received_sigterm = False, True
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
        path = str(Path(self.dirpath or "") / "last.ckpt")
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_step, self.last_model_path = trainer.global_step, path


def _is_last_batch(trainer: Trainer) -> bool:
    return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _may_validate(trainer: Trainer) -> bool:
    """Whether a validation may follow the batch that has just been trained on."""
    loop = trainer.fit_loop.epoch_loop
    by_epoch = trainer.check_val_every_n_epoch is not None
    done = (loop.batch_idx if by_epoch else loop.total_batch_idx) + 1
    every = trainer.val_check_batch
    is_due = every is not None and done % every == 0  # None: validated at intervals of time
    return is_due and bool(trainer.enable_validation)


def num_steps(checkpoint: str | Path) -> int:
    """Number of optimizer steps before a checkpoint.

    Raises:
        DataError: If the file is no checkpoint.
    """
    return read_checkpoint(checkpoint, "global_step")["global_step"]


def read_checkpoint(path: str | Path, needs: str = "state_dict") -> dict[str, Any]:
    """A checkpoint's content as data, its tensors mapped, not read.

    Args:
        path: The file.
        needs: A key that it must have.

    Raises:
        DataError: If the file is missing or no checkpoint.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # pickle, zip files and torch raise types of their own
        raise DataError(f"{path}: not a checkpoint: {first_line(error)}") from error
    if not isinstance(content, dict) or needs not in content:
        raise DataError(f"{path}: not a checkpoint: it has no {needs}")
    for name, kind in PARTS.items():
        if not isinstance(content.get(name), kind | None):
            found = type(content[name]).__name__
            raise DataError(f"{path}: not a checkpoint: {name} is a {found}")
    state = content.get("state_dict") or {}
    if not all(isinstance(name, str) for name in state) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise DataError(f"{path}: not a checkpoint: state_dict must map names to tensors")
    return content
