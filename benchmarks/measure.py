"""Time and memory of several ways to do one thing, side by side in one run."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch_geometric

Way = Callable[[], object]
SHORTEST = 0.02  # seconds; a shorter way is repeated within a round
NONE = "-"  # a cell without a value


def _clock(device: torch.device) -> float:
    """Seconds of wall time, once a GPU has finished; on one CPU thread, of CPU time.

    CPU time is a clock that other programs do not disturb, but it says nothing of threads.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def _seconds(way: Way, repeats: int, device: torch.device) -> float:
    start = _clock(device)
    for _ in range(repeats):
        way()
    return (_clock(device) - start) / repeats


def times_in_turns(
    ways: Mapping[str, Way], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each way in every round; a round runs all ways, one after the other.

    Args:
        ways: What to run, by name; each has run before, so that nothing is built or compiled now.
        rounds: Number of rounds.
        device: Where they run.
    """
    repeats = {
        name: max(1, int(SHORTEST / max(_seconds(way, 1, device), 1e-6)))
        for name, way in ways.items()
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(_seconds(way, repeats[name], device))
    return times


def ratio(times: Mapping[str, Sequence[float]], slow: str, fast: str) -> float:
    """The median over the rounds of one way's time divided by another's."""
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    """Three digits, or a dash where there is no value."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def publish(output: Path | None, name: str, text: str) -> None:
    """Prints a report, and writes it as one section of `RESULTS.md`, if there is a folder for it.

    Args:
        output: The folder.
        name: The section; one of this name is replaced.
        text: What it says.
    """
    print(text, flush=True)
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    path = output / "RESULTS.md"
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{first}\n{text}\n{last}\n"
    old = path.read_text() if path.exists() else "# Results\n"
    if first in old:
        before, _, rest = old.partition(first)
        section = before + section + rest.partition(f"{last}\n")[2]
    else:
        section = f"{old}\n{section}"
    path.write_text(section)


def circumstances(device: torch.device) -> str:
    """The command, the versions, the machine and the clock, as a Markdown list."""
    versions = f"torch {torch.__version__}, PyG {torch_geometric.__version__}"
    scatter = "with" if torch_geometric.typing.WITH_TORCH_SCATTER else "without"
    command = " ".join([f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
        clock = "wall time, the GPU synchronised"
    else:
        machine = f"{_processor()}, {os.cpu_count()} cores"
        threads = torch.get_num_threads()
        clock = (
            "CPU time of the process, one thread"
            if threads == 1
            else f"wall time, {threads} threads, an idle machine"
        )
    missing = not torch.cuda.is_available()
    no_gpu = "\n- no GPU was at hand: none has a table here" if missing else ""
    return (
        f"- `python {command}`\n- Python {platform.python_version()}, {versions}, {scatter} "
        f"torch-scatter\n- {machine}\n- {clock}; medians of the ratios of each round{no_gpu}"
    )


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
