"""Exact (bit-equal) resume: a resumed training takes the steps of an uninterrupted one."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from taghead.data.seeding import derived_seed, seed_all
from taghead.files import sync
from taghead.training.checkpoints import AtomicCheckpointIO, num_steps
from taghead.training.compatibility import check_optimizers
from taghead.training.finite import check_checkpoint_finite
from taghead.training.run_folder import claim_version, is_first_rank, next_version


class ExactResume(Callback):
    """Makes the steps after a checkpoint bit-equal to those of an uninterrupted training.

    Random numbers of a step, such as those of dropout, are seeded by its epoch, its index in the
    epoch and the rank, so no generator's state has to be saved. The order of clips and their
    augmentation are seeded likewise (:class:`~taghead.data.sampler.EpochSampler`). Lightning saves
    weights, optimizer, schedule and progress; its own resume restores no generator's state.
    Checkpoints on a local disk are written atomically
    (:class:`~taghead.training.checkpoints.AtomicCheckpointIO`).
    """

    def __init__(self) -> None:
        self.seed = 0
        self._optimizers: dict[str, Any] | None = None  # of the checkpoint, until they are checked

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if stage == "fit":
            self.seed = trainer.strategy.broadcast(torch.initial_seed())

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != "fit":
            return
        self._optimizers = {
            "lr_schedulers": checkpoint.get("lr_schedulers"),
            "optimizer_states": [
                {"param_groups": state.get("param_groups", [])}
                for state in checkpoint.get("optimizer_states") or []
            ],
        }
        if trainer.optimizers:  # of a strategy that loads weights after it made them
            self.on_fit_start(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares optimizers before the checkpoint's options replace those asked for."""
        if self._optimizers is not None:
            check_optimizers(trainer, self._optimizers)
            self._optimizers = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = (trainer.current_epoch, batch_idx, trainer.global_rank)
        seed_all(derived_seed(self.seed, *step))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        check_checkpoint_finite(trainer, checkpoint)
        for logger in trainer.loggers:  # a resumed training does not log these steps again
            logger.save()
            table = Path(logger.log_dir or "", "metrics.csv")
            if isinstance(logger, CSVLogger) and table.is_file():
                sync(table)

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seed = state_dict["seed"]


def run_loggers(root: str, resumed: Path | None = None, is_claimed: bool = True) -> list[Logger]:
    """A TensorBoard and a CSV logger that share one folder `version_N`.

    Args:
        root: The folder of the runs.
        resumed: The checkpoint that training resumes from. If its run lies in `root`, its logs are
            continued there.
        is_claimed: Whether the folder of a new run is created at once, for this process alone.
    """
    run = resumed.parent.parent if resumed else None
    if resumed is None or run is None or run.parent != Path(root):
        # all ranks log to the first one's folder
        version = claim_version(root) if is_claimed and is_first_rank() else next_version(root)
        return [
            TensorBoardLogger(root, name="", version=version),
            CSVLogger(root, name="", version=version),
        ]
    step = num_steps(resumed)
    table = CSVLogger(root, name="", version=run.name)
    continue_table(table, step)
    return [TensorBoardLogger(root, name="", version=run.name, purge_step=step), table]


def _is_before(row: Mapping[str, Any], global_step: int) -> bool:
    """Whether a row is whole, and of a step before a checkpoint: a power cut may tear the last."""
    try:
        return None not in row and None not in row.values() and int(row["step"]) < global_step
    except (KeyError, ValueError):
        return False


@rank_zero_only
def continue_table(logger: CSVLogger, global_step: int) -> None:
    """Keeps the rows of `metrics.csv` before a step, which the logger itself would delete.

    Args:
        logger: The logger, before it has logged anything.
        global_step: Optimizer steps before the checkpoint.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    if not path.is_file():
        return
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = [row for row in csv.DictReader(file) if _is_before(row, global_step)]
    earlier: list[dict[str, Any]] = [{name: v for name, v in row.items() if v} for row in rows]
    logger.experiment.metrics.extend(earlier)
    logger.save()
