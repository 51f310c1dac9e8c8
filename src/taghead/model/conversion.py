"""From a released or a training checkpoint to a folder to share, or to a checkpoint to test."""

from __future__ import annotations

import importlib
from pathlib import Path

import lightning
import torch

from taghead.data.annotations import read_classes
from taghead.data.annotations.class_list import class_names
from taghead.data.annotations.formats.reference_csv import read_reference
from taghead.data.annotations.text_files import read_json
from taghead.errors import DataError
from taghead.files import atomic_folder
from taghead.inference.predictor import load_model
from taghead.model.classifier import VideoClassifier
from taghead.model.released import Preset


def convert(
    source: str,
    output: str,
    preset: Preset | None = None,
    classes: str | None = None,
    metrics: str | None = None,
    modules: list[str] | None = None,
) -> None:
    """Turns a released TAG-Head file or a training checkpoint into a folder to use and to share.

    Args:
        source: A file that the paper's authors released, or a training checkpoint, or a folder
            that `save_pretrained` wrote.
        output: The folder to write; or a file that ends in `.ckpt`, for `taghead test --ckpt_path`.
        preset: The dataset that a released file is of; such a file holds no settings.
        classes: What names the classes: an annotation file (`.csv`) as the paper's are, or a class
            list, such as a text file with a name a line.
        metrics: A JSON file of numbers for the model card, such as a test's `metrics.json`.
        modules: Python modules to import first: where classes of your own are defined.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If a file does not hold what it should.
    """
    for module in modules or []:
        importlib.import_module(module)
    model = load_model(source) if preset is None else VideoClassifier.from_reference(source, preset)
    if classes is not None:
        model.class_names = _class_names(classes, model.head.num_classes)
    if metrics is not None:
        model.metrics = _read_metrics(Path(metrics))
    if output.endswith(".ckpt"):
        save_checkpoint(model, output)
    else:
        model.save_pretrained(output)
    named = "with" if model.class_names else "without"
    print(f"{output}: {model.head.num_classes} classes, {named} names", flush=True)


def save_checkpoint(model: VideoClassifier, path: str | Path) -> None:
    """Writes a model as a checkpoint of a training that has not begun.

    `taghead test --ckpt_path` and `taghead fit --ckpt_path` take it where their config makes the
    same model.
    """
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
        "video_classifier": model.config(),
    }
    with atomic_folder(Path(path).parent) as stage:
        torch.save(checkpoint, stage / Path(path).name)


def _class_names(path: str, num_classes: int) -> list[str]:
    """The names that an annotation file or a class list gives.

    Raises:
        DataError: If they are not as many as the classes, or the file cannot be used.
    """
    if path.endswith(".csv"):
        clips = read_reference(path, Path(path).parent)
        names = class_names(path, clips, "ClassEncoded")
    else:
        names = read_classes(path)
    if len(names) != num_classes:
        raise DataError(f"{path}: must name {num_classes} classes (got {len(names)})")
    return names


def _read_metrics(path: Path) -> dict[str, float]:
    """The numbers in a JSON object; what else it holds, such as their intervals, is left out.

    Raises:
        DataError: If it holds none.
    """
    content = read_json(path)
    if isinstance(content, dict):
        numbers = {name: value for name, value in content.items() if type(value) in (int, float)}
        if numbers:
            return numbers
    raise DataError(f"{path}: must hold numbers by name, such as a test's metrics.json")
