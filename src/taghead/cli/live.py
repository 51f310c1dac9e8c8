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
from taghead.files import name_to_text

_SURROGATE = re.compile("[\udc80-\udcff]")  # a byte of a name that is not UTF-8
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
        text = str(error)
        raise UsageError(_not_utf8(text, args) or refused_path(text) or condensed(text)) from error
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


def _not_utf8(message: str, args: Sequence[str]) -> str:
    """The message for a name of a file that a config cannot hold; empty if it is another error."""
    if "surrogates not allowed" not in message:
        return ""
    key = message.removeprefix('Parser key "').partition('"')[0]
    odd = [arg for arg in args if _SURROGATE.search(arg)]
    given = next((arg for arg in odd if arg.startswith(f"--{key}")), *odd[:1])
    return (
        f"{name_to_text(given)}: the name is not UTF-8, so that no config can hold it: rename it, "
        f"or link to it"
    )


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
