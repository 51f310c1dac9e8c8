"""Loading a trained model by its path, and writing one as a Lightning checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightning
import torch

from taghead.errors import DataError, first_line
from taghead.files import atomic_file
from taghead.model.classifier import VideoClassifier
from taghead.video.limits import Limits


def load_model(
    path: str | Path,
    limits: Limits = Limits(),  # noqa: B008, it is frozen
) -> VideoClassifier:
    """A model from a folder of `save_pretrained` or from a training checkpoint, in evaluation.

    Args:
        path: The folder or the file.
        limits: What a video file may ask for, which no model says.

    Raises:
        DataError: If it is neither, or has no preprocessing.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such model")
    model = (
        VideoClassifier.from_pretrained(path)
        if path.is_dir()
        else VideoClassifier.from_checkpoint(path)
    )
    if model.preprocessing is None:
        raise DataError(f"{path}: the model has no preprocessing, which makes clips of videos")
    model.preprocessing = replace(model.preprocessing, limits=limits)
    return model


def save_checkpoint(model: VideoClassifier, path: str | Path) -> None:
    """Writes a model as the Lightning checkpoint of a training at step 0.

    `taghead test --ckpt_path` and `taghead fit --ckpt_path` take it where their config builds the
    same model.
    """
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
        "video_classifier": model.config(),
    }
    with atomic_file(path) as partial:
        torch.save(checkpoint, partial)


def as_device(name: str) -> str:
    """The name of a device that this machine has; `auto` is a GPU if there is one, else the CPU.

    Raises:
        ValueError: If there is no such device.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device must be one of this machine (got {name!r}): {first_line(error)}"
        ) from error
    return name
