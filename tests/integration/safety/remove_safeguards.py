"""Removes each safeguard of the package alone, and demands that its tests fail.

`python remove_safeguards.py [NAME ...]`: the package is copied, one text of it is replaced, and the
tests that `safeguards.py` names are run with the copy; each of them must fail. Once, all of them
must pass with the package as it is. It ends with a table; the exit code is 0 if all are caught.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from safeguards import SAFEGUARDS, Safeguard

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "taghead"
LIMIT_SEC = 240  # of the tests of one safeguard, which may wait for ever without it
AS_IT_IS = "the package as it is"
CLIPS = {"splits": {"train": 36, "val": 18, "test": 18}, "num_workers": 2, "progress": False}
LOADED = (  # by every process once, before it is forked; decord's threads would not survive it
    *("pytest", "hypothesis", "torch", "torchvision", "torch_geometric.nn", "torchmetrics"),
    *("lightning.pytorch.cli", "pandas", "av", "safetensors.torch", "optuna", "huggingface_hub"),
    *("pyarrow.parquet", "pebble", "matplotlib.pyplot", "jsonargparse"),
)
BROKEN = ("SyntaxError", "NameError", "ImportError", "ModuleNotFoundError", "IndentationError")


@dataclass
class Job:
    """Tests that one process runs.

    Args:
        name: The safeguard's, or `AS_IT_IS`.
        tests: Their node ids.
        safeguard: What is removed; None for the package as it is.
        folder: Where it works.
        pid: Its process.
        begun: When it began.
        outcome: How each test ended: `passed`, or the line of its error.
    """

    name: str
    tests: Sequence[str]
    safeguard: Safeguard | None
    folder: Path
    pid: int = 0
    begun: float = 0.0
    seconds: float = 0.0
    outcome: dict[str, str] = field(default_factory=dict)

    def of(self, test: str) -> list[str]:
        """How the cases of a test ended."""
        return [
            found
            for name, found in self.outcome.items()
            if name == test or name.startswith((f"{test}[", f"{test}::"))
        ]

    def verdict(self) -> str:
        """Empty if all is as it is to be."""
        for test in self.tests:
            found = self.of(test)
            errors = [each for each in found if each not in ("passed", "skipped")]
            if self.safeguard is None and (errors or "passed" not in found):
                return f"{test} does not pass: {(errors or ['it was not run'])[0]}"
            if self.safeguard is not None and not errors:
                return f"{test} passes without it" if found else f"{test} was not run"
            if self.safeguard is not None and all(each.startswith(BROKEN) for each in errors):
                return f"its replacement is no code: {errors[0]}"
        return ""


class Recorder:
    """A plugin of pytest that notes how tests end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcome: dict[str, str] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._note(nodeid, "the process ended in it")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        found = report.outcome
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            text = crash.message if crash else str(report.longrepr)
            found = (text.strip().splitlines() or ["failed"])[0][:200]
        self._note(report.nodeid, found)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            text = str(report.longrepr).strip().splitlines()[-1].removeprefix("E").strip()
            self._note(report.nodeid, text[:200])

    def _note(self, name: str, found: str) -> None:
        self.outcome[name] = found
        self.path.write_text(json.dumps(self.outcome))


def removed(safeguard: Safeguard) -> str:
    """The text of the module without a safeguard.

    Raises:
        ValueError: If the text to replace does not stand there once, or what it becomes is no code.
    """
    text = (PACKAGE / safeguard.file).read_text(encoding="utf-8")
    if text.count(safeguard.old) != 1:
        number = text.count(safeguard.old)
        raise ValueError(f"{safeguard.name}: {safeguard.file} has its text {number} times")
    changed = text.replace(safeguard.old, safeguard.new)
    ast.parse(changed)
    return changed


