"""Pairs: the same command twice at once in one folder, where no two may write one result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trials.commands import COMMANDS, Inputs, differences, fit_content
from trials.trial import Runner, compared

WITHOUT_READERS = "--data.num_workers=0"  # two trainings beside each other are enough


@dataclass(frozen=True)
class Pair:
    """Two commands that are started together.

    Args:
        name: What the pair is called in the table.
        commands: Arguments of both.
        codes: The exit codes that either may have.
        prepare: Makes the folder in which both run.
        check: What is wrong in the folder afterwards, by their exit codes.
    """

    name: str
    commands: Callable[[Inputs], list[list[str]]]
    codes: frozenset[int]
    prepare: Callable[[Runner, Path], None]
    check: Callable[[Runner, Path, Sequence[int | None]], list[str]]


def pairs_of(number: int, commands: Iterable[str] | None) -> list[Pair]:
    """That many pairs of `fit` and of `last` each, and of the others a fifth as many each."""
    names = [name for name in COMMANDS if commands is None or name in commands]
    found = []
    if "fit" in names:
        found += [FIT] * number + [LAST[i % len(LAST)] for i in range(number)]
    for name in ("extract", "index", "sweep", "generate"):
        if name in names:
            found += [_same(name)] * -(-number // 10)
    return found


def needed(pairs: Iterable[Pair]) -> list[str]:
    """The commands whose references pairs are compared with."""
    return [name for pair in pairs for name in COMMANDS if name == pair.name.split()[0]]


def _empty(runner: Runner, folder: Path) -> None:
    folder.mkdir()


def _half_trained(runner: Runner, folder: Path) -> None:
    """A copy of a run that was killed after its first checkpoint."""
    shutil.copytree(runner.root / "half", folder)


def _fit(inputs: Inputs, checkpoint: str | None) -> list[str]:
    args = ["fit", f"--config={inputs.config}", WITHOUT_READERS]
    return args + ([f"--ckpt_path={checkpoint}"] if checkpoint else [])


def _test(inputs: Inputs) -> list[str]:
    return ["test", f"--config={inputs.config}", "--ckpt_path=last", WITHOUT_READERS]


def _runs_of_their_own(runner: Runner, folder: Path, codes: Sequence[int | None]) -> list[str]:
    """Each training has a folder of its own, and in it what an undisturbed one has."""
    runs = sorted(path.parent.parent for path in folder.rglob("last.ckpt"))
    if len(runs) != 2:
        return [f"{len(runs)} runs in place of 2"]
    wanted = runner.references["fit"]
    return [text for run in runs for text in compared(run, fit_content, wanted)]


def _one_went_on(runner: Runner, folder: Path, codes: Sequence[int | None]) -> list[str]:
    """The run is there once, and ended as one that nothing befell."""
    return compared(folder, fit_content, runner.references["fit"])


def _reports(runner: Runner, folder: Path, codes: Sequence[int | None]) -> list[str]:
    """Each test has left one whole report."""
    files = sorted(folder.rglob("test/metrics.json"))
    wanted = sum(code == 0 for code in codes)
    if len(files) != wanted:
        return [f"{len(files)} reports in place of {wanted}"]
    reports: list[Any] = [json.loads(file.read_text()) for file in files]
    return differences(reports[1:], reports[:-1], "metrics.json")


def _one_went_on_beside_a_test(
    runner: Runner, folder: Path, codes: Sequence[int | None]
) -> list[str]:
    faults = _one_went_on(runner, folder, codes)
    reports = [json.loads(file.read_text()) for file in folder.rglob("test/metrics.json")]
    return faults + ([] if len(reports) == 1 else [f"{len(reports)} reports in place of 1"])


def _same(name: str) -> Pair:
    """Two of another command into one folder: both end well, or one is refused by name."""
    command = COMMANDS[name]

    def check(runner: Runner, folder: Path, codes: Sequence[int | None]) -> list[str]:
        return compared(folder, command.content, runner.references[name])

    return Pair(
        name,
        lambda inputs: [command.args(inputs)] * 2,
        frozenset({0, 1}),
        _empty,
        check,
    )


FIT = Pair(
    "fit",
    lambda inputs: [_fit(inputs, None)] * 2,
    frozenset({0}),
    _empty,
    _runs_of_their_own,
)
LAST = (
    Pair(
        "fit last",
        lambda inputs: [_fit(inputs, "last")] * 2,
        frozenset({0, 1}),
        _half_trained,
        _one_went_on,
    ),
    Pair(
        "test last",
        lambda inputs: [_test(inputs)] * 2,
        frozenset({0}),
        _half_trained,
        _reports,
    ),
    Pair(
        "fit last and test last",
        lambda inputs: [_fit(inputs, "last"), _test(inputs)],
        frozenset({0}),
        _half_trained,
        _one_went_on_beside_a_test,
    ),
)
