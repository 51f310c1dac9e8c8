"""Options below a component, such as `--model.head.conv.heads=4`, joined into its value.

The parser of a command takes a component as one value: a name, or a mapping with `class_path` and
`init_args`. Here the values of configs and of options below are collected, in their order.
"""

from __future__ import annotations

from typing import Any

from taghead.files import json_text

CLASS, OPTIONS = "class_path", "init_args"


class ComponentValues:
    """The components of a command line, by their option."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._changed: dict[str, None] = {}

    def note(self, key: str, value: Any) -> None:
        """Notes the value that a file has for a component."""
        self._values[key] = value

    def set(self, key: str, value: Any) -> None:
        """Notes a component's value on the command line: text, or the content of a file."""
        self._values[key] = _read(value) if isinstance(value, str) else value
        self._changed[key] = None

    def set_below(self, key: str, names: list[str], value: str) -> None:
        """Notes an option below a component.

        Args:
            key: The component's option.
            names: The path below it, such as `["nn", "dropout"]`.
            value: The value as on a command line.
        """
        self._changed[key] = None
        self._values[key] = _with_option(self._values.get(key), names, _read(value))

    def arguments(self) -> list[str]:
        """The components that the command line changes, one argument each."""
        return [f"--{key}={_written(self._values[key])}" for key in self._changed]

    def covers(self, key: str) -> bool:
        """Whether an option is one of these components, or below one."""
        return any(key == each or key.startswith(f"{each}.") for each in self._changed)


def _with_option(held: Any, names: list[str], value: Any) -> Any:
    """A component's value with an option set: a class's, or an entry of a mapping."""
    name, *rest = names
    if isinstance(held, str):
        held = {CLASS: held}
    held = dict(held) if isinstance(held, dict) else {}
    if CLASS not in held:
        held[name] = _with_option(held.get(name), rest, value) if rest else value
        return held
    options = dict(held.get(OPTIONS) or {})
    options[name] = _with_option(options.get(name), rest, value) if rest else value
    return {**held, OPTIONS: options}


def _read(text: str) -> Any:
    """The value of an option's text, as YAML."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value, "an option")
