"""Checks for a non-finite loss and non-finite weights, over all ranks of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from taghead.data import Clip
from taghead.errors import DataError
from taghead.metrics import Predictions

SHOWN_CLIPS = 5  # in an error
WEIGHTS = ("state_dict", "current_model_state")  # the second with averaged weights in the first


def check_loss_finite(task: LightningModule, loss: Tensor, index: Tensor) -> None:
    """Stops all ranks in the same step if the loss of any is NaN or infinite.

    It runs before the optimizer's step, so no rank's weights change.

    Args:
        task: The module in training.
        loss: The loss of this rank's batch.
        index: Indices of the batch's clips in the training set `[B]`.

    Raises:
        DataError: With the non-finite loss and the clips of its batches.
    """
    is_bad = not bool(loss.isfinite())
    if not _any_rank(is_bad, task):
        return
    trainer = task.trainer
    dataset = getattr(trainer.train_dataloader, "dataset", None)
    clips = getattr(dataset, "clips", None)
    names = [str(i) if clips is None else clips[i].id for i in index.tolist()]
    gathered = _all_gather_object((loss.item(), names) if is_bad else None)
    bad = [pair for pair in gathered if pair]
    raise DataError(
        f"train/loss is {bad[0][0]} in step {task.global_step} of epoch "
        f"{task.current_epoch}: training stops before the weights change. The clips of the "
        f"batch: {', '.join(name for _, names in bad for name in names)}. "
        f"The last checkpoint: {_last_checkpoint(trainer)}"
    )


def check_checkpoint_finite(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Stops all ranks before a checkpoint of non-finite weights is written.

    A finite loss may have non-finite gradients, which only the next step's loss would show.

    Args:
        trainer: The trainer that is about to save.
        checkpoint: What it is about to save; on each rank, its own part.

    Raises:
        DataError: With the names of the non-finite weights.
    """
    bad = non_finite(checkpoint)
    if not _any_rank(bool(bad), trainer.lightning_module):
        return
    names = sorted({name for part in _all_gather_object(bad) for name in part})
    raise DataError(
        f"weights are not finite after step {trainer.global_step}, the first of {len(names)}: "
        f"{names[0]}; no checkpoint is written of them. The last one: {_last_checkpoint(trainer)}"
    )


def check_state_finite(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Checks the weights of a checkpoint, on this rank alone, before they are written.

    Raises:
        DataError: With the names of the non-finite weights.
    """
    if names := non_finite(checkpoint):
        raise DataError(
            f"{path}: weights are not finite, the first of {len(names)}: {names[0]}; they are not "
            f"written"
        )


def check_predictions_finite(predictions: Predictions, clips: Sequence[Clip] | None) -> None:
    """Checks that a model's logits were finite on all clips of a split, the same on all ranks.

    Args:
        predictions: The predictions: of a clip with a non-finite logit they are NaN.
        clips: The clips of the split, for their names; else their indices are named.

    Raises:
        DataError: With the clips.
    """
    is_bad = ~np.isfinite(predictions.probabilities).all(axis=1)
    if not is_bad.any():
        return
    bad = predictions.clip_index[is_bad].tolist()
    names = [str(i) if clips is None else clips[i].id for i in bad[:SHOWN_CLIPS]]
    more = ", ..." if len(bad) > SHOWN_CLIPS else ""
    raise DataError(
        f"the model's logits are not finite on {len(bad)} of {len(is_bad)} clips: "
        f"{', '.join(names)}{more}; no accuracy is computed of them"
    )


def non_finite(checkpoint: dict[str, Any]) -> list[str]:
    """Names of a checkpoint's weights, averaged ones included, that are NaN or infinite."""
    found = {
        name
        for key in WEIGHTS
        for name, value in (checkpoint.get(key) or {}).items()
        if isinstance(value, Tensor) and not is_finite(value)
    }
    return sorted(found)


def is_finite(value: Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite, in any precision, sharded or not."""
    local = value.to_local() if isinstance(value, DTensor) else value
    if not (local.is_floating_point() or local.is_complex()):
        return True
    if local.is_floating_point() and local.element_size() == 1:  # float8 has no isfinite
        local = local.to(torch.float32)
    return bool(local.isfinite().all())


def _any_rank(flag: bool, task: LightningModule) -> bool:
    """Whether a flag is set on any rank; a task without a trainer is a single one."""
    if not _is_distributed():
        return flag
    return task.trainer.strategy.reduce_boolean_decision(flag, all=False)


def _all_gather_object(value: Any) -> list[Any]:
    """The values of all ranks; Lightning's own `all_gather` takes tensors alone."""
    if not _is_distributed():
        return [value]
    values = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _last_checkpoint(trainer: Trainer) -> str:
    saved = [
        getattr(callback, name, "")
        for callback in trainer.checkpoint_callbacks
        for name in ("last_model_path", "best_model_path")
    ]
    return next((path for path in saved if path and Path(path).exists()), "none")
