"""The command `taghead convert`: a released or a training checkpoint as a folder to share."""

from __future__ import annotations

from pathlib import Path

from taghead.class_paths import allow_modules
from taghead.data.annotations import read_classes
from taghead.data.annotations.class_list import class_names
from taghead.data.annotations.formats.reference_csv import read_reference
from taghead.data.annotations.text_files import read_json
from taghead.errors import DataError
from taghead.model.classifier import VideoClassifier
from taghead.model.pretrained import load_model, save_checkpoint
from taghead.model.released import Preset
from taghead.training.finite import non_finite


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
        preset: The dataset of a released file; such a file holds no settings.
        classes: A file with the class names: an annotation file (`.csv`) in the paper's format, or
            a class list, such as a text file with one name a line.
        metrics: A JSON file of test results for the model card, such as a test's `metrics.json`.
        modules: Python modules to import first: where classes of your own are defined.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If a file is missing or of another kind, or a weight is NaN or infinite.
    """
    allow_modules(modules or [])
    model = load_model(source) if preset is None else VideoClassifier.from_reference(source, preset)
    if names := non_finite({"state_dict": model.state_dict()}):
        raise DataError(
            f"{source}: weights are not finite, the first of {len(names)}: {names[0]}; no model is "
            f"written of them"
        )
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


def _class_names(path: str, num_classes: int) -> list[str]:
    """The class names of an annotation file or a class list.

    Raises:
        DataError: If they are not as many as the model's classes, or the file cannot be read.
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
    """The numbers of a JSON object by name; its other values, such as intervals, are ignored.

    Raises:
        DataError: If it has none.
    """
    content = read_json(path)
    if isinstance(content, dict):
        metrics = {name: value for name, value in content.items() if type(value) in (int, float)}
        if metrics:
            return metrics
    raise DataError(f"{path}: must hold numbers by name, such as a test's metrics.json")
