"""The model card: a saved model described for people and for the Hugging Face hub."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from taghead.files import parse_json
from taghead.nn.head import TAGHead

CARD = "README.md"
GENERATED = "<!-- Generated with the model. Without this line it is yours, and saving keeps it. -->"
METADATA = ModelCardData(
    library_name="taghead",
    pipeline_tag="video-classification",
    tags=["action-recognition", "graph-neural-networks", "pytorch-geometric", "taghead"],
)


def is_generated(path: Path) -> bool:
    """Whether a card may be written here: there is none, or it is a generated one."""
    return not path.is_file() or GENERATED in path.read_text(errors="replace")


def model_card(config: Mapping[str, Any], num_parameters: int) -> ModelCard:
    """The card of a model: its parts, use, preprocessing, results and classes.

    Args:
        config: The model's config, as `VideoClassifier.config()` gives it.
        num_parameters: Number of its parameters.
    """
    head = _with_defaults(config["head"])
    num_classes = head["num_classes"]
    sections = [
        f"---\n{METADATA.to_yaml()}\n---\n\n{GENERATED}\n",
        f"# Video classifier of {num_classes} classes\n",
        f"A {_name(config['backbone'])} backbone with a time-aligned graph head "
        f"([TAG-Head](https://arxiv.org/abs/2604.11498)), {num_parameters / 1e6:.1f} M parameters, "
        f"in the package `taghead`.\n",
        _usage(),
        _table("Model", ("part", "setting"), _parts(_name(config["backbone"]), head)),
        _preprocessing(config["preprocessing"]),
        _results(config["metrics"]),
        _classes(config["class_names"], num_classes),
    ]
    return ModelCard("\n".join(section for section in sections if section))


def _name(backbone: str) -> str:
    """A backbone's name; one that holds its config is named by its kind."""
    prefix, brace, values = backbone.partition("{")
    return f"{prefix}{parse_json(brace + values)['model_type']}" if brace else backbone


def _usage() -> str:
    return (
        "## Use\n\n"
        "```python\n"
        "import torch\n"
        "from taghead import VideoClassifier\n\n"
        'model = VideoClassifier.from_pretrained("FOLDER")  # or the name on the hub\n'
        'clip = model.preprocessing.load("CLIP.mp4")\n'
        "with torch.inference_mode():\n"
        "    probabilities = model(clip.unsqueeze(0)).softmax(dim=1)\n"
        "```\n\n"
        "On the command line: `taghead predict CLIP.mp4 --model FOLDER`\n"
    )


def _with_defaults(head: Mapping[str, Any]) -> dict[str, Any]:
    """A head's options; those of a head of your own, with the package's for what it lacks."""
    parameters = inspect.signature(TAGHead).parameters.values()
    return {p.name: p.default for p in parameters} | dict(head.get("init_args", head))


def _parts(backbone: str, head: Mapping[str, Any]) -> list[tuple[str, str]]:
    channels = head["channels"] or head["in_channels"]
    graph = "none" if head["mode"] == "none" else ", ".join(map(_named, head["relations"]))
    rows = [
        ("backbone", backbone),
        ("tokens", f"{'x'.join(map(str, head['grid']))} (t, h, w), {channels} channels"),
        (
            "Transformer",
            f"{head['encoder_layers']} layers, {head['encoder_heads']} heads, "
            f"feed-forward {head['encoder_channels']}"
            if head["encoder_layers"]
            else "none",
        ),
        ("edges", graph),
        ("readout", _named(head["readout"])),
    ]
    if head["mode"] != "none":
        named, layers = _named(head["conv"]), head["graph_layers"]
        rows.insert(4, ("operator", f"{named}, {head['mode']}, layers: {layers}"))
    return rows


def _named(part: Any) -> str:
    """A component of a config as it is called in Python; lists and mappings of several."""
    if isinstance(part, list):
        return ", ".join(map(_named, part))
    if not isinstance(part, Mapping):
        return str(part)
    if "class_path" not in part:
        return ", ".join(f"{name}: {_named(each)}" for name, each in part.items())
    options = (part.get("init_args") or {}).items()
    listed = ", ".join(f"{name}={_named(each) or each}" for name, each in options)
    return f"{part['class_path']}({listed})"


def _preprocessing(arguments: Mapping[str, Any] | None) -> str:
    if arguments is None:
        return ""
    rows = [(name, str(value)) for name, value in arguments.items()]
    return _table("Preprocessing", ("argument", "value"), rows)


def _results(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return ""
    rows = [(name, f"{value:g}") for name, value in metrics.items()]
    return _table("Results", ("metric", "value"), rows)


def _classes(names: Sequence[str] | None, num_classes: int) -> str:
    if names is None:
        return f"## Classes\n\nNumbered 0 to {num_classes - 1}; the model has no names for them.\n"
    lines = (f"{index} {' '.join(name.split())}" for index, name in enumerate(names))
    return "## Classes\n\n```\n" + "\n".join(lines) + "\n```\n"


def _table(title: str, header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return f"## {title}\n\n" + "\n".join(lines) + "\n"
