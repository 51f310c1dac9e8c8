"""One run of a sweep: a training as `taghead fit` does it, and a test of its last weights."""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch_geometric
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.progress import track

import taghead
from taghead.data import VideoDataModule
from taghead.data.annotations import Split
from taghead.data.index.scan_result import clip_key
from taghead.errors import DataError, one_line
from taghead.features.feature_spec import MANIFEST
from taghead.files import json_text, name_to_text
from taghead.metrics import Predictions, accuracies
from taghead.model.classifier import VideoClassifier
from taghead.model.costs import head_flops, latency
from taghead.sweep.spec import Config, RunResult, RunSpec, SweepSpec, with_overrides
from taghead.training.lightning_cli import TagheadCLI
from taghead.training.optim import num_parameters
from taghead.training.task import ClassificationTask

LATENCY_REPEATS = 30
DIGEST_LENGTH = 12  # hexadecimal digits of a SHA-256 in the table of runs


class RunCLI(TagheadCLI):
    """Model, data and trainer of a config; nothing is run, and the parser is built once.

    Args:
        config: A config of `taghead fit`.
        only_parse: Whether nothing is instantiated either.

    Raises:
        DataError: If the config breaks a rule.
    """

    _shared_parser: ClassVar[LightningArgumentParser | None] = None

    def __init__(self, config: Config, only_parse: bool = False) -> None:
        self.only_parse = only_parse
        for name in ("lightning.pytorch", "lightning.fabric"):  # they tell of each trainer
            logging.getLogger(name).setLevel(logging.WARNING)
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
        if RunCLI._shared_parser is None:
            super().setup_parser(*args, **kwargs)
            self.parser.exit_on_error = False
            RunCLI._shared_parser = self.parser
        self.parser = RunCLI._shared_parser

    def instantiate_classes(self) -> None:
        if not self.only_parse:
            super().instantiate_classes()


def check_configs(sweep: SweepSpec, runs: Iterable[RunSpec], build: bool = True) -> None:
    """Parses the config of each combination of levels, and builds its model.

    Args:
        sweep: The sweep file.
        runs: Those of its runs that are to be checked.
        build: Whether models are built, for which the data must be there.

    Raises:
        DataError: If a config breaks a rule; the message names the file and the key.
    """
    combinations = {
        json_text(run.levels, "the levels of a run"): run for run in runs
    }  # seeds break no rule
    console = Console(stderr=True)
    for run in track(combinations.values(), "Checking", transient=True, console=console):
        if (error := _config_error(run.config, build)) is not None:
            raise DataError(f"{sweep.path}: {_locate(error, sweep, run, build)}") from error


def _locate(error: Exception, sweep: SweepSpec, run: RunSpec, build: bool) -> str:
    """The error and its place: the first override after which the config breaks a rule."""
    config, path = sweep.base_config(run.seed), "base"
    for next_path, override in [*sweep.overrides(run.levels), (str(run), {})]:
        if (found := _config_error(config, build)) is not None:
            return f"{path}: {found}"
        config, path = with_overrides(config, override), next_path
    return f"{run}: {error}"


def _config_error(config: Config, build: bool) -> Exception | None:
    try:
        RunCLI(config, only_parse=not build)
    except (DataError, OSError, ValueError, TypeError) as error:
        return error
    return None


