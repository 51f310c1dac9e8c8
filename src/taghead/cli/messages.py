"""Error messages for unknown options, classes and files, with suggestions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from taghead.class_paths import ADDRESS
from taghead.cli.options import Options, UnknownOptionError
from taghead.cli.source import MissingNameError
from taghead.cli.table import HINTS
from taghead.errors import did_you_mean

NO_FILE = re.compile(r"last|hpc")  # values of --ckpt_path that are no paths
SHOWN = 12  # names that are listed where none is near


def missing_class(error: MissingNameError, where: str) -> str:
    """The error message for an unknown class."""
    near = did_you_mean(error.name, error.names, f"{error.module}.")
    return f"{where}: {error}{near}"


def unknown_option(
    error: UnknownOptionError, options: Options, where: str, what: str, dashes: str
) -> str:
    """The error message for an unknown option."""
    wrong = error.key.removeprefix(f"{error.within}.").partition(".")[0]
    near = near_option(error, options, wrong, dashes)
    if not near and 0 < len(error.known) <= SHOWN:
        near = f"; it has {', '.join(error.known)}"
    elif not near and not error.within and dashes:
        near = f"; see {what} --help"
    if not error.within and dashes:
        return f"{what} has no option {where}{near}"
    return f"{where}: {what} has no option {wrong}{near}"


def near_option(error: UnknownOptionError, options: Options, wrong: str, dashes: str) -> str:
    """The suggestion `; did you mean ...?` with a known synonym or an option of a similar name."""
    keys = list(options.every_key())
    last = error.key.rpartition(".")[2]
    meant = [key for key in HINTS.get(last, ()) if key in keys][:1]
    meant = meant or [key for key in keys if key.rpartition(".")[2] == last][:3]
    if meant:
        return f"; did you mean {' or '.join(dashes + key for key in meant)}?"
    within = f"{dashes}{error.within}." if error.within else dashes
    if near := did_you_mean(wrong, error.known, within):
        return near
    leaves = {key.rpartition(".")[2]: key for key in reversed(keys)}
    close = [leaves[name] for name in get_close_matches(last, leaves, 1)]
    return f"; did you mean {dashes}{close[0]}?" if close else ""


def missing_files(paths: Iterable[str], noun: str, root: str = "runs") -> list[str]:
    """The error message for each missing file."""
    return [
        address(path, noun)
        if ADDRESS.fullmatch(path)
        else f"{path}: no such {noun}{near_file(path, noun, root)}"
        for path in paths
        if path and not Path(path).exists() and not (noun == "checkpoint" and NO_FILE.match(path))
    ]


def address(path: str, noun: str) -> str:
    """What is said of an address that is given for a file."""
    return f"{path}: an address, and none is fetched: download the {noun} and give its path"


def near_file(path: str, noun: str, root: str) -> str:
    """The suggestion `; did you mean ...?` with a similar file in the same folder."""
    folder = Path(path).parent
    if noun == "checkpoint" and "." not in path:  # best: that of which run?
        found = sorted(Path(root).rglob(f"checkpoints/{path}*.ckpt"), key=_changed)
        return (
            f"; did you mean {found[-1]}?" if found else "; give the file, RUN/checkpoints/*.ckpt"
        )
    if noun == "model" and not folder.is_dir():
        return "; `taghead demo` and `taghead fit` write models"
    if not folder.is_dir():
        return f"; there is no folder {folder}"
    names = [each.name for each in folder.iterdir()]
    return did_you_mean(Path(path).name, names, "" if folder == Path() else f"{folder}/")


def _changed(path: Path) -> float:
    return path.stat().st_mtime
