"""Lightning's command line, for training and evaluating the classification task."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from filelock import BaseFileLock
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import OutOfMemoryError, nn

from taghead.class_paths import ADDRESS, refuse_address, refused_path, restrict_parser
from taghead.errors import (
    DataError,
    UsageError,
    did_you_mean,
    is_disk_full,
    loader_failure,
    one_line,
)
from taghead.training.checkpoint_choice import checkpoint_of_run, layout_of
from taghead.training.checkpoints import LastCheckpoint, read_checkpoint
from taghead.training.compatibility import check_checkpoint
from taghead.training.resume import run_loggers
from taghead.training.run_folder import (
    clear_dead,
    is_first_rank,
    last_checkpoint,
    lock_run,
    remove_empty,
)


class TagheadCLI(LightningCLI):
    """Lightning's command line, where the data determine the classes and the size of clips."""

    _args: Any = None  # the command line
    _lock: BaseFileLock | None = None  # of the training's folder
    _folder: Path | None = None  # of the run, if this process chose it

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose errors are raised: :func:`taghead.cli.main` tells them."""
        restrict_parser()
        return super().init_parser(**{"exit_on_error": False, **kwargs})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for name in ("class_names", "preprocessing", "features"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self._args = args
        restrict_parser()  # modules may have been named since the parser was built
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            if reason := refused_path(str(error)):
                raise UsageError(reason) from error
            raise
        leave_out_modules(self.config)

    def _parse_ckpt_path(self) -> None:
        """Leaves a checkpoint's hyper-parameters alone.

        Lightning would make options of them, and build the classes that they name. A checkpoint
        gives weights and states; the options are those of the config and the command line.
        """

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        every = LightningCLI.subcommands()
        return {name: every[name] for name in ("fit", "validate", "test")}

    def before_instantiate_classes(self) -> None:
        if self.subcommand in ("validate", "test"):
            chosen = checkpoint_of_run(self.config[self.subcommand], self._args)
            self._set_checkpoint(self.config, chosen)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds a TensorBoard and a CSV log in one folder, unless the config chose a logger."""
        config = self._get(self.config_init, "trainer")
        root = config.get("default_root_dir") or "runs"
        is_own = config.get("logger") not in (None, True)
        resumed = self._resolve_last(root, config, is_own)
        if not is_own:
            if is_first_rank():
                clear_dead(root)
            is_claimed = bool(self.subcommand) and not config.get("fast_dev_run")
            kwargs["logger"] = run_loggers(root, resumed, is_claimed)
            self._folder = Path(kwargs["logger"][0].log_dir)
        try:
            return super().instantiate_trainer(**kwargs)
        except TypeError as error:  # so Lightning refuses some values
            raise DataError(f"trainer: {one_line(error)}") from error

    def _resolve_last(self, root: str, config: Any, is_own: bool) -> Path | None:
        """The file of `--ckpt_path=last`, if it is given and training goes on from it."""
        if self._options.get("ckpt_path") != "last":
            return None
        where, layout = layout_of(root, config.get("callbacks"), config.get("logger"), is_own)
        found = last_checkpoint(where, layout)
        if found is None and self.subcommand != "fit":
            raise DataError(f"ckpt_path last: no run in {where} has a last.ckpt")
        if found is None and is_first_rank():
            text = f"ckpt_path last: no run in {where} has a last.ckpt: training begins anew"
            print(text, file=sys.stderr)
        for holder in (self.config, self.config_init):
            self._set_checkpoint(holder, found)
        if self.subcommand != "fit" or found is None:
            return None
        if not is_own and found.parent.parent.parent == Path(root):  # it goes on in its folder
            self._lock_run(found.parent.parent)
        return found

    def _set_checkpoint(self, config: Any, path: Path | str | None) -> None:
        """Sets the checkpoint, also in the config that the run's folder gets."""
        config[self.subcommand]["ckpt_path"] = path and str(path)

    def _lock_run(self, run: Path) -> None:
        """Locks the folder of a training; all its ranks share the first one's lock."""
        if self._lock is None and is_first_rank():
            self._lock = lock_run(run)

    def _release(self) -> None:
        """Releases the run's folder, and removes it if nothing was written."""
        if self._lock is not None:
            self._lock.release()
        if self._folder is not None:
            remove_empty(self._folder)
        self._lock = self._folder = None

    def _run_subcommand(self, subcommand: str) -> None:
        """Trains or evaluates; what the user can mend is told, what stopped it is named."""
        trainer = self.trainer
        where = trainer.log_dir or trainer.default_root_dir
        keeps_last = any(isinstance(each, LastCheckpoint) for each in trainer.callbacks)  # type: ignore[attr-defined]
        is_local = "://" not in where and not trainer.fast_dev_run  # type: ignore[attr-defined]
        try:
            if subcommand == "fit" and is_local and (keeps_last or self._folder):
                self._lock_run(Path(where))
            super()._run_subcommand(subcommand)
        except SystemExit as stop:
            if trainer.received_sigterm:
                self._end_by_sigterm(subcommand)
            if not isinstance(stop.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it since
            raise KeyboardInterrupt(*self._how_to_go_on(subcommand)) from None
        except Exception as error:
            if trainer.received_sigterm:  # its reader processes got the signal too
                self._end_by_sigterm(subcommand)
            reason = mendable(error, self._options.get("ckpt_path"))
            if (lost := loader_failure(error)) is not None:
                reason = "; ".join([lost, *self._how_to_go_on(subcommand)])
            if reason is None and not is_disk_full(error):
                raise
            raise DataError(reason or f"{where}: no space left on the disk") from error
        finally:
            self._release()

    def _end_by_sigterm(self, subcommand: str) -> NoReturn:
        """Ends the process with the exit code of SIGTERM, where Lightning's own is 0."""
        if is_first_rank():
            print("; ".join(["stopped", *self._how_to_go_on(subcommand)]), file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from None

    def _how_to_go_on(self, subcommand: str) -> list[str]:
        """How to resume a stopped training, if it has a checkpoint."""
        last = Path(self.trainer.log_dir or "", "checkpoints", "last.ckpt")
        return [f"--ckpt_path={last} goes on"] if subcommand == "fit" and last.exists() else []

    def instantiate_classes(self) -> None:
        if subcommand := self.config.get("subcommand"):
            refuse_address("ckpt_path", self.config[subcommand].get("ckpt_path"))
        try:
            self._instantiate_checked()
        except BaseException:
            self._release()
            raise

    def _instantiate_checked(self) -> None:
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:  # an argument breaks its rule
            raise DataError(one_line(error)) from error
        options = self._options
        if options.get("ckpt_path") not in (None, "best", "hpc"):
            check_checkpoint(options["ckpt_path"], self.model)
            check_states(options["ckpt_path"])
        if options.get("weights_only") is None:
            options["weights_only"] = True  # a checkpoint may come from anywhere

    @property
    def _options(self) -> Any:
        """The subcommand's options; there are none where the classes alone are made."""
        return self.config_init[self.subcommand] if self.subcommand else {}


def mendable(error: Exception, checkpoint: str | None) -> str | None:
    """The message for a training error that an option can mend; None for other errors.

    Args:
        error: What Lightning or torch raised.
        checkpoint: The checkpoint that training went on from.
    """
    text = str(error)
    monitored = re.search(r"monitor='([^']*)'.*returned metrics: \[(.*?)\]", text) or re.search(
        r"conditioned on metric `([^`]*)`.*any of the following: (.*)", text
    )
    if monitored:
        name, known = monitored[1], re.findall(r"[\w/]+", monitored[2])
        near = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        return f"trainer.callbacks: monitor: there is no metric {name!r}{near}"
    if "parameter group" in text and checkpoint:
        return (
            f"{checkpoint}: its optimizer has other parameters than this training: "
            f"--model.freeze_backbone and --model.layer_decay must be those of its run"
        )
    if "more than 1 value per channel" in text:
        return (
            "data.batch_size: batch norm needs more than one value per channel, and a batch has "
            "one clip: a larger --data.batch_size, or --model.freeze_batch_norm=true, mends it"
        )
    if isinstance(error, OutOfMemoryError):
        return (
            "out of GPU memory: a smaller --data.batch_size, --model.recompute=true or "
            "--trainer.precision=16-mixed needs less"
        )
    return one_line(error) if isinstance(error, MisconfigurationException) else None


def check_states(path: str | Path) -> None:
    """Checks that the states of a checkpoint's callbacks hold no address.

    Lightning's `ModelCheckpoint` takes the names of older files from its state, to remove them.

    Raises:
        DataError: If they hold one, or the file is no checkpoint.
    """
    for text in _texts(read_checkpoint(path).get("callbacks")):
        if ADDRESS.fullmatch(text):
            raise DataError(f"{path}: the state of a callback holds an address: {text}")


def _texts(value: object) -> Iterator[str]:
    """All text in nested mappings and sequences."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from _texts(each)


def leave_out_modules(config: Namespace) -> None:
    """Leaves a class's own defaults to it where they are modules, which no file can hold.

    Some of PyG's operators have one, an activation: `ResGatedGraphConv(act=Sigmoid())`.
    """
    for key, value in list(config.items(branches=True)):
        if isinstance(value, nn.Module):
            del config[key]
