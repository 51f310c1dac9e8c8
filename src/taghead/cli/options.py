"""The options of a command: its function's arguments, and those of the classes chosen for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import or_

from taghead.cli.signature import (
    ANY,
    NONE,
    OPTIONAL_TEXT,
    Argument,
    Signature,
    is_component,
    is_protocol,
    signature,
)
from taghead.cli.source import Definition, MissingNameError, find, resolve
from taghead.cli.table import Command

MODULES = (
    "Modules of your own, such as my_operators,my_data, whose classes the config or the model may "
    "name: they are imported, installed or from the working folder. No other module is."
)
IN_A_CONFIG = ("class_path", "init_args")
DEPTH = 4  # model.head.conv.heads


class UnknownOptionError(Exception):
    """An unknown option.

    Args:
        key: Its dotted key.
        within: The key of what should have it; empty for the command.
        known: Names that would have been options there.
    """

    def __init__(self, key: str, within: str, known: list[str]) -> None:
        super().__init__(key)
        self.key = key
        self.within = within
        self.known = known


class Options:
    """Options by dotted key, such as `model.head.conv.heads`.

    Args:
        root: The arguments of the command's function.
        hidden: Keys of arguments that are no options.
    """

    def __init__(self, root: Signature, hidden: tuple[str, ...] = ()) -> None:
        self.root = root
        self.hidden = hidden
        self._chosen: dict[str, list[Definition | None]] = {}

    def choose(self, key: str, class_path: str) -> None:
        """Notes a class that is given for an option; its arguments are options then.

        Raises:
            MissingNameError: If there is no such class.
        """
        known = find(class_path) if "." in class_path else named(class_path)
        if known not in self._chosen.setdefault(key, []):
            self._chosen[key].append(known)

    def find(self, key: str) -> Argument | None:
        """The argument of a key; `None` if only running code could tell.

        Raises:
            UnknownOptionError: If there is none.
        """
        held, within = self.root, ""
        argument = None
        for name in plain(key).split("."):
            if name == "dict_kwargs":
                return None
            known = self.visible(held, within)
            if name not in known:
                if held.is_open:
                    return None
                raise UnknownOptionError(plain(key), within, list(known))
            argument = known[name]
            within = f"{within}.{name}".lstrip(".")
            held = self.inner(within, argument)
        return argument

    def visible(self, held: Signature, within: str) -> dict[str, Argument]:
        """The arguments that are options."""
        prefix = f"{within}." if within else ""
        return {n: each for n, each in held.arguments.items() if prefix + n not in self.hidden}

    def inner(self, key: str, argument: Argument) -> Signature:
        """The options below one: those of the classes chosen for it, or of its default."""
        if key in self._chosen:
            return reduce(or_, map(signature, self._chosen[key]))
        if is_component(argument):
            return ANY
        if (default := self.default_class(argument)) is not None:
            return signature(default)
        kinds = argument.kinds
        if kinds.is_open or len(kinds.classes) > 1 or any(map(is_protocol, kinds.classes)):
            return ANY
        return signature(kinds.classes[0]) if kinds.classes else Signature()

    @staticmethod
    def default_class(argument: Argument) -> Definition | None:
        """The class that is an argument's default."""
        if argument.default is None or not argument.kinds.classes:
            return None
        return resolve(argument.default, argument.owner.module)

    def is_certain(self, key: str) -> bool:
        """Whether an option's class is the only one that was given for it."""
        return len(self._chosen.get(key, [None])) == 1

    def class_of(self, key: str) -> str:
        """What an error calls what has the options below a key: the class that was chosen."""
        chosen = [each.path.rpartition(".")[2] for each in self._chosen.get(key, []) if each]
        return chosen[-1] if chosen else key

    def every_key(self, held: Signature | None = None, within: str = "") -> Iterator[str]:
        """All keys that are known, those of the command first."""
        known = self.visible(held or self.root, within)
        keys = {f"{within}.{name}".lstrip("."): argument for name, argument in known.items()}
        yield from keys
        if within.count(".") < DEPTH - 2:
            for key, argument in keys.items():
                yield from self.every_key(self.inner(key, argument), key)


def named(name: str) -> Definition | None:
    """PyG's class of a name, such as that of an operator; `None` for other names."""
    try:
        return find(f"torch_geometric.nn.{name}") if name.isidentifier() else None
    except MissingNameError:
        return None


def plain(key: str) -> str:
    """A key without what only files have to write: `data.init_args.root` is `data.root`."""
    return ".".join(name for name in key.split(".") if name not in IN_A_CONFIG)


def command_options(command: Command) -> Options:
    """The options of a command."""
    definition = find((command.options or command.function).replace(":", "."))
    root = signature(definition)
    if command.config and definition is not None:
        about = "A config of `fit`, of which data and backbone are taken."
        config = Argument("config", OPTIONAL_TEXT, NONE, definition, about)
        root |= Signature({"config": config})
    if command.takes_modules and definition is not None:
        modules = Argument("modules", OPTIONAL_TEXT, NONE, definition, MODULES)
        root = Signature({"modules": modules}) | root
    return Options(root, (*command.hidden, *command.positional))
