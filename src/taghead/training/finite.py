"""What stops a training before it spoils something."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from taghead.errors import DataError
from taghead.training.ranks import anywhere, everywhere


def stop_if_not_finite(task: LightningModule, loss: Tensor, index: Tensor) -> None:
    """Stops all processes in the same step, before the weights of any change.

    Args:
        task: What is trained.
        loss: The loss of this process's batch.
        index: The clips of the batch, by number.

    Raises:
        DataError: Naming the clips of the processes whose loss no step may follow.
    """
    bad = not loss.isfinite()
    if not anywhere(bad, loss.device):
        return
    dataset = getattr(task.trainer.train_dataloader, "dataset", None)
    clips = getattr(dataset, "clips", None)
    names = [str(i) if clips is None else clips[i].id for i in index.tolist()]
    found = [pair for pair in everywhere((loss.item(), names) if bad else None) if pair]
    raise DataError(
        f"train/loss is {found[0][0]} in step {task.global_step} of epoch "
        f"{task.current_epoch}: training stops before the weights change. The clips of the "
        f"batch: {', '.join(name for _, part in found for name in part)}. "
        f"The last checkpoint: {_last_checkpoint(task.trainer)}"
    )


def stop_if_weights_not_finite(task: LightningModule) -> None:
    """Stops all processes before a checkpoint takes the place of one that is good.

    A step whose loss was a number may have had gradients that were none; the next step's loss
    would tell.

    Args:
        task: What is about to be saved.

    Raises:
        DataError: Naming the weights that are no numbers.
    """
    bad = [name for name, weight in task.named_parameters() if not weight.isfinite().all()]
    if not anywhere(bool(bad), task.device):
        return
    names = sorted({name for part in everywhere(bad) for name in part})
    raise DataError(
        f"weights are not finite after step {task.global_step}, the first of {len(names)}: "
        f"{names[0]}; no checkpoint is written of them. The last one: "
        f"{_last_checkpoint(task.trainer)}"
    )


def _last_checkpoint(trainer: Trainer) -> str:
    saved = [
        getattr(callback, name, "")
        for callback in trainer.checkpoint_callbacks
        for name in ("last_model_path", "best_model_path")
    ]
    return next(filter(None, saved), "none")


def check_checkpoint(path: str, task: nn.Module) -> None:
    """Checks that a checkpoint fits a task, before anything is started with it.

    Args:
        path: A checkpoint that training wrote.
        task: What its weights are for.

    Raises:
        DataError: If the file is missing, no checkpoint, or one of another model.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        shapes = {key: value.shape for key, value in state.items()}
    except Exception as error:  # pickle, zip files and torch raise types of their own
        reason = (str(error) or repr(error)).splitlines()[0]
        raise DataError(f"{path}: not a checkpoint: {reason}") from error
    wanted = {key: value.shape for key, value in task.state_dict().items()}
    for key in sorted(wanted.keys() | shapes.keys()):
        if wanted.get(key) != shapes.get(key):
            has, needs = (
                "nothing" if shape is None else list(shape)
                for shape in (shapes.get(key), wanted.get(key))
            )
            raise DataError(
                f"{path}: a checkpoint of another model: {key} is {has}, the model has {needs}"
            )
