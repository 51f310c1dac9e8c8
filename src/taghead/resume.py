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
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from taghead.data.draws import derived_seed, seed_all

UNFINISHED = ".unfinished-"
WHERE = ("version_*/checkpoints", "lightning_logs/version_*/checkpoints", "checkpoints")


class ExactResume(Callback):
    """Makes the steps after a checkpoint those that an uninterrupted training would have taken.

    Random numbers of a step, such as those of dropout, come from seeds that its epoch, its place
    in the epoch and the process decide: no generator has a state that would have to be kept. The
    order of clips and their augmentation are decided likewise
    (:class:`~taghead.data.samplers.EpochSampler`). Weights, optimizer, schedule and progress are
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

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seed = state_dict["seed"]


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
        self._sweep(place.parent)
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

    def _sweep(self, folder: Path) -> None:
        if folder not in self.swept:
            for left in folder.glob(f"{UNFINISHED}*"):
                left.unlink(missing_ok=True)
            self.swept.add(folder)


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


def version_of(checkpoint: Path, root: str | Path) -> str | None:
    """The run's folder in `root` that a checkpoint lies in, if it is a `version_*`."""
    folder = checkpoint.parent.parent
    return folder.name if folder.parent == Path(root) and folder.name != "" else None


@rank_zero_only
def continue_table(logger: CSVLogger, global_step: int) -> None:
    """Keeps the rows of an earlier run's `metrics.csv` up to a step; the logger would drop them.

    Args:
        logger: The logger, before it has logged anything.
        global_step: Steps that the checkpoint has seen.
    """
    rows: list[dict[str, Any]] = []
    path = Path(logger.log_dir) / "metrics.csv"
    if path.is_file():
        with open(path, newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) < global_step]
    kept = [{name: value for name, value in row.items() if value} for row in rows]
    logger.experiment.metrics.extend(kept)
