"""Training that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from taghead.data.seeding import derived_seed, seed_all
from taghead.errors import DataError
from taghead.training.finite import stop_if_weights_not_finite

UNFINISHED = ".unfinished-"
WHERE = ("version_*/checkpoints", "checkpoints")


class ExactResume(Callback):
    """Makes the steps after a checkpoint those that an uninterrupted training would have taken.

    Random numbers of a step, such as those of dropout, come from seeds that its epoch, its place
    in the epoch and the process decide: no generator has a state that would have to be kept. The
    order of clips and their augmentation are decided likewise
    (:class:`~taghead.data.sampler.EpochSampler`). Weights, optimizer, schedule and progress are
    Lightning's to save. Checkpoints on a local disk appear whole (:class:`WholeCheckpoints`).
    """

    def __init__(self) -> None:
        self.seed = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpoints()
        if stage == "fit":
            self.seed = trainer.strategy.broadcast(torch.initial_seed())

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        place = (trainer.current_epoch, batch_idx, trainer.global_rank)
        seed_all(derived_seed(self.seed, *place))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:  # what is logged up to here is not logged again
            logger.save()

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seed = state_dict["seed"]


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` in the run's folder: every so many steps, and at the end of each epoch.

    With the trainer's `max_steps`, not at the end of an epoch, but of training. Weights that are no
    numbers are not saved: training stops, and the file stays what it was.

    Where a validation follows a step, the checkpoint is written after it, so that a resumed
    training has none to repeat and none is left out. It is to stand behind the callbacks that keep
    the best checkpoint: what they have decided then is in the file.

    Args:
        every_n_steps: Steps of the optimizer from one checkpoint to the next.
        dirpath: The folder; without it `checkpoints` in the run's folder.

    Raises:
        ValueError: If `every_n_steps` is not positive.
        DataError: From training, if there are weights that are no numbers to save.
    """

    def __init__(self, every_n_steps: int = 500, dirpath: str | None = None) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be a positive integer (got {every_n_steps})")
        self.every_n_steps = every_n_steps
        self.dirpath = dirpath
        self.last_model_path = ""
        self._saved_step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir or trainer.default_root_dir  # the same on all processes
        self.dirpath = self.dirpath or str(Path(folder) / "checkpoints")
        if stage == "fit" and trainer.is_global_zero:
            remove_unfinished(Path(self.dirpath))  # also where there is nothing left to save

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step  # it is there already where training goes on

    def on_train_batch_end(self, trainer: Trainer, *others: Any) -> None:
        is_due = trainer.global_step - self._saved_step >= self.every_n_steps
        if is_due and not _is_last_batch(trainer) and not _may_validate(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        is_due = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_due and not _is_last_batch(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # where steps are counted, Lightning ends an epoch twice that it resumes at its end
        if trainer.max_steps in (-1, trainer.global_step):
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run or trainer.global_step == self._saved_step:  # type: ignore[attr-defined]
            return
        stop_if_weights_not_finite(trainer.lightning_module)
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
    return every is not None and done % every == 0  # None where a clock says when


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, makes sure that it is on disk, and renames it.

    Whenever the process or the machine dies, a file under a checkpoint's name is a whole one.
    What an earlier process left unfinished in the folder is removed.
    """

    def __init__(self) -> None:
        self.swept: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        if get_filesystem(path).protocol[0] != "file" or storage_options is not None:
            return super().save_checkpoint(checkpoint, path, storage_options)
        place = Path(path).absolute()
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.parent not in self.swept:
            remove_unfinished(place.parent)
            self.swept.add(place.parent)
        # in the same folder: only within a file system is a renaming one step
        stage = place.with_name(f"{UNFINISHED}{place.name}")
        try:
            with open(stage, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(stage, place)
        except BaseException:
            stage.unlink(missing_ok=True)
            raise
        _sync_folder(place.parent)


def remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed left half-written in a folder of checkpoints."""
    for left in folder.glob(f"{UNFINISHED}*"):
        left.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes sure that a renaming is on disk, where the system can."""
    with suppress(OSError):  # folders cannot be opened on Windows
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def last_checkpoint(root: str | Path) -> Path | None:
    """The newest `last.ckpt` of the runs below a folder.

    Args:
        root: The folder of the runs, the trainer's `default_root_dir`.
    """
    found = [path for place in WHERE for path in Path(root).glob(f"{place}/last*.ckpt")]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def steps_taken(checkpoint: str | Path) -> int:
    """How many steps of the optimizer are behind a checkpoint.

    Raises:
        DataError: If the file is no checkpoint.
    """
    try:
        return torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)[
            "global_step"
        ]
    except Exception as error:  # pickle, zip files and torch raise types of their own
        reason = str(error).partition("\n")[0]
        raise DataError(f"{checkpoint}: not a checkpoint: {reason}") from error


def run_loggers(root: str, resumed: Path | None = None) -> list[Logger]:
    """A TensorBoard and a CSV log in one folder `version_N` of the runs' folder.

    Args:
        root: The folder of the runs.
        resumed: The checkpoint that training goes on from. If its run's folder is one of those,
            the logs go on there.
    """
    run = resumed.parent.parent if resumed else None
    if resumed is None or run is None or run.parent != Path(root):
        board = TensorBoardLogger(root, name="")
        return [board, CSVLogger(root, name="", version=board.version)]
    num_steps = steps_taken(resumed)
    table = CSVLogger(root, name="", version=run.name)
    continue_table(table, num_steps)
    return [TensorBoardLogger(root, name="", version=run.name, purge_step=num_steps), table]


@rank_zero_only
def continue_table(logger: CSVLogger, global_step: int) -> None:
    """Keeps the rows of an earlier run's `metrics.csv` up to a step; the logger would drop them.

    Args:
        logger: The logger, before it has logged anything.
        global_step: Steps that the checkpoint has seen.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    if not path.is_file():
        return
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) < global_step]
    kept: list[dict[str, Any]] = [{name: v for name, v in row.items() if v} for row in rows]
    logger.experiment.metrics.extend(kept)
    logger.save()
