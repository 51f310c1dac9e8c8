"""The model card: what a saved model is, in words, for people and for the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

if TYPE_CHECKING:
    from taghead.model.classifier import VideoClassifier
    from taghead.nn.head import TAGHead

CARD = "README.md"
GENERATED = "<!-- Generated with the model. Without this line it is yours, and saving keeps it. -->"
METADATA = ModelCardData(
    library_name="taghead",
    pipeline_tag="video-classification",
    tags=["action-recognition", "graph-neural-networks", "pytorch-geometric", "taghead"],
)


def is_generated(path: Path) -> bool:
    """Whether a card may be written here: there is none, or it has not been made someone's own."""
    return not path.is_file() or GENERATED in path.read_text(errors="replace")


def model_card(model: VideoClassifier) -> ModelCard:
    """What a model is, how to use it, how its clips are made, its results and its classes."""
    num_classes = model.head.num_classes
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    sections = [
        f"---\n{METADATA.to_yaml()}\n---\n\n{GENERATED}\n",
        f"# Video classifier of {num_classes} classes\n",
        f"A {model.backbone} backbone with a time-aligned graph head "
        f"([TAG-Head](https://arxiv.org/abs/2604.11498)), {parameters:.1f} M parameters, in the "
        f"package `taghead`.\n",
        _usage(),
        _table("Model", ("part", "setting"), _parts(model)),
        _preprocessing(model),
        _results(model),
        _classes(model.class_names, num_classes),
    ]
    return ModelCard("\n".join(section for section in sections if section))


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


def _parts(model: VideoClassifier) -> list[tuple[str, str]]:
    head: TAGHead = model.head
    config = head.config()
    operator = config["conv"]
    options = ", ".join(f"{name}={value}" for name, value in operator["init_args"].items())
    channels = config["channels"] or config["in_channels"]
    graph = "none" if config["mode"] == "none" else ", ".join(config["relations"])
    rows = [
        ("backbone", str(model.backbone)),
        ("tokens", f"{'x'.join(map(str, config['grid']))} (t, h, w), {channels} channels"),
        (
            "Transformer",
            f"{config['encoder_layers']} layers, {config['encoder_heads']} heads, "
            f"feed-forward {config['encoder_channels']}"
            if config["encoder_layers"]
            else "none",
        ),
        ("edges", graph),
        ("readout", config["readout"]),
    ]
    if config["mode"] != "none":
        named = f"{operator['class_path']}({options})"
        layers = config["graph_layers"]
        rows.insert(4, ("operator", f"{named}, {config['mode']}, layers: {layers}"))
    return rows


def _preprocessing(model: VideoClassifier) -> str:
    if model.preprocessing is None:
        return ""
    rows = [(name, str(value)) for name, value in model.preprocessing.to_dict().items()]
    return _table("Preprocessing", ("argument", "value"), rows)


def _results(model: VideoClassifier) -> str:
    if not model.metrics:
        return ""
    rows = [(name, f"{value:g}") for name, value in model.metrics.items()]
    return _table("Results", ("metric", "value"), rows)


def _classes(names: Sequence[str] | None, num_classes: int) -> str:
    if names is None:
        return f"## Classes\n\nNumbered 0 to {num_classes - 1}; the model has no names for them.\n"
    lines = (f"{number} {' '.join(name.split())}" for number, name in enumerate(names))
    return "## Classes\n\n```\n" + "\n".join(lines) + "\n```\n"


def _table(title: str, header: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return f"## {title}\n\n" + "\n".join(lines) + "\n"
