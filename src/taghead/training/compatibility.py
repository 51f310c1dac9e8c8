"""Whether a checkpoint fits: its weights, its head and its optimizer are those asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from taghead.errors import DataError
from taghead.files import config_differences
from taghead.nn.head import TAGHead
from taghead.training.checkpoints import read_checkpoint

SHAPES = {"in_channels", "num_classes", "grid", "channels", "encoder_channels"}
"""Options of a head that its weights' shapes tell, which are compared first."""

WITHOUT_EFFECT = {
    "engine",  # the results are the same
    "positions_std",  # of random weights, which the checkpoint's replace
    *("encoder_dropout", "graph_dropout", "edge_dropout"),  # of training alone
}
IN_GRAPH = {"conv", "relations", "edge_features", "jumping_knowledge"}
"""Options that mode none does not use, with all `graph_` options."""

PER_DEVICE = {"foreach", "fused", "capturable", "differentiable"}  # how an optimizer computes
OPTION_OF = {"initial_lr": "learning_rate", "lr": "learning_rate"}


def check_checkpoint(path: str | Path, task: nn.Module) -> None:
    """Checks that a checkpoint fits a task, before training or a test starts with it.

    Args:
        path: A training checkpoint.
        task: The module that its weights are for.

    Raises:
        DataError: If the file is missing, no checkpoint, or one of another model: with other
            shapes, or another option of the head.
    """
    checkpoint = read_checkpoint(path)
    found = {key: list(value.shape) for key, value in checkpoint["state_dict"].items()}
    wanted = {key: list(value.shape) for key, value in task.state_dict().items()}
    for key in sorted(wanted.keys() | found.keys()):
        has, needs = found.get(key, "nothing"), wanted.get(key, "nothing")
        if has != needs:
            raise DataError(
                f"{path}: a checkpoint of another model: {key} is {has}, the model has {needs}"
            )
    head = getattr(getattr(task, "model", None), "head", None)
    saved = (checkpoint.get("video_classifier") or {}).get("head")
    if isinstance(head, TAGHead) and isinstance(saved, dict):
        for key, has, needs in head_differences(saved, head):
            option = key.removesuffix(".class_path").partition("[")[0]
            raise DataError(
                f"{path}: a checkpoint of another model: its head's {key} is {has!r}, the model's "
                f"is {needs!r}; --model.head.{option} must be that of its run"
            )


def head_differences(saved: dict[str, Any], head: TAGHead) -> Iterator[tuple[str, Any, Any]]:
    """Options, other than shapes, that make a head compute something else than a saved one.

    Args:
        saved: The config of the saved head. It is compared, nothing of it is instantiated.
        head: The head.

    Returns:
        The option, the saved value, and the head's.
    """
    try:
        asked = head.config()
    except ValueError:  # an operator or a relation that no file can hold
        return
    saved, asked = _flat(saved), _flat(asked)
    skipped = SHAPES | WITHOUT_EFFECT | _unused(asked, saved)
    conv = getattr(head.operator, "cls", None)
    for name in [*asked, *(name for name in saved if name not in asked)]:
        if name in skipped:
            continue
        values = [config.get(name, _default(name)) for config in (saved, asked)]
        if name == "conv" and conv is not None:
            values = [_with_defaults(value, conv) for value in values]
        for key, has, needs in config_differences(_plain(values[0]), _plain(values[1]), name):
            if key.rpartition(".")[2] != "dropout":
                yield key, has, needs


def _unused(asked: dict[str, Any], saved: dict[str, Any]) -> set[str]:
    """Options that neither head uses."""
    unused: set[str] = set()
    if not any(config.get("encoder_layers") for config in (asked, saved)):
        unused |= {name for name in asked if name.startswith("encoder_")}
    modes = {config.get("mode") for config in (asked, saved)}
    if modes == {"none"}:
        unused |= IN_GRAPH | {name for name in asked if name.startswith("graph_")}
    if "per_relation" not in modes:
        unused.add("relation_aggr")
    return unused


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """A head's options, with the class path of a head of one's own beside them."""
    own = {key: value for key, value in config.items() if key != "init_args"}
    return {**own, **config["init_args"]} if "class_path" in config else config


def _default(name: str) -> Any:
    """The default of a head's option, for checkpoints of before it existed."""
    return getattr(inspect.signature(TAGHead).parameters.get(name), "default", None)


def _with_defaults(conv: Any, cls: type[Any]) -> Any:
    """An operator's config with the defaults of a class in place of options that are not given."""
    if not isinstance(conv, dict):
        return conv
    defaults: dict[str, Any] = {}
    for base in cls.__mro__:  # its `**kwargs` are those of the classes before it
        if "__init__" in vars(base):
            for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                is_module = isinstance(parameter.default, nn.Module)
                if parameter.default is not parameter.empty and not is_module:
                    defaults.setdefault(name, parameter.default)
    options = {**defaults, **(conv.get("init_args") or {})}
    if options.get("aggr") == "add":  # PyG's other name of it
        options["aggr"] = "sum"
    return {**conv, "init_args": options}


def _plain(value: Any) -> Any:
    """A config with lists for tuples, as files hold it."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def check_optimizers(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Checks that a resumed training's optimizers have the options that were asked for.

    A checkpoint's options replace those of the optimizer that it is loaded into.

    Args:
        trainer: The trainer, with the optimizers that its config made.
        checkpoint: The checkpoint that training resumes from, before it is loaded into them.

    Raises:
        DataError: With the option and both values.
    """
    states = checkpoint.get("optimizer_states") or []
    for optimizer, state in zip(trainer.optimizers, states, strict=False):
        groups = state.get("param_groups", [])
        if len(groups) != len(optimizer.param_groups):
            return  # torch refuses it
        # from the last group, the head's
        for i in reversed(range(len(groups))):
            asked, saved = optimizer.param_groups[i], groups[i]
            for name in _compared(asked, saved, bool(checkpoint.get("lr_schedulers"))):
                has, needs = _number(saved.get(name)), _number(asked.get(name))
                if has != needs:
                    raise DataError(_difference(name, has, needs, i))


def _compared(asked: dict[str, Any], saved: dict[str, Any], has_schedule: bool) -> list[str]:
    """The options of a parameter group that no schedule changes."""
    changing = {"params", "param_names", *PER_DEVICE}
    if has_schedule:
        changing.add("lr")
    if "max_momentum" in asked or "max_momentum" in saved:  # OneCycleLR and CyclicLR
        changing |= {"betas", "momentum"}
    return sorted((asked.keys() | saved.keys()) - changing)


def _difference(name: str, has: Any, needs: Any, group: int) -> str:
    if name == "decoupled_weight_decay" and None not in (has, needs):
        name, has, needs = "optimizer", *("adamw" if each else "adam" for each in (has, needs))
    return (
        f"{OPTION_OF.get(name, name)} of the checkpoint's optimizer is {has}, asked for is {needs} "
        f"(group {group} of its parameters): a resumed training keeps the optimizer's options; "
        f"give those of its run, or train anew without --ckpt_path"
    )


def _number(value: Any) -> Any:
    """A value to compare: of a tensor its number, of a tuple a list."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
