"""The command `taghead`: a table of commands, each a function in its package.

It may import everything; its imports before the check of a command line take 0.2 s.
"""

from __future__ import annotations

import codecs
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from itertools import pairwise

from taghead import __version__
from taghead.cli.table import COMMANDS, Command
from taghead.errors import (
    IGNORED_WARNINGS,
    DataError,
    UsageError,
    did_you_mean,
    is_disk_full,
    one_line,
)
from taghead.processes import end_workers

USAGE_CODE, STOPPED_CODE = 2, 130
_ESCAPE = "taghead.escape"  # how streams write what they cannot encode


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command.

    Raises:
        SystemExit: With code 2 if the command line is wrong, 1 after any other error that the user
            can mend, 130 after Ctrl-C. The message has one to three lines.
    """
    args = list(sys.argv[1:] if args is None else args)
    _print_any_text()
    for warning in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=warning)
    try:
        _run(args)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USAGE_CODE) from None
    except (DataError, OSError) as error:
        raise SystemExit(f"error: {error_text(error)}") from None
    except KeyboardInterrupt as stop:
        print(f"stopped{f'; {stop}' if stop.args else ''}", file=sys.stderr)
        raise SystemExit(STOPPED_CODE) from None
    finally:
        end_workers()


def _print_any_text() -> None:
    """Makes every text printable, names of files that are no UTF-8 included, in any encoding."""
    codecs.register_error(_ESCAPE, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""A text that a stream cannot encode: bytes of names as `\xff`, as `name_to_text` has them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escaped = [
        rf"\x{ord(character) - 0xDC00:02x}"  # as `os.fsdecode` has a byte of a name
        if "\udc80" <= character <= "\udcff"
        else character.encode("ascii", "backslashreplace").decode()
        for character in error.object[error.start : error.end]
    ]
    return "".join(escaped), error.end


def error_text(error: Exception) -> str:
    """The text of an error, one to three lines."""
    if isinstance(error, OSError) and is_disk_full(error):
        return f"{error.filename or 'the disk of the output'}: no space left on the disk"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) if isinstance(error, DataError) else one_line(error)


def _run(args: list[str]) -> None:
    from taghead.cli.source import forget

    if not args or args[0] in ("-h", "--help", "help"):
        from taghead.cli.usage import usage

        print(usage(), end="")
        return
    if args[0] == "--version":
        print(__version__)
        return
    command, rest = _command(args)
    forget()
    if not _shows_help(command, rest):
        from taghead.cli.check import Check
        from taghead.cli.live import run

        check = Check(command, rest)
        run(command, check.run(), check.modules)


def _command(args: list[str]) -> tuple[Command, list[str]]:
    """The command, whose name may have two words, and the arguments after it."""
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in COMMANDS:
            return COMMANDS[name], args[words:]
    longer = [name for name in COMMANDS if name.split()[0] == args[0]]
    if longer and (len(args) == 1 or args[1].startswith("-")):
        example = COMMANDS[longer[0]].example
        raise UsageError(f"taghead {args[0]} needs a second word\nexample: {example}")
    name = " ".join(args[:2]) if longer else args[0]
    near = did_you_mean(name, COMMANDS)
    raise UsageError(f"there is no command {name!r}{near or '; `taghead` lists them'}")


def _shows_help(command: Command, args: list[str]) -> bool:
    """Prints the help of the command, or of a class, if it is asked for."""
    if "-h" in args or "--help" in args:
        from taghead.cli.usage import command_help

        print(command_help(command), end="")
        return True
    for arg, after in pairwise([*args, ""]):
        name, equals, value = arg.partition("=")
        if name.startswith("--") and name.endswith(".help"):
            return _shows_class(command, name[2:-5], value if equals else after)
    return False


def _shows_class(command: Command, key: str, class_path: str) -> bool:
    from taghead.cli.check import missing_class
    from taghead.cli.source import MissingNameError
    from taghead.cli.usage import class_help

    try:
        text = class_help(command, key.replace("-", "_"), class_path) if class_path else None
    except MissingNameError as error:
        raise UsageError(missing_class(error, f"--{key}.help")) from None
    if text is None:
        return False
    print(text, end="")
    return True
