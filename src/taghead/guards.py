"""What stops a training before it spoils something."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from taghead.errors import DataError
from taghead.processes import anywhere, everywhere


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
    saved = [
        getattr(callback, name, "")
        for callback in task.trainer.checkpoint_callbacks
        for name in ("last_model_path", "best_model_path")
    ]
    last = next(filter(None, saved), "none")
    raise DataError(
        f"train/loss is {found[0][0]} in step {task.global_step} of epoch "
        f"{task.current_epoch}: training stops before the weights change. The clips of the "
        f"batch: {', '.join(name for _, part in found for name in part)}. "
        f"The last checkpoint: {last}"
    )


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
