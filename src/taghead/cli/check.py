"""Checks of a command line and its configs, before slow imports.

Only certain mistakes are reported here; what needs imported code is left to the parser that runs
the command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taghead.class_paths import is_allowed, refusal
from taghead.cli.components import ComponentValues
from taghead.cli.messages import missing_class, missing_files, near_option, unknown_option
from taghead.cli.options import UnknownOptionError, command_options, plain
from taghead.cli.signature import Argument, is_component, signature
from taghead.cli.source import MissingNameError, find
from taghead.cli.table import CLASS_FILES, Command
from taghead.cli.values import BOOLEAN, check_value
from taghead.errors import DataError, UsageError, did_you_mean
from taghead.files import MAX_TEXT_BYTES, check_regular

CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass
class Line:
    """A command line taken apart.

    Args:
        named: The arguments as the command's parser takes them, each with its option's name.
        positional: Those without a name.
        given: Values by option, in their order.
    """

    named: list[tuple[str | None, list[str]]] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)
    given: list[tuple[str, str]] = field(default_factory=list)


class Check:
    """A command and what was given to it.

    Args:
        command: The command.
        args: The arguments after its name.
    """

    def __init__(self, command: Command, args: list[str]) -> None:
        self.command = command
        self.options = command_options(command)
        self.positional = {n: self.options.root.arguments[n] for n in command.positional}
        self.values: dict[str, Any] = {}
        self.modules: list[str] = []  # those of `--modules`
        self.components = ComponentValues()
        self._groups: set[str] = set()  # options that have a value, or one below them
        self.line = self._split(args)

    def run(self) -> list[str]:
        """The arguments as the command's parser takes them.

        Raises:
            UsageError: If an option, a value or a class path is wrong, or one is missing.
            DataError: If a file is missing, or a config cannot be read.
        """
        for name in self.line.positional if "backbones" in self.positional else []:
            self._allow(name, name)
        for key, value in self.line.given:
            self._choose(key, value, f"--{key}={value}")
        for key, value in self.line.given:
            argument = self._find(key, f"--{key}")
            self._groups.add(key.partition(".")[0])
            if key == "config":
                self._config(value, "")
            elif self._component(key, value):
                check_value(argument, value, f"--{key} ")
            elif argument is not None and argument.takes_file and _is_file(value):
                self._config(value, key)
            else:
                self.values[plain(key)] = value
                check_value(argument, value, f"--{key} ")
        if "print_config" not in self._groups:  # which reads no data
            self._files()
        self._required()
        kept = [each for key, held in self.line.named if not self._is_joined(key) for each in held]
        return [*kept, *self.components.arguments()]

    def _is_joined(self, key: str | None) -> bool:
        return key is not None and self.components.covers(plain(key))

    def _component(self, key: str, value: str) -> bool:
        """Notes a component, or an option below one; false for all other options."""
        names = plain(key).split(".")
        for number in range(1, len(names) + 1):
            outer = ".".join(names[:number])
            if not is_component(self._find(outer, f"--{key}")):
                continue
            if names[number:]:
                self.components.set_below(outer, names[number:], value)
            else:
                is_file = value.endswith((".yaml", ".yml", ".json")) and Path(value).is_file()
                self.components.set(outer, read_config(value) if is_file else value)
            return True
        return False

    def _split(self, args: list[str]) -> Line:
        line = Line()
        rest = list(args)
        while rest:
            arg = rest.pop(0)
            if arg == "-c" and "config" in self.options.root.arguments:
                arg = "--config"
            if re.fullmatch(r"-[A-Za-z].*", arg):
                raise UsageError(f"{arg}: options begin with two dashes{self._see_help()}")
            if not arg.startswith("--") or arg == "--":
                line.named.append((None, [arg]))
                line.positional += [] if arg == "--" else [arg]
                continue
            name, equals, value = arg[2:].partition("=")
            name = name.replace("-", "_")
            key = name.removesuffix("+")
            if key == "modules" and self.command.takes_modules:
                value = value if equals or not rest else rest.pop(0)
                self.modules += module_names(value)
            elif equals:
                line.named.append((key, [f"--{name}={value}"]))
            elif self._is_flag(key) and (not rest or rest[0].lower() not in BOOLEAN):
                value = "true"
                flag = f"--{name}=true" if key != "print_config" else f"--{name}"
                line.named.append((key, [flag]))
            elif rest and not rest[0].startswith("--"):
                value = rest.pop(0)
                line.named.append((key, [f"--{name}", value]))
            else:
                self._find(key, f"--{key}")
                raise UsageError(f"--{key} needs a value: --{key}=VALUE")
            if key != "modules" or not self.command.takes_modules:
                line.given.append((key, value))
        return line

    def _is_flag(self, key: str) -> bool:
        try:
            argument = self.options.find(key)
        except UnknownOptionError:
            return False
        return argument is not None and "bool" in argument.kinds.scalars

    def _config(self, path: str, within: str) -> None:
        """Checks the keys and values of a config."""
        if missing := missing_files([path], self.command.files.get("config", "config")):
            raise DataError(missing[0])
        content = read_config(path)
        if self.command.config:  # of what it takes, the classes' arguments are checked
            known = self.options.root.arguments
            content = {k: v for k, v in content.items() if k in known and known[k].takes_file}
        for key, class_path in class_paths(content, within):
            self._allow(class_path, f"{path}: {key}")
        for key, value in content.items():
            self._entry(f"{within}.{key}".lstrip("."), value, path)

    def _entry(self, key: str, value: Any, file: str) -> None:
        """Checks a key of a config, and those below it."""
        where = f"{file}: {key}"
        if key == "modules" and self.command.takes_modules:
            raise UsageError(f"{where}: only the command line names modules: --modules=NAME")
        self._groups.add(key.partition(".")[0])
        if isinstance(value, dict) and isinstance(value.get("class_path"), str):
            self._choose(key, value["class_path"], where)
        elif isinstance(value, str):
            self._choose(key, value, where)
        argument = self._find(key, where)
        if is_component(argument):
            self.components.note(plain(key), value)
        if isinstance(value, dict):
            if argument is None or (argument.kinds.is_open and not argument.kinds.classes):
                return
            for name, inner in value.items():
                if name == "init_args" and isinstance(inner, dict):
                    for each, held in inner.items():
                        self._entry(f"{key}.init_args.{each}", held, file)
                elif name not in ("class_path", "init_args", "dict_kwargs"):
                    self._entry(f"{key}.{name}", inner, file)
        elif isinstance(value, list):
            for each in value:
                if isinstance(each, dict) and "class_path" in each:
                    self._item(each, where)
        else:
            self.values[plain(key)] = value
            check_value(argument, value, f"{where} ")

    def _item(self, item: dict[str, Any], where: str) -> None:
        """Checks a class in a list, such as a callback: each has arguments of its own."""
        path = str(item["class_path"])
        try:
            held = signature(find(path) if "." in path else None)
        except MissingNameError as error:
            raise UsageError(missing_class(error, where)) from None
        for name in item.get("init_args") or {}:
            if name not in held.arguments and not held.is_open:
                near = did_you_mean(name, held.arguments)
                raise UsageError(f"{where}: {path.rpartition('.')[2]} has no option {name}{near}")

    def _choose(self, key: str, value: Any, where: str) -> None:
        """Notes the class that an option gets."""
        if not isinstance(value, str) or not value or Path(value).exists():
            return
        key = plain(key)
        try:
            argument = self.options.find(key)
        except UnknownOptionError:
            return  # reported where all options are checked
        if key.rpartition(".")[2] == "backbone":  # a name, or the class path of one's own
            self._allow(value, where)
        if argument is None or not argument.kinds.classes:
            return
        is_path = CLASS_PATH.fullmatch(value) and "str" not in argument.kinds.scalars
        if is_path:
            self._allow(value, where)
        try:
            self.options.choose(key, value if is_path else "")
        except MissingNameError as error:
            raise UsageError(missing_class(error, where)) from None

    def _allow(self, path: str, where: str) -> None:
        """Refuses a class path that is not allowed, before anything of it is imported."""
        is_file = path.endswith((".yaml", ".yml", ".json"))
        if CLASS_PATH.fullmatch(path) and not is_file and not is_allowed(path, self.modules):
            name = where.removesuffix(f"={path}").removesuffix(path)
            raise UsageError(f"{name}: {refusal(path)}".removeprefix(": "))

    def _find(self, key: str, where: str) -> Argument | None:
        """The argument of a key; raises a UsageError if there is none."""
        try:
            return self.options.find(key)
        except UnknownOptionError as error:
            if error.key in self.positional:
                example = f"{error.key.upper()} stands without a name\nexample: "
                raise UsageError(f"{where}: {example}{self.command.example}") from None
            dashes = "--" if where.startswith("--") else ""
            what = self.options.class_of(error.within) if error.within else self._name
            raise UsageError(unknown_option(error, self.options, where, what, dashes)) from None

    @property
    def _name(self) -> str:
        return f"taghead {self.command.name}"

    def _see_help(self) -> str:
        return f"; see {self._name} --help"

    def _files(self) -> None:
        """Refuses files that are not there; of several that a list names, one is enough."""
        missing = []
        for name, values in self._with_values():
            argument = self.positional.get(name) or self.options.find(name)
            noun = self.command.files.get(name)
            if argument is not None and self.options.is_certain(name.rpartition(".")[0]):
                noun = noun or CLASS_FILES.get(argument.owner.path, {}).get(argument.name)
            texts = [each for each in values if isinstance(each, str)]
            if noun and texts and name != "config":
                wrong = missing_files(texts, noun, self._root)
                missing += wrong if len(wrong) == len(texts) else []
        if missing:
            raise DataError("\nerror: ".join(missing[:3]))

    def _with_values(self) -> Iterator[tuple[str, list[Any]]]:
        rest = list(self.line.positional)
        for name, argument in self.positional.items():
            number = len(rest) if argument.is_list else 1
            yield name, rest[:number]
            del rest[:number]
        yield from ((name, [value]) for name, value in self.values.items())

    @property
    def _root(self) -> str:
        """Where this command's runs are."""
        return str(self.values.get("trainer.default_root_dir") or "runs")

    def _required(self) -> None:
        number = len(self.line.positional)
        many = any(argument.is_list for argument in self.positional.values())
        if number < len(self.positional):
            name = list(self.positional)[number]
            self._needs(name.upper(), self.positional[name])
        if number > len(self.positional) and not many:
            stray = self.line.positional[len(self.positional)]
            key = stray.partition("=")[0].replace("-", "_")
            error = UnknownOptionError(key, "", list(self.options.root.arguments))
            near = near_option(error, self.options, key, "--") or self._see_help()
            raise UsageError(f"{self._name} takes no argument {stray}{near}")
        for name, argument in self.options.visible(self.options.root, "").items():
            if argument.is_required and name not in self._groups:
                self._needs(f"--{name}", argument)

    def _needs(self, name: str, argument: Argument) -> None:
        about = f": {argument.help}" if argument.help else ""
        raise UsageError(
            f"{self._name} needs {name}{about}\nexample: {self.command.example}"
        ) from None


def module_names(value: str) -> list[str]:
    """The modules of a `--modules`: `one`, `one,two` or `[one, two]`.

    Raises:
        UsageError: If it names none.
    """
    names = [name.strip(" '\"") for name in value.strip().strip("[]").split(",")]
    if not all(names):
        raise UsageError(f"--modules needs names: --modules=my_operators,my_data (got {value!r})")
    return names


def class_paths(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """All class paths in a config, each with the key that it is given for."""
    if isinstance(value, dict):
        path = value.get("class_path")
        if isinstance(path, str):
            yield key, path
        for name, inner in value.items():
            yield from class_paths(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for each in value:
            yield from class_paths(each, key)


def _is_file(value: str) -> bool:
    """Whether a value names a file, or what would be read like one."""
    return Path(value).exists() and not Path(value).is_dir()


def read_config(path: str) -> dict[str, Any]:
    """The content of a YAML file.

    Raises:
        DataError: If it cannot be read, or holds no mapping.
    """
    import yaml

    check_regular(path, MAX_TEXT_BYTES)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable config: {reason}") from error
    return content if isinstance(content, dict) else {}
