"""The checkpoint of a command: that of its options, or the best one of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from taghead.errors import DataError
from taghead.training.checkpoints import LastCheckpoint
from taghead.training.run_folder import ANY_LAYOUT, OWN_LAYOUT, best_checkpoint

CONFIG = "config.yaml"  # of a run, in its folder


def checkpoint_of_run(options: Any, args: Any) -> str | Path:
    """The checkpoint that `validate` or `test` takes its weights from.

    It is `--ckpt_path`, or that of a config file; if the options are a training's own config, in
    its folder, it is the best checkpoint of that training: the config's own is the one that the
    training was resumed from.

    Args:
        options: The command's options.
        args: Its command line.

    Raises:
        DataError: If there is none: weights are never random.
    """
    given = options.get("ckpt_path")
    if given and _is_option(args):
        return given
    configs = [Path(str(config)) for config in options.get("config") or []]
    runs = [i for i, config in enumerate(configs) if _is_of_training(config)]
    later = configs[runs[-1] + 1 :] if runs else configs
    if given and (not runs or any(map(_has_checkpoint, later))):
        return given
    if runs:
        return best_checkpoint(configs[runs[-1]].parent)
    raise DataError(
        "weights to evaluate are missing: give --ckpt_path=FILE, --ckpt_path=last for the newest "
        f"run, or --config=RUN/{CONFIG} of a training for its best checkpoint"
    )


def layout_of(
    root: str, callbacks: Any, loggers: Any, is_own: bool
) -> tuple[str | Path, Sequence[str]]:
    """Where `last.ckpt` is looked for: a folder, and where folders of checkpoints lie below it.

    Args:
        root: The trainer's `default_root_dir`.
        callbacks: The trainer's callbacks.
        loggers: The trainer's logger or loggers.
        is_own: Whether the config chose them.
    """
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(callback, LastCheckpoint) and callback.dirpath:
            folder = Path(callback.dirpath)
            return folder.parent, (folder.name,)
    first = loggers[0] if isinstance(loggers, list) and loggers else loggers
    if not is_own or not first:
        return root, OWN_LAYOUT
    where = getattr(first, "root_dir", None) or getattr(first, "save_dir", None) or root
    return where, ANY_LAYOUT


def _is_option(args: Any) -> bool:
    """Whether the command line itself has `--ckpt_path`."""
    words = args if isinstance(args, list | tuple) else []
    return any(str(word).partition("=")[0].replace("-", "_") == "__ckpt_path" for word in words)


def _is_of_training(config: Path) -> bool:
    return config.name == CONFIG and (config.parent / "checkpoints").is_dir()


def _has_checkpoint(config: Path) -> bool:
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and bool(content.get("ckpt_path"))
