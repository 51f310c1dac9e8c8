"""Lightning's command line, for training and evaluating the classification task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from taghead.errors import DataError, one_line
from taghead.training.checkpoints import check_checkpoint, last_checkpoint
from taghead.training.resume import run_loggers

# what PyG does at import, how Lightning is called, two loggers that share a folder, a backbone that
# is frozen, a test of averaged weights, which a checkpoint holds, a run that goes on in its
# folder, or another that tests it, and clips that fill up a batch, which count once: none of it
# concerns a user
IGNORED_WARNINGS = (
    r".*torch\.jit\.script.*",
    r"LightningCLI's args parameter.*",
    r"Experiment logs directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"You're using the WeightAveraging callback, but loading a checkpoint.*",
    r"Checkpoint directory .* exists and is not empty",
    r"The dirpath has changed from .* therefore `best_model_score`.*",
    r"Using `DistributedSampler` with the dataloaders.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",
)


class TagheadCLI(LightningCLI):
    """Lightning's command line, where the data say the classes and the size of clips."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("class_names", "preprocessing", "features"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        leave_out_modules(self.config)

    def _parse_ckpt_path(self) -> None:
        try:
            super()._parse_ckpt_path()
        except Exception as error:  # pickle, zip files and torch raise types of their own
            path = self.config[self.config.subcommand].ckpt_path
            raise DataError(f"{path}: not a checkpoint: {one_line(error)}") from error

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        every = LightningCLI.subcommands()
        return {name: every[name] for name in ("fit", "validate", "test")}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds a TensorBoard and a CSV log in one folder, unless the config chose a logger."""
        config = self._get(self.config_init, "trainer")
        root = config.get("default_root_dir") or "runs"
        resumed = self._resolve_last(root)
        if config.get("logger") in (None, True):
            kwargs["logger"] = run_loggers(root, resumed)
        return super().instantiate_trainer(**kwargs)

    def _resolve_last(self, root: str) -> Path | None:
        """What `--ckpt_path=last` means: the newest of all runs; training may have none yet."""
        options = self._options
        if options.get("ckpt_path") != "last":
            return None
        found = last_checkpoint(root)
        if found is None and self.subcommand != "fit":
            raise DataError(f"ckpt_path last: no run in {root} has a last.ckpt")
        options["ckpt_path"] = found and str(found)
        return found if self.subcommand == "fit" else None

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:  # an argument breaks its rule
            raise DataError(one_line(error)) from error
        options = self._options
        if options.get("ckpt_path") not in (None, "best", "hpc"):
            check_checkpoint(options["ckpt_path"], self.model)
        if options.get("weights_only") is None:
            options["weights_only"] = True  # a checkpoint may come from anywhere

    @property
    def _options(self) -> Any:
        """The subcommand's options; there are none where the classes alone are made."""
        return self.config_init[self.subcommand] if self.subcommand else {}


def leave_out_modules(config: Namespace) -> None:
    """Leaves a class's own defaults to it where they are modules, which no file can hold.

    Some of PyG's operators have one, an activation: `ResGatedGraphConv(act=Sigmoid())`.
    """
    for key, value in list(config.items(branches=True)):
        if isinstance(value, nn.Module):
            del config[key]