def write_dataset(folder: Path) -> Path:
    """The generated clips of the fixture `dataset`, once for all jobs."""
    command = (
        f"from taghead.data.synthetic import write_dataset as w; w({str(folder)!r}, **{CLIPS})"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    subprocess.run([sys.executable, "-c", command], env=environment, check=True)
    return folder


def share_dataset(dataset: Path) -> None:
    """Has the fixture `dataset` copy the clips that are there instead of making them anew."""
    from taghead.data import synthetic

    made = synthetic.write_dataset

    def copied(root: Path, **options: Any) -> Any:
        if {**CLIPS, **options} != CLIPS:
            return made(root, **options)
        return shutil.copytree(dataset, root, dirs_exist_ok=True)

    synthetic.write_dataset = copied


def start(job: Job, dataset: Path) -> None:
    """Starts a job in a process of its own, which has the libraries loaded but not the package."""
    tree = job.folder / "src"
    shutil.copytree(PACKAGE, tree / "taghead", ignore=shutil.ignore_patterns("__pycache__"))
    if job.safeguard is not None:
        (tree / "taghead" / job.safeguard.file).write_text(removed(job.safeguard), encoding="utf-8")
    job.begun = time.monotonic()
    job.pid = os.fork()
    if job.pid:
        return
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        log = os.open(job.folder / "log", os.O_CREAT | os.O_WRONLY)
        for number in (1, 2):
            os.dup2(log, number)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.path.insert(0, str(tree))
        os.chdir(ROOT)
        import pytest

        import taghead

        assert Path(taghead.__file__).is_relative_to(tree), taghead.__file__
        share_dataset(dataset)
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={job.folder / 'tmp'}"]
        pytest.main([*options, *job.tests], plugins=[Recorder(job.folder / "outcome.json")])
    finally:
        os._exit(0)


def finish(job: Job) -> None:
    """Reads how a job's tests ended, and clears up."""
    job.seconds = time.monotonic() - job.begun
    with_suppressed(os.killpg, job.pid, signal.SIGKILL)  # what its tests left running
    outcome = job.folder / "outcome.json"
    if outcome.is_file():
        job.outcome = json.loads(outcome.read_text())
    shutil.rmtree(job.folder, ignore_errors=True)


def with_suppressed(function: Any, *args: Any) -> None:
    try:
        function(*args)
    except ProcessLookupError:
        return


def run_jobs(jobs: Sequence[Job], workers: int, dataset: Path) -> Iterator[Job]:
    """Runs jobs, some at a time, and gives each as it ends."""
    waiting, running = list(jobs), {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                start(job, dataset)
                running[job.pid] = job
            pid, _ = os.waitpid(-1, os.WNOHANG)
            late = [job for job in running.values() if time.monotonic() - job.begun > LIMIT_SEC]
            for job in late:
                with_suppressed(os.killpg, job.pid, signal.SIGKILL)
            if pid in running:
                job = running.pop(pid)
                finish(job)
                if job in late:
                    for test in job.tests:
                        if not job.of(test):
                            job.outcome[test] = f"no end in {LIMIT_SEC} s"
                yield job
            elif not pid:
                time.sleep(0.05)
    finally:
        for job in running.values():
            with_suppressed(os.killpg, job.pid, signal.SIGKILL)


def plan(chosen: Sequence[Safeguard], folder: Path, workers: int) -> list[Job]:
    """The jobs: the tests with the package as it is, by file, and one for each safeguard."""
    tests = sorted({test for safeguard in chosen for test in safeguard.tests})
    by_file: dict[str, list[str]] = {}
    for test in tests:
        by_file.setdefault(test.partition("::")[0], []).append(test)
    parts: list[list[str]] = [[] for _ in range(min(len(by_file), 2 * workers))]
    for several in sorted(by_file.values(), key=len, reverse=True):
        min(parts, key=len).extend(several)
    jobs = [Job(one.name, one.tests, one, folder / f"{i}") for i, one in enumerate(chosen)]
    whole = [Job(AS_IT_IS, part, None, folder / f"whole-{i}") for i, part in enumerate(parts)]
    return jobs + whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all safeguards when not given")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    options = parser.parse_args()
    chosen = [
        safeguard
        for safeguard in SAFEGUARDS
        if not options.names or any(part in safeguard.name for part in options.names)
    ]
    if not chosen:
        raise SystemExit(f"no safeguard is called {' or '.join(options.names)}")
    for safeguard in chosen:
        removed(safeguard)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended
    for name in LOADED:
        importlib.import_module(name)
    table = Table("safeguard", "module", "caught by", "s", title="Removed safeguards")
    console, bad = Console(), []
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory() as name, Progress(*columns, console=console) as bar:
        jobs = plan(chosen, Path(name), options.workers)
        task = bar.add_task("Removing safeguards", total=len(jobs))
        done = {}
        dataset = write_dataset(Path(name) / "dataset")
        for job in run_jobs(jobs, options.workers, dataset):
            bar.advance(task)
            done[job.folder] = job
            if verdict := job.verdict():
                bad.append(f"{job.name}: {verdict}")
                bar.console.print("FAULT:", bad[-1], markup=False, highlight=False)
            elif not console.is_terminal:
                print(f"caught: {job.name} ({job.seconds:.0f} s)", flush=True)
    for job in sorted(done.values(), key=lambda job: jobs.index(job)):
        if job.safeguard is not None:
            verdict = job.verdict()
            caught = Text(verdict, "red") if verdict else Text("\n".join(map(short, job.tests)))
            table.add_row(job.name, job.safeguard.file, caught, f"{job.seconds:.0f}")
    console.print(table)
    whole = "" if any(AS_IT_IS in line for line in bad) else "; all tests pass with it as it is"
    print(f"{len(chosen)} safeguards, {len(bad)} faults{whole}")
    for line in bad:
        print(line)
    raise SystemExit(bool(bad))


def short(test: str) -> str:
    file, _, name = test.partition("::")
    return f"{Path(file).stem.removeprefix('test_')}: {name.removeprefix('test_')}"


if __name__ == "__main__":
    main()
