"""Help pages of the command line: of all commands, of one command, and of a class."""

from __future__ import annotations

import argparse
import ast
import re
import shutil

from taghead.cli.options import Options, command_options
from taghead.cli.signature import Argument, signature, summary
from taghead.cli.source import Definition, find
from taghead.cli.table import COMMANDS, Command

EXAMPLES = ("demo", "predict", "fit", "test", "explain")
TRUST = (
    "Give configs that you wrote, for a config is code. Checkpoints, model folders, caches,\n"
    "annotations and stores are data: a class of theirs, or of a config, comes from an installed\n"
    "package of this field or from --modules, and no address is fetched (SECURITY.md)."
)
ROLE = re.compile(r":\w+:`(?:~[\w.]*\.)?([^`]*)`")  # of Sphinx
STATED_DEFAULT = re.compile(r"\s*\(default: [^)]*\)")  # in docstrings of PyG
TYPES = {"int": "INTEGER", "float": "NUMBER", "bool": "true|false", "str": "TEXT", "None": "null"}
WIDTH = 100
LONGEST = 50  # choices that are listed; the help tells the others


def usage() -> str:
    """The page of all commands."""
    width = max(map(len, COMMANDS)) + 2
    commands = [f"  {name:<{width}}{command.about}" for name, command in COMMANDS.items()]
    examples = [f"  {COMMANDS[name].example}" for name in EXAMPLES]
    lines = [
        "usage: taghead COMMAND [options]",
        "",
        "Train and use graph heads on video backbones.",
        "",
        *commands,
        "",
        "examples:",
        *examples,
        "",
        "`taghead COMMAND --help` lists the options of a command.",
    ]
    return "\n".join(lines) + "\n"


def command_help(command: Command) -> str:
    """The help of a command: its arguments and options, and those of its default classes."""
    options = command_options(command)
    names = [*command.positional, "[options]"]
    root = options.root.arguments
    words = [f"{n.upper()}..." if n in root and root[n].is_list else n for n in names]
    words = [word.upper() if word in command.positional else word for word in words]
    parser = _parser(f"taghead {command.name} {' '.join(words)}")
    parser.description = _summary(find(command.function.replace(":", ".")))
    if command.positional:
        group = parser.add_argument_group("arguments")
        for name in command.positional:
            group.add_argument(name, metavar=name.upper(), help=_text(root[name], False))
    shown = options.visible(options.root, "")
    _add(parser.add_argument_group("options"), shown, "")
    for name, argument in shown.items():
        _add_inner(parser, options, name, argument)
    parser.epilog = f"example: {command.example}"
    if command.takes_modules:
        parser.epilog += f"\n\n{TRUST}"
    if any(argument.kinds.classes for argument in shown.values()):
        parser.epilog += (
            "\n\nThe options of any class that is given for one: "
            f"taghead {command.name} --OPTION.help CLASS"
        )
    return parser.format_help()


def class_help(command: Command, key: str, class_path: str) -> str | None:
    """The options that a class has when it is given for an option; `None` if not known.

    Raises:
        MissingNameError: If there is no such class.
    """
    definition = find(class_path)
    held = signature(definition)
    if definition is None or held.is_open:
        return None
    parser = _parser(f"taghead {command.name} --{key}={class_path} [options]")
    parser.description = _summary(definition)
    _add(parser.add_argument_group("options"), held.arguments, f"{key}.", False)
    return parser.format_help()


def _parser(use: str) -> argparse.ArgumentParser:
    def shape(prog: str) -> argparse.HelpFormatter:
        width = min(WIDTH, shutil.get_terminal_size().columns)
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=width)

    return argparse.ArgumentParser(usage=use, add_help=False, formatter_class=shape)


def _add_inner(
    parser: argparse.ArgumentParser, options: Options, key: str, argument: Argument
) -> None:
    """A group of the options below one, and those below these."""
    if not argument.takes_file or argument.kinds.is_open:
        return
    held = options.inner(key, argument)
    definition = options.default_class(argument) or argument.kinds.classes[0]
    shown = options.visible(held, key)
    shown = {name: each for name, each in shown.items() if name not in given_to(argument)}
    if held.is_open or not shown:
        return
    title = f"{key}: {definition.path.rpartition('.')[2]}"
    _add(parser.add_argument_group(title, _summary(definition)), shown, f"{key}.", False)
    for name, inner in shown.items():
        _add_inner(parser, options, f"{key}.{name}", inner)


def given_to(argument: Argument) -> set[str]:
    """The arguments that a factory is called with."""
    found: set[str] = set()
    for definition in argument.kinds.classes:
        if isinstance(definition.node, ast.ClassDef):
            calls = [n for n in definition.node.body if isinstance(n, ast.FunctionDef)]
            found.update(a.arg for call in calls if call.name == "__call__" for a in call.args.args)
    return found


def _add(
    group: argparse._ArgumentGroup, shown: dict[str, Argument], prefix: str, whole: bool = True
) -> None:
    for name, argument in shown.items():
        group.add_argument(
            f"--{prefix}{name}", metavar=_metavar(argument), help=_text(argument, True, whole)
        )


def _summary(definition: Definition | None) -> str:
    return ROLE.sub(r"\1", summary(definition))


def _metavar(argument: Argument) -> str:
    kinds = argument.kinds
    words = [*kinds.choices, *(TYPES[name] for name in TYPES if name in kinds.scalars - {"None"})]
    words += ["CLASS"] if kinds.classes else []
    choices = "|".join(dict.fromkeys(words)) or "VALUE"
    return choices if len(choices) <= LONGEST else "VALUE"


def _text(argument: Argument, is_option: bool, whole: bool = True) -> str:
    """An argument's help, and its default; of a class's, only the first sentence."""
    text = ROLE.sub(r"\1", argument.help).replace("``", "`")
    if not whole:
        text = re.split(r"(?<=\.) (?=[A-Z])", STATED_DEFAULT.sub("", text))[0]
    if is_option and argument.is_required:
        text += " (required)"
    elif is_option and argument.default is not None:
        default = _default(argument.default)
        text += f" (default: {default})" if default else ""
    return text.replace("%", "%%").strip()


def _default(default: ast.expr) -> str:
    match default:
        case ast.Constant(value=None):
            return ""
        case ast.Constant(value=bool(value)):
            return str(value).lower()
        case ast.Constant(value=value):
            return str(value)
        case ast.Call():
            return ""
    return ast.unparse(default)