def train_and_test(config: Config) -> RunResult:
    """Trains with a config, and tests the weights of the last step once on each test clip.

    No epoch is chosen by its accuracy, so no measurement is the best of several.

    Raises:
        DataError: If the config or the data break a rule.
    """
    started = datetime.now(UTC)
    cli = RunCLI(config)
    trainer, task, data = cli.trainer, cli.model, cli.datamodule
    begin = time.perf_counter()
    trainer.fit(task, datamodule=data)
    train_sec = time.perf_counter() - begin
    validated = "val/top1" in trainer.callback_metrics
    val_top1 = _accuracies(task.val_predictions.compute())["top1"] if validated else None
    epochs = trainer.current_epoch
    trainer.test(task, datamodule=data, verbose=False)
    predictions = task.test_predictions.compute()
    values = {
        **_accuracies(predictions),
        "val_top1": val_top1,
        "num_train": len(data.clips["train"]),
        "num_test": len(predictions.clip_index),
        **_costs(task.model, data, trainer.strategy.root_device),
        "train_sec": round(train_sec, 3),
        "epochs": epochs,
        "data": _data_digest(data),
        "started": started.isoformat(timespec="seconds"),
        **versions(),
    }
    names = _clip_names(data, "test")
    labels = zip(predictions.clip_index.tolist(), predictions.label.tolist(), strict=True)
    clips = [(names[index], label) for index, label in labels]
    del cli, trainer, task, data
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return RunResult(values, clips, predictions.ranking()[:, 0].tolist())


def _accuracies(predictions: Predictions) -> dict[str, float]:
    found = accuracies(predictions.outcomes())
    return {name: float(found[name]) for name in ("top1", "mca")}


@torch.no_grad()
def _costs(model: VideoClassifier, data: VideoDataModule, device: torch.device) -> dict[str, Any]:
    """Parameters, and the head's GFLOP and milliseconds on a device for one clip."""
    model = model.to(device).eval()
    head = model.head
    clip = data.dataset("test")[0][0].to(device, torch.float32)
    clip = clip[:1] if clip.dim() == 5 else clip.unsqueeze(0)  # the first of several views
    # [1, C, T, H, W]
    feature_map = clip if data.features is not None else model.backbone(clip)
    (time_ms,) = latency([lambda: head(feature_map)], LATENCY_REPEATS, device)
    return {
        "parameters": num_parameters(model),
        "head_parameters": num_parameters(head),
        "head_gflop": head_flops(head, feature_map) / 1e9,
        "head_latency_ms": round(time_ms.median, 4),
    }


def versions() -> dict[str, str]:
    """The versions of the code and of the libraries that decide the measurements."""
    return {
        "commit": code_version(),
        "torch": torch.__version__,
        "pyg": torch_geometric.__version__,
    }


@cache
def code_version() -> str:
    """The commit of the package's repository, with `+dirty` if files differ from it.

    Where the package is installed without a repository, its version.
    """
    package = Path(taghead.__file__).parent
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    commit = _git(package, "rev-parse", "HEAD") if tracked else None
    if commit is None:
        return taghead.__version__
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", "--", ":/")
    new = _git(package, "status", "--porcelain", "--", ".")
    return f"{commit}+dirty" if changed or new else commit


def _git(folder: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *args], capture_output=True, text=True, check=False
        )
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _clip_names(data: VideoDataModule, split: Split) -> list[str]:
    """Ids of a split's clips, the same on every machine.

    Their paths begin in the deepest folder that all clips of the data share.
    """
    folders = {str(clip.path.absolute().parent) for clips in data.listed.values() for clip in clips}
    root = os.path.commonpath(folders)
    clips = [replace(clip, path=Path(clip_key(clip, root)[0])) for clip in data.clips[split]]
    return [name_to_text(clip.id) for clip in clips]


def _data_digest(data: VideoDataModule) -> str:
    """A digest of the data that a run saw.

    For a feature cache, that of its backbone's weights and of its manifest, which has the SHA-256
    of every shard, as this process has found it; for videos, that of the list of clips.

    Raises:
        DataError: If a shard is not the one that the manifest names.
    """
    if data.features is not None:
        data.features.verify()
        weights = data.features.spec.weights_sha256
        manifest = hashlib.sha256((data.features.root / MANIFEST).read_bytes()).hexdigest()
        return f"features:{weights[:DIGEST_LENGTH]}:{manifest[:DIGEST_LENGTH]}"
    clips = {
        split: [[*clip_key(clip, data.root), clip.label] for clip in listed]
        for split, listed in data.listed.items()
    }
    text = json_text([data.class_names, clips], "the test clips", sort_keys=True)
    return f"clips:{hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]}"
