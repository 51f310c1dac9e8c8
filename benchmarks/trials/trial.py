"""One trial: a command is disturbed at a random moment, run again, and its result compared."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trials.commands import COMMANDS, SPLITS, Inputs, differences, prepare
from trials.disturbances import FULL, SIGNALS, TORN, Disturbance, enlarge, mount, tear, unmount
from trials.launch import Process, Server

if TYPE_CHECKING:
    from trials.pairs import Pair

END_SEC = 900.0  # a command that has not ended then hangs
SHOWN = 4  # differences of one trial that are named
FULL_MESSAGES = ("no space left on the disk", "must be free on its disk")
MAX_LINES = 3  # of an error message
TRIES = 4  # until the moment of a disturbance lies before the command's end
BLOCK = 4096  # bytes of a page of a disk


@dataclass(frozen=True)
class Trial:
    """What is disturbed, how, and the seed of when."""

    command: str
    disturbance: str
    seed: str


@dataclass
class Outcome:
    """What became of a trial.

    Args:
        command: The command, or what a pair is called.
        disturbance: What befell it.
        codes: Its exit code, and that of the same command afterwards.
        detail: When, and what to.
        faults: What was lost, left or wrong; empty if nothing.
    """

    command: str
    disturbance: str
    codes: str = ""
    detail: str = ""
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "; ".join(self.faults) or "right"
        return f"{self.command}: {self.disturbance} {self.detail}: {self.codes}: {verdict}"


def plan(
    number: int, seed: int, commands: Iterable[str] | None, disturbances: Iterable[str] | None
) -> list[Trial]:
    """That many trials: all commands in turn, each with all that can befall it in turn.

    `sweep`, whose runs take longest, has every second turn.
    """
    names = [name for name in COMMANDS if commands is None or name in commands]
    kinds: dict[str, list[str]] = {}
    for name in names:
        of = [kind.name for kind in SIGNALS if kind.is_for(COMMANDS[name])]
        every = [*of, TORN.name, FULL]
        kinds[name] = [kind for kind in every if disturbances is None or kind in disturbances]
        random.Random(f"{seed} {name}").shuffle(kinds[name])
    names = [name for name in names if kinds[name]]
    turns = names + [name for name in names if name != "sweep"]
    if not turns:
        raise ValueError("no command can be disturbed so")
    found: list[Trial] = []
    for i in range(number):
        name = turns[i % len(turns)]
        turn = sum(trial.command == name for trial in found)
        found.append(Trial(name, kinds[name][turn % len(kinds[name])], f"{seed} {i}"))
    return found


class Runner:
    """Runs trials in folders of their own.

    Args:
        root: Where the inputs, the references and the trials lie.
        server: What starts the commands.
    """

    def __init__(self, root: Path, server: Server) -> None:
        self.root = root
        self.server = server
        self.inputs = Inputs(root / "inputs")
        self.references: dict[str, dict[str, Any]] = {}
        self.durations_sec: dict[str, float] = {}

    def make_references(self, commands: Sequence[str]) -> None:
        """Makes the inputs, and what each command makes when nothing befalls it.

        Those that the root has already are taken as they are.
        """
        wanted = set(commands)
        durations = self.root / "durations.json"
        if durations.exists():
            for name, duration in json.loads(durations.read_text()).items():
                self.durations_sec[name] = duration
                self.references[name] = COMMANDS[name].content(self.root / name)
        if not self.inputs.root.exists():
            self._make_inputs()
        for name in sorted(wanted - set(self.references)):
            self._reference(name)
        durations.write_text(json.dumps(self.durations_sec))

    def _make_inputs(self) -> None:
        inputs = self.inputs
        inputs.root.mkdir(parents=True)
        splits = ",".join(f'"{name}":{size}' for name, size in SPLITS.items())
        self._whole(["generate", str(inputs.data), f"--splits={{{splits}}}"], "data")
        prepare(inputs)
        self._reference("fit")
        shutil.copy(next((self.root / "fit").rglob("best.ckpt")), inputs.model)
        self._reference("extract")
        shutil.copytree(self.root / "extract/out", inputs.cache)

    def make_half_trained(self) -> None:
        """A training that is killed after its first checkpoint, in the folder `half`."""
        half = self.root / "half"
        if half.exists():
            return
        process = self.start(COMMANDS["fit"].args(self.inputs), "half")
        while not list(half.rglob("last.ckpt")) and process.wait(0.01) is None:
            pass
        process.signal(signal.SIGKILL)
        process.wait(END_SEC)
        process.left_over()

    def _reference(self, name: str) -> None:
        command = COMMANDS[name]
        self.durations_sec[name] = self._whole(command.args(self.inputs), name)
        self.references[name] = command.content(self.root / name)

    def _whole(self, args: list[str], name: str) -> float:
        """Runs a command to its end, in a folder; the seconds that it took."""
        begin = time.monotonic()
        process = self.start(args, name)
        code = process.wait(END_SEC)
        if code != 0:
            raise RuntimeError(f"taghead {args[0]} ended with {code}; see {process.log}")
        return time.monotonic() - begin

    def start(self, args: list[str], name: str) -> Process:
        """Starts a command in a folder below the root; its log lies beside the folder."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        number = len(list(self.root.glob(f"{name}.*.log")))
        log = self.root / f"{name}.{number}.log"
        log.touch()  # the next one has another name
        return self.server.start(args, folder, log)

    def run(self, trial: Trial) -> Outcome:
        """A trial, from the disturbance to the comparison."""
        if trial.disturbance == FULL:
            return self._run_full(trial)
        draw = random.Random(trial.seed)
        kind = next(each for each in (*SIGNALS, TORN) if each.name == trial.disturbance)
        outcome = Outcome(trial.command, trial.disturbance)
        part = draw.uniform(0.05, 0.95)
        for attempt in range(TRIES):
            name = f"trial-{trial.command}-{trial.seed}-{attempt}".replace(" ", "-")
            process, code, done_to = self._disturbed(trial.command, kind, draw, part, name)
            is_late = bool(done_to) or (code == 0 and 0 not in kind.codes)
            if not is_late or attempt == TRIES - 1:
                break
            self._clear(name)
            part /= 2
        outcome.detail = f"at {part:.0%}" + (", too late" if is_late else "")
        if is_late:
            outcome.faults.append("not disturbed: it had ended")
        self._check_end(outcome, process, code, kind.codes)
        if kind is TORN:
            torn = tear(self.root / name, draw)
            outcome.detail += f", {' and '.join(torn) or 'nothing to tear'}"
            self._again(outcome, name, torn)
        elif code != 0:
            self._again(outcome, name)
        self._compare(outcome, name)
        return outcome

    def _disturbed(
        self, command: str, kind: Disturbance, draw: random.Random, part: float, name: str
    ) -> tuple[Process, int | None, str]:
        process = self.start(COMMANDS[command].args(self.inputs), name)
        code = process.wait(part * self.durations_sec[command])
        done_to = "had ended" if code is not None else kind.act(process, draw)
        return process, process.wait(END_SEC), done_to

    def _run_full(self, trial: Trial) -> Outcome:
        """A trial on a disk that is too small, and is then made larger."""
        draw = random.Random(trial.seed)
        outcome = Outcome(trial.command, trial.disturbance)
        reference = self.root / trial.command
        size = sum(path.stat().st_size for path in reference.rglob("*") if path.is_file())
        part = draw.uniform(0.1, 0.9)
        for attempt in range(TRIES):
            name = f"trial-{trial.command}-{trial.seed}-{attempt}".replace(" ", "-")
            folder = self.root / name
            folder.mkdir()
            if not mount(folder, max(BLOCK, int(part * size) // BLOCK * BLOCK)):
                outcome.detail = "not tried: mounting a disk is not permitted"
                return outcome
            process = self.start(COMMANDS[trial.command].args(self.inputs), name)
            code = process.wait(END_SEC)
            if code != 0:
                break
            unmount(folder)
            part /= 2
        outcome.detail = f"of {part:.0%}"
        try:
            self._check_end(outcome, process, code, {1})
            if code == 1 and not any(map(process.log.read_text().__contains__, FULL_MESSAGES)):
                outcome.faults.append("the message does not say that the disk is full")
            enlarge(folder)
            if code != 0:
                self._again(outcome, name)
            self._compare(outcome, name)
        finally:
            unmount(folder)
        return outcome

    def _again(self, outcome: Outcome, name: str, torn: Sequence[str] = ()) -> None:
        """Runs the same command again, until it ends well.

        Where it refuses a torn file by name, the file is removed, as a user would.
        """
        for _ in range(1 + len(torn)):
            process = self.start(COMMANDS[outcome.command].args(self.inputs), name)
            code = process.wait(END_SEC)
            text = process.log.read_text(errors="replace")
            refused = [file for file in torn if code == 1 and file in message(text)]
            self._check_end(outcome, process, code, {1} if refused else {0})
            for file in refused:
                (self.root / name / file).unlink()
                outcome.detail += f", {file} refused"
            if not refused:
                break

    def _check_end(
        self, outcome: Outcome, process: Process, code: int | None, codes: Iterable[int]
    ) -> None:
        """Whether a command ended as it should: code, message, no process that lives on."""
        outcome.codes = f"{outcome.codes}, {code}".lstrip(", ")
        if code is None:
            outcome.faults.append(f"has not ended after {END_SEC:.0f} s")
        elif code not in codes:
            outcome.faults.append(f"exit code {code} in place of {sorted(codes)}")
        if left := process.left_over():
            outcome.faults.append(f"{len(left)} processes live on")
        text = process.log.read_text(errors="replace")
        if "Traceback" in text or "Fatal Python" in text:
            outcome.faults.append(f"a traceback: {text.strip().splitlines()[-1][:200]}")
        elif code == 1 and not 0 < len(message(text).splitlines()) <= MAX_LINES:
            outcome.faults.append("no message of one to three lines")
        elif code == 1:
            outcome.detail += f" ({message(text)[:300]})".replace(str(self.root), "")

    def _compare(self, outcome: Outcome, name: str) -> None:
        """Compares with the reference, and looks for what should not be left."""
        folder = self.root / name
        content = COMMANDS[outcome.command].content
        outcome.faults += compared(folder, content, self.references[outcome.command])
        if not outcome.faults:
            self._clear(name)

    def _clear(self, name: str) -> None:
        shutil.rmtree(self.root / name, ignore_errors=True)
        for log in self.root.glob(f"{name}.*.log"):
            log.unlink()

    def run_pair(self, pair: Pair, number: int) -> Outcome:
        """Two commands at once in one folder, then a third where one was refused."""
        name = f"pair-{pair.name}-{number}".replace(" ", "-")
        outcome = Outcome(pair.name, "two at once")
        pair.prepare(self, self.root / name)
        processes = [self.start(args, name) for args in pair.commands(self.inputs)]
        codes = [process.wait(END_SEC) for process in processes]
        for process, code in zip(processes, codes, strict=True):
            self._check_end(outcome, process, code, pair.codes)
        outcome.codes = ", ".join(map(str, sorted(code or 0 for code in codes)))
        if 0 not in codes:
            outcome.faults.append("none ended well")
        outcome.faults += pair.check(self, self.root / name, codes)
        if not outcome.faults:
            self._clear(name)
        return outcome


def message(text: str) -> str:
    """The error message at the end of a log."""
    start = text.rfind("error: ")
    return text[start:].strip() if start >= 0 else ""


def compared(
    folder: Path, content: Callable[[Path], dict[str, Any]], wanted: dict[str, Any]
) -> list[str]:
    """What differs in a folder from the reference, or is left half-written."""
    try:
        faults = differences(content(folder), wanted)[:SHOWN]
    except Exception as error:  # of any file that is missing or broken
        faults = [f"{type(error).__name__}: {error}"]
    left = [path.name for path in folder.rglob(".unfinished-*")]
    return faults + [f"left: {name}" for name in left[:SHOWN]]
