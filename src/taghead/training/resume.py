"""Exact (bit-equal) resume: a resumed training takes the steps of an uninterrupted one."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from taghead.data.seeding import derived_seed, seed_all
from taghead.errors import DataError
from taghead.files import sync
from taghead.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from taghead.training.compatibility import check_optimizers
from taghead.training.finite import check_checkpoint_finite
from taghead.training.run_folder import claim_version, is_first_rank, next_version

UNLOGGED = "unlogged_row"  # a checkpoint's key, see `unlogged_row`


class ExactResume(Callback):
    """Makes the steps after a checkpoint bit-equal to those of an uninterrupted training.

    Random numbers of a step, such as those of dropout, are seeded by its epoch, its index in the
    epoch and the rank, so no generator's state has to be saved. The order of clips and their
    augmentation are seeded likewise (:class:`~taghead.data.sampler.EpochSampler`). Lightning saves
    weights, optimizer, schedule and progress; its own resume restores no generator's state.
    Checkpoints on a local disk are written atomically
    (:class:`~taghead.training.checkpoints.AtomicCheckpointIO`). The row of `metrics.csv` that
    Lightning writes just after a checkpoint is in the checkpoint too, so that it is not lost.
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
        checkpoint[UNLOGGED] = unlogged_row(trainer)
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
    step, row = _logged_until(resumed)
    table = CSVLogger(root, name="", version=run.name)
    board = TensorBoardLogger(root, name="", version=run.name, purge_step=step)
    if continue_table(table, step, row):
        last = int(row.pop("step"))
        board.log_metrics(row, last)
    return [board, table]


def unlogged_row(trainer: Trainer) -> dict[str, float]:
    """The row of metrics that Lightning will log after the hook that saves a checkpoint.

    Lightning logs a step after `on_train_batch_end`, and an epoch after `on_train_epoch_end`; the
    callbacks save in these hooks. A training that is resumed from there repeats neither.

    Args:
        trainer: A trainer that is saving a checkpoint.

    Returns:
        The metrics by name, with `epoch` and `step`; empty if there is nothing to log.
    """
    loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
    if not trainer.training or trainer._results is None:
        return {}
    step = loop._batches_that_stepped
    progress: Any = loop.batch_progress.total
    if connector._first_loop_iter is None:  # after the epoch's last batch
        step -= 1
    elif (
        progress.processed == progress.completed  # not in `on_train_batch_end`
        or loop._should_accumulate()
        or not connector.should_update_logs
    ):
        return {}
    row = dict(convert_tensors_to_scalars(connector.metrics["log"]))
    if not row:
        return {}
    if "step" in row:  # the module's own number of the step
        return {**row, "step": int(row["step"])}
    return {"epoch": trainer.current_epoch, **row, "step": step}


def _logged_until(checkpoint: Path) -> tuple[int, dict[str, float]]:
    """The steps before a checkpoint, and the row of the last one if it was not logged yet."""
    content = read_checkpoint(checkpoint, "global_step")
    row = content.get(UNLOGGED) or {}
    is_numbers = all(isinstance(name, str) and type(row[name]) in (int, float) for name in row)
    if not is_numbers or (row and type(row.get("step")) is not int):
        raise DataError(f"{checkpoint}: not a checkpoint: {UNLOGGED} must map names to numbers")
    return content["global_step"], row


def _is_before(row: Mapping[str, Any], global_step: int) -> bool:
    """Whether a row is whole, and of a step before a checkpoint: a power cut may tear the last."""
    try:
        return None not in row and None not in row.values() and int(row["step"]) < global_step
    except (KeyError, ValueError):
        return False


@rank_zero_only
def continue_table(
    logger: CSVLogger, global_step: int, unlogged: Mapping[str, float] | None = None
) -> bool:
    """Keeps the rows of `metrics.csv` before a step, which the logger itself would delete.

    Args:
        logger: The logger, before it has logged anything.
        global_step: Optimizer steps before the checkpoint.
        unlogged: The last row before the checkpoint, which is added if the table lacks it.

    Returns:
        Whether it was added.
    """
    path = Path(logger.log_dir) / "metrics.csv"
    rows: list[dict[str, Any]] = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.DictReader(file) if _is_before(row, global_step)]
    earlier: list[dict[str, Any]] = [{name: v for name, v in row.items() if v} for row in rows]
    row = {name: str(value) for name, value in (unlogged or {}).items()}
    is_missing = bool(row) and row not in earlier
    earlier += [row] if is_missing else []
    if earlier or path.is_file():
        logger.experiment.metrics.extend(earlier)
        logger.save()
    return is_missing
