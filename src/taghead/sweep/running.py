"""One run of a sweep: a training as `taghead fit` does it, and a test of its last weights."""

from __future__ import annotations

import gc
import time
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from taghead.data import VideoDataModule
from taghead.errors import DataError, one_line
from taghead.metrics import accuracies
from taghead.model.classifier import VideoClassifier
from taghead.model.costs import head_flops, latency
from taghead.sweep.overrides import Config
from taghead.sweep.provenance import clip_names, data_digest, versions
from taghead.training.lightning_cli import TagheadCLI
from taghead.training.task import ClassificationTask

LATENCY_RUNS = 30


class Outcome(NamedTuple):
    """What a run gave.

    Args:
        result: Numbers, and what they depend on, as JSON can hold them.
        clips: Id, from the folder that all clips share, and label of each test clip.
        predicted: The predicted class of each.
    """

    result: dict[str, Any]
    clips: list[tuple[str, int]]
    predicted: list[int]


class RunCLI(TagheadCLI):
    """Model, data and trainer of a config; nothing is run, and the parser is made once.

    Args:
        config: A config of `taghead fit`.
        only_parse: Whether nothing is made of it either.

    Raises:
        DataError: If the config breaks a rule.
    """

    _made: ClassVar[LightningArgumentParser | None] = None

    def __init__(self, config: Config, only_parse: bool = False) -> None:
        self.only_parse = only_parse
        try:
            super().__init__(
                ClassificationTask,
                VideoDataModule,
                subclass_mode_data=True,
                save_config_callback=None,
                run=False,
                args=config,
            )
        except ArgumentError as error:
            raise DataError(one_line(error)) from error

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        if RunCLI._made is None:
            super().setup_parser(*args, **kwargs)
            self.parser.exit_on_error = False
            RunCLI._made = self.parser
        self.parser = RunCLI._made

    def instantiate_classes(self) -> None:
        if not self.only_parse:
            super().instantiate_classes()


def run(config: Config) -> Outcome:
    """Trains with a config, and tests the weights of the last step once on each test clip.

    No epoch is chosen by its accuracy, so none of the numbers is the best of several.

    Raises:
        DataError: If the config or the data break a rule.
    """
    started = datetime.now(UTC)
    cli = RunCLI(config)
    trainer, task, data = cli.trainer, cli.model, cli.datamodule
    begin = time.perf_counter()
    trainer.fit(task, datamodule=data)
    train_sec = time.perf_counter() - begin
    val_top1 = _val_top1(task) if "val/top1" in trainer.callback_metrics else None
    epochs = trainer.current_epoch
    trainer.test(task, datamodule=data, verbose=False)
    predictions = task.test_predictions.compute()
    names = clip_names(data, "test")
    found = accuracies(predictions.outcomes())
    result = {
        "top1": float(found["top1"]),
        "mca": float(found["mca"]),
        "val_top1": val_top1,
        "num_train": len(data.clips["train"]),
        "num_test": len(predictions.clip_index),
        **costs(task.model, data, trainer.strategy.root_device),
        "train_sec": round(train_sec, 3),
        "epochs": epochs,
        "data": data_digest(data),
        "started": started.isoformat(timespec="seconds"),
        **versions(),
    }
    labels = zip(predictions.clip_index.tolist(), predictions.label.tolist(), strict=True)
    tested = [(names[index], label) for index, label in labels]
    predicted = np.asarray(predictions.ranking()[:, 0]).tolist()
    del cli, trainer, task, data
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Outcome(result, tested, predicted)


def _val_top1(task: ClassificationTask) -> float:
    return float(accuracies(task.val_predictions.compute().outcomes())["top1"])


@torch.no_grad()
def costs(model: VideoClassifier, data: VideoDataModule, device: torch.device) -> dict[str, Any]:
    """What a head costs: parameters, GFLOP for a clip, and milliseconds for one on a device."""
    model = model.to(device).eval()
    feature_map = _feature_map(model, data, device)
    head = model.head
    (time_of_one,) = latency([lambda: head(feature_map)], LATENCY_RUNS, device)
    return {
        "parameters": _parameters(model),
        "head_parameters": _parameters(head),
        "head_gflop": head_flops(head, feature_map) / 1e9,
        "head_latency_ms": round(time_of_one.median, 4),
    }


def _feature_map(model: VideoClassifier, data: VideoDataModule, device: torch.device) -> Tensor:
    """That of the first test clip, `[1, C, T, H, W]`."""
    clip = data.dataset("test")[0][0].to(device, torch.float32)
    clip = clip[:1] if clip.dim() == 5 else clip.unsqueeze(0)  # the first of several views
    return clip if data.features is not None else model.backbone(clip)


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
