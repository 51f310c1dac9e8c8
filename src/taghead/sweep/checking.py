"""All configs of a sweep are tried before the first run starts."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.console import Console
from rich.progress import track

from taghead.errors import DataError
from taghead.sweep.overrides import Config, overridden
from taghead.sweep.running import RunCLI
from taghead.sweep.spec import Run, Sweep


def check_runs(sweep: Sweep, runs: Iterable[Run], build: bool = True) -> None:
    """Parses the config of each combination of levels, and builds its model.

    Args:
        sweep: The sweep file.
        runs: Those of its runs that are to be checked.
        build: Whether models are built, for which the data must be there.

    Raises:
        DataError: If a config breaks a rule; the message names the file and the key.
    """
    combinations = {json.dumps(run.levels): run for run in runs}  # seeds break no rule
    console = Console(stderr=True)
    for run in track(combinations.values(), "Checking", transient=True, console=console):
        try:
            RunCLI(run.config, only_parse=not build)
        except (DataError, OSError, ValueError, TypeError) as error:
            raise DataError(f"{sweep.path}: {_culprit(sweep, run, build, error)}") from error


def _culprit(sweep: Sweep, run: Run, build: bool, error: Exception) -> str:
    """The first override after which the config breaks the rule, and what is wrong."""
    config = sweep.start(run.seed)
    if _reason(config, build) is not None:
        return f"base: {error}"
    for place, override in sweep.steps(run.levels):
        config = overridden(config, override)
        if (reason := _reason(config, build)) is not None:
            return f"{place}: {reason}"
    return f"{run}: {error}"


def _reason(config: Config, build: bool) -> str | None:
    try:
        RunCLI(config, only_parse=not build)
    except (DataError, OSError, ValueError, TypeError) as error:
        return str(error)
    return None
