"""The commands, one entry each, in the order in which a newcomer meets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """A command: a function whose arguments are its options.

    Args:
        name: What is typed.
        about: What it does, in a line.
        function: `module:function`.
        example: A command line.
        positional: Arguments that are given without their names; a list takes one value or more.
        files: Arguments whose files must be there, and what such a file is called.
        options: The class whose arguments are the options, as `module:class`, where the function
            takes the command line as it is.
        hidden: Dotted keys of arguments that are no options: the command sets them itself.
        config: What turns the file of `--config` into values of options, as `module:function`.
        takes_modules: Whether it may run classes of one's own, of modules that `--modules` names.
    """

    name: str
    about: str
    function: str
    example: str
    positional: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    options: str | None = None
    hidden: tuple[str, ...] = ()
    config: str | None = None
    takes_modules: bool = False


def _lightning(name: str, about: str, example: str, options: str) -> Command:
    return Command(
        name,
        about,
        f"taghead.training.command:{name}",
        example,
        files={"config": "config", "ckpt_path": "checkpoint"},
        options=f"taghead.training.command:{options}",
        hidden=("model.class_names", "model.preprocessing", "model.features"),  # the data's
        takes_modules=True,
    )


MODEL = "runs/demo/model.ckpt"
COMMANDS = {
    command.name: command
    for command in (
        Command(
            "demo",
            "generate clips, train, test and predict, in a few minutes",
            "taghead.demo:demo",
            "taghead demo",
        ),
        _lightning(
            "fit", "train a model", "taghead fit --config experiments/synthgym.yaml", "Options"
        ),
        _lightning(
            "validate",
            "evaluate a model on the validation split",
            "taghead validate --config runs/synthgym/version_0/config.yaml --ckpt_path=last",
            "EvaluationOptions",
        ),
        _lightning(
            "test",
            "evaluate a model on the test split",
            "taghead test --config runs/synthgym/version_0/config.yaml --ckpt_path=last",
            "EvaluationOptions",
        ),
        Command(
            "predict",
            "classify video files",
            "taghead.inference.predictor:predict",
            f"taghead predict clip.mp4 --model {MODEL}",
            ("videos",),
            {"videos": "video file", "model": "model"},
            takes_modules=True,
        ),
        Command(
            "explain",
            "show what a model attended to: numbers, pictures, a page",
            "taghead.explain.command:explain",
            f"taghead explain clip.mp4 --model {MODEL}",
            ("videos",),
            {"videos": "video file", "model": "model"},
            takes_modules=True,
        ),
        Command(
            "index",
            "check a dataset: decode every clip, write a manifest and a report",
            "taghead.data.index.command:index",
            "taghead index videos --train train.csv --val val.csv",
            ("root",),
            {"root": "folder of videos"},
        ),
        Command(
            "extract",
            "write a frozen backbone's feature maps, on which heads train fast",
            "taghead.features.extract:extract",
            f"taghead extract features --config experiments/synthgym.yaml --model {MODEL}",
            ("output",),
            {"config": "config", "model": "model"},
            config="taghead.features.extract:options_from_fit",
            takes_modules=True,
        ),
        Command(
            "sweep",
            "train many variants, in parallel and resumably, into one table",
            "taghead.sweep.command:sweep",
            "taghead sweep experiments/operators/order.yaml --workers 2",
            ("file",),
            {"file": "sweep file"},
            takes_modules=True,
        ),
        Command(
            "compare",
            "compare the runs of sweeps: tables with intervals, plots",
            "taghead.compare.command:compare_runs",
            "taghead compare runs/sweeps/operators-order",
            ("folders",),
            {"folders": "folder"},
        ),
        Command(
            "convert",
            "turn a checkpoint, or one that the paper's authors released, into a folder to share",
            "taghead.inference.convert_checkpoint:convert",
            f"taghead convert {MODEL} shared/demo",
            ("source", "output"),
            {"source": "model"},
            takes_modules=True,
        ),
        Command(
            "bench model",
            "measure what backbones and a head cost: parameters, GFLOP, time, memory",
            "taghead.model.costs.command:bench_model",
            "taghead bench model r2plus1d_34 --precision bf16-mixed",
            ("backbones",),
            takes_modules=True,
        ),
        Command(
            "generate",
            "write a dataset of generated clips",
            "taghead.data.synthetic.writer:write_dataset",
            "taghead generate data/synthgym",
            ("root",),
        ),
    )
}

CLASS_FILES = {
    "taghead.data.datamodule.VideoDataModule": {
        "root": "folder of videos",
        "manifest": "manifest (`taghead index` writes it)",
    },
    "taghead.features.datamodule.FeatureDataModule": {
        "root": "feature cache (`taghead extract` writes it)",
    },
}
"""Arguments of classes whose files must be there, as in `Command.files`."""

HINTS = {
    "batch": ("data.batch_size", "batch_size"),
    "checkpoint": ("ckpt_path", "model"),
    "ckpt": ("ckpt_path", "model"),
    "epochs": ("trainer.max_epochs",),
    "gpu": ("trainer.devices", "device"),
    "gpus": ("trainer.devices", "device"),
    "jobs": ("workers", "num_workers"),
    "k": ("top",),
    "lr": ("model.learning_rate",),
    "out": ("output",),
    "resume": ("ckpt_path",),
    "seed": ("seed_everything",),
    "steps": ("trainer.max_steps",),
    "threads": ("num_threads",),
    "topk": ("top",),
    "wd": ("model.weight_decay",),
    "weights": ("model", "model.backbone_weights", "backbone_weights"),
    "workers": ("data.num_workers", "num_workers"),
}
"""Synonyms of options, and the options that they mean: the first that the command has."""
