"""The commands `taghead fit`, `validate` and `test`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from taghead.data import VideoDataModule
    from taghead.training.task import ClassificationTask


@dataclass
class Options:
    """What `taghead fit` takes: Lightning's parser makes it, and `taghead.cli` reads it from here.

    Args:
        data: The dataset: a class path, such as `taghead.data.SynthGym`, and its options.
        config: A file of options; of several, the later ones count.
        print_config: Print the config that these options make, and stop.
        seed_everything: Seed of all random numbers; `true` for any.
        trainer: Lightning's trainer.
        model: Backbone, head, loss and optimizer.
        ckpt_path: A checkpoint to resume from, or to evaluate; `last` for the newest of all runs.
        weights_only: Whether nothing but tensors and plain values is read from a checkpoint; true
            if not given.
        optimizer: An optimizer by class path, in place of the model's.
        lr_scheduler: A schedule by class path, in place of the model's.
    """

    data: VideoDataModule
    config: str | None = None
    print_config: bool | str = False
    seed_everything: bool | int | None = True
    trainer: Trainer | None = None
    model: ClassificationTask | None = None
    ckpt_path: str | None = None
    weights_only: bool | None = None
    optimizer: Any = None
    lr_scheduler: Any = None


@dataclass
class EvaluationOptions(Options):
    """What `taghead validate` and `taghead test` take.

    Args:
        verbose: Whether the numbers are printed.
    """

    verbose: bool = True


def fit(args: Sequence[str]) -> None:
    """Trains a model."""
    _run("fit", args)


def validate(args: Sequence[str]) -> None:
    """Evaluates a model on the validation split."""
    _run("validate", args)


def test(args: Sequence[str]) -> None:
    """Evaluates a model on the test split, and writes a report."""
    _run("test", args)


def _run(subcommand: str, args: Sequence[str]) -> None:
    from taghead.data import VideoDataModule
    from taghead.training.lightning_cli import TagheadCLI
    from taghead.training.task import ClassificationTask

    TagheadCLI(
        ClassificationTask,
        VideoDataModule,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        args=[subcommand, *args],
    )
