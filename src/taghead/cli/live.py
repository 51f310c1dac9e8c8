"""Runs a command after the check: parses its options and calls its function."""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from taghead.class_paths import allow_modules, refused_path, restrict_parser
from taghead.cli.table import Command
from taghead.errors import DataError, UsageError, is_disk_full, loader_failure, one_line

OUTPUTS = ("output", "root")  # arguments that say where a command writes


def run(command: Command, args: list[str], modules: Sequence[str] = ()) -> None:
    """Runs a command.

    Args:
        command: The command.
        args: What stands behind its name, as :class:`~taghead.cli.check.Check` gives it.
        modules: The modules that `--modules` names.

    Raises:
        UsageError: If a value has not the option's type.
        DataError: If the command cannot do what it was asked to.
    """
    from jsonargparse import ArgumentError

    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_no_farewell)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler announces itself
    values: dict[str, Any] = {}
    try:
        if modules:
            allow_modules(modules)
        function = load(command.function)
        restrict_parser()
        if command.options:
            function(args)
        else:
            values = _values(command, function, args)
            function(**values)
    except ArgumentError as error:
        raise UsageError(refused_path(str(error)) or condensed(str(error))) from error
    except UsageError:
        raise
    except ValueError as error:
        raise DataError(one_line(error)) from error
    except RuntimeError as error:
        if (reason := loader_failure(error)) is None:
            raise
        raise DataError(reason) from error
    except SystemExit as stop:
        if stop.code != 1 or not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from None  # Lightning ends so after Ctrl-C
    except OSError as error:
        if is_disk_full(error) and error.filename is None:  # of a write to an open file
            error.filename = next((values[n] for n in OUTPUTS if values.get(n)), None)
        raise


def _is_no_farewell(record: logging.LogRecord) -> bool:
    """Whether a message is another than Lightning's about Ctrl-C, which `main` tells."""
    return "Detected KeyboardInterrupt" not in record.getMessage()


def load(path: str) -> Callable[..., Any]:
    """The function of a `module:function`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _values(command: Command, function: Callable[..., Any], args: list[str]) -> dict[str, Any]:
    """The function's arguments, by jsonargparse."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog=f"taghead {command.name}", exit_on_error=False)
    for name in command.positional:
        is_list = str(function.__annotations__[name]).startswith("list[")
        parser.add_argument(name, nargs="+" if is_list else None)
    skip: set[str | int] = set(command.positional)
    parser.add_function_arguments(function, skip=skip, as_group=False)
    if command.config:
        parser.add_argument("--config")
        for arg, after in pairwise([*args, ""]):
            if arg == "--config" or arg.startswith("--config="):
                config = after if arg == "--config" else arg.partition("=")[2]
                parser.set_defaults(load(command.config)(config))
    values = parser.instantiate(parser.parse_args(args)).as_dict()
    return {name: value for name, value in values.items() if name != "config" or not command.config}


def condensed(message: str) -> str:
    """What jsonargparse says, in one line: the option and what is wrong with its value."""
    lines = [line.strip().removeprefix("- ") for line in message.splitlines() if line.strip()]
    key = lines[0].removeprefix("Parser key ").rstrip(":").replace('"', "")
    reasons = [
        line
        for line in lines[1:]
        if not line.startswith(("Expected a <class 'NoneType'>", "Subtypes", "Errors", "Given"))
    ]
    if unknown := re.search(r"Expected a dot import path string: (\w+)", message):
        return f"--{key}: {unknown[1]} is no known class; give its path, package.{unknown[1]}"
    if not reasons or not message.startswith("Parser key"):
        return " ".join(lines)[:400]
    chosen = [line for line in reasons if "Does not validate" not in line] or reasons
    return f"--{key}: {' '.join(chosen[:2])}"[:400]
