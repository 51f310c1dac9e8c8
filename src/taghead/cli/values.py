"""Checks of option values against the annotations of their arguments."""

from __future__ import annotations

import ast
from typing import Any

from taghead.cli.signature import Argument
from taghead.errors import UsageError, did_you_mean

BOOLEAN = ("true", "false", "yes", "no", "on", "off")
NO_VALUE = ("null", "none", "~", "")


def check_value(argument: Argument | None, value: Any, where: str) -> None:
    """Refuses a value that an argument certainly does not take.

    Raises:
        UsageError: If it is one.
    """
    if argument is None or isinstance(value, dict | list):
        return
    kinds = argument.kinds
    if kinds.is_open or kinds.classes or "str" in kinds.scalars:
        return
    text = str(value)
    has_none = isinstance(argument.default, ast.Constant) and argument.default.value is None
    may_be_none = has_none or "None" in kinds.scalars
    fits = (
        text in kinds.choices
        or (may_be_none and text.lower() in NO_VALUE)
        or ("bool" in kinds.scalars and text.lower() in BOOLEAN)
        or (bool({"int", "float"} & kinds.scalars) and _is_number(text))
    )
    if not fits:
        names = {"int": "an integer", "float": "a number", "bool": "true or false", "None": "null"}
        allowed = [*kinds.choices, *(names[n] for n in names if n in kinds.scalars)]
        near = did_you_mean(text, kinds.choices)
        raise UsageError(f"{where}must be {_either(allowed)} (got {text!r}){near}")


def _either(words: list[str]) -> str:
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
