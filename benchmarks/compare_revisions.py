"""Two revisions of the package side by side in one run: is the new one slower anywhere?

Each revision is checked out into a git worktree. Three processes on one core, old, new and old
again, take turns of some milliseconds each. A turn's clock is the CPU time of its process, and a
case's time is the mean of the fastest quarter of its turns: another program can only slow a turn
down, through the caches that it shares. All is repeated with new processes, since the layout of a
process's memory changes its speed for good; the table holds medians over them. The column
`old / old` compares the two processes of the old revision: as far as it is from 1, the other ratio
may be by chance.

    python benchmarks/compare_revisions.py OLD NEW
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

LEAST = 0.95  # of the old revision's speed
SHORTEST = 0.01  # seconds; a shorter case is repeated within a turn
IMPORT = "import taghead"
IMPORTS = 5  # turns of an import at most: each starts an interpreter
ROOT = Path(__file__).parents[1]
OPTIONS = {  # of operators that need some
    "APPNP": {"K": 2, "alpha": 0.1},
    "SSGConv": {"alpha": 0.1, "K": 2},
    "SGConv": {"K": 2},
    "TAGConv": {"K": 2},
    "ChebConv": {"K": 2},
    "GCN2Conv": {"alpha": 0.1},
    "GATConv": {"heads": 4},
    "GATv2Conv": {"heads": 4},
    "SuperGATConv": {"heads": 4},
    "TransformerConv": {"heads": 4},
    "GatedGraphConv": {"num_layers": 2},
    "GeneralConv": {"attention": True, "heads": 4},
    "RGCNConv": {"num_relations": 2},
    "FastRGCNConv": {"num_relations": 2},
    "FiLMConv": {"num_relations": 2},
    "RGATConv": {"num_relations": 2, "heads": 4, "concat": False},
}
PLAIN = (
    *("GCNConv", "ARMAConv", "MixHopConv", "LGConv", "SimpleConv", "ClusterGCNConv", "LEConv"),
    *("AGNNConv", "FAConv", "SAGEConv", "GraphConv", "GINConv", "GINEConv", "PNAConv", "GENConv"),
    *("EdgeConv", "ResGatedGraphConv"),
)


def operators() -> Iterator[str]:
    """The names of the operators that have a dense kernel."""
    yield from (*OPTIONS, *PLAIN)


def cases(video: str, names: list[str], batch_size: int, channels: int) -> dict[str, Callable]:
    """What is measured in one revision, by name."""
    import torch
    import torch_geometric.nn as pyg

    from taghead import INTRA_FRAME, TIME_ALIGNED, Grid, TAGHead
    from taghead.operators import as_operator, propagate, supports
    from taghead.video import Preprocessing

    torch.set_num_threads(1)
    torch.manual_seed(0)
    grid, relations = Grid(8, 7, 7), (INTRA_FRAME, TIME_ALIGNED)
    x = torch.randn(batch_size, grid.num_nodes, channels)

    def options(name: str) -> dict:
        if name == "PNAConv":
            histogram = torch.bincount(grid.typed_edges(relations)[0][1])
            deg = torch.bincount(histogram)
            return {"aggregators": ["mean", "max"], "scalers": ["identity"], "deg": deg}
        if name == "MixHopConv":
            return {"powers": [1]}
        return OPTIONS.get(name, {})

    def run_operator(conv: torch.nn.Module, training: bool) -> None:
        edge_attr = torch.ones(2, channels) if isinstance(conv, pyg.GINEConv) else None
        with torch.set_grad_enabled(training):
            given = x.clone().requires_grad_(training)
            out = propagate(conv, given, grid, relations, edge_attr=edge_attr, engine="dense")
            if training:
                out.sum().backward()

    def run_head(head: TAGHead, feature_map: torch.Tensor, training: bool) -> None:
        with torch.set_grad_enabled(training):
            logits = head(feature_map)
            if training:
                logits.sum().backward()

    found: dict[str, Callable] = {}
    for name in names:
        factory = as_operator(partial(getattr(pyg, name), **options(name)))
        conv = factory(channels, channels).eval()
        assert supports(conv)[0], f"{name} has no dense kernel"
        found[f"{name}, forward"] = partial(run_operator, conv, False)
        found[f"{name}, training"] = partial(run_operator, conv, True)
    feature_map = torch.randn(batch_size, 512, 8, 7, 7)
    heads = {"paper's head": TAGHead.paper("gym99"), "default head": TAGHead(512, 99, (8, 7, 7))}
    for name, head in heads.items():
        head.eval()
        found[f"{name}, forward"] = partial(run_head, head, feature_map, False)
        found[f"{name}, training"] = partial(run_head, head, feature_map, True)
    preprocessing = Preprocessing()
    found["Preprocessing.load, test"] = partial(preprocessing.load, video)
    found["Preprocessing.load, training"] = partial(preprocessing.load, video, train=True)
    return found


def serve(video: str, names: list[str], batch_size: int, channels: int) -> None:
    """Measures each case that standard input names for one turn, and answers with seconds."""
    found = cases(video, names, batch_size, channels)
    gc.collect()
    gc.freeze()  # a collection within a turn does not look at the modules
    print("\n".join(["cases", *found, "end"]), flush=True)
    repeats: dict[str, int] = {}
    for line in sys.stdin:
        name = line.rstrip("\n")
        if name not in repeats:
            found[name]()  # what is built once is built now
            repeats[name] = max(1, int(SHORTEST / max(_seconds(found[name], 1), 1e-6)))
        print(_seconds(found[name], repeats[name]), flush=True)


def _seconds(case: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one thread: other programs do not disturb them."""
    start = time.process_time()
    for _ in range(repeats):
        case()
    return (time.process_time() - start) / repeats


class Revision:
    """One revision's process."""

    def __init__(self, worktree: Path, options: list[str]) -> None:
        self.environment = os.environ | {"PYTHONPATH": str(worktree / "src")}
        command = [sys.executable, "-W", "ignore", __file__, "--serve", *options]
        self.process = subprocess.Popen(
            command,
            cwd=worktree,
            env=self.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        lines = iter(self.process.stdout.readline, "end\n")
        for line in lines:
            if line == "cases\n":
                break
        self.cases = [line.rstrip("\n") for line in lines]

    def measure(self, name: str) -> float:
        """Seconds of one case in one turn."""
        if name == IMPORT:
            return self._import_seconds()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(name, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"error: {name}: the process of {self.process.args} ended")
        return float(answer)

    def _import_seconds(self) -> float:
        """CPU seconds of a new interpreter that imports the package and its public names."""
        code = (
            "import resource, taghead; taghead.Grid, taghead.TAGHead, taghead.VideoClassifier;"
            "u = resource.getrusage(resource.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"
        )
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(
            command, env=self.environment, text=True, stdout=subprocess.PIPE, check=True
        )
        return float(done.stdout)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def worktree(revision: str, folder: Path) -> Iterator[Path]:
    """A revision of this repository in a folder of its own, or the checkout of that name."""
    if (Path(revision) / "src" / "taghead").is_dir():
        yield Path(revision).resolve()
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def write_video(path: Path) -> None:
    """Ninety frames of 320 x 240 in H.264, a bright square that moves."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for i in range(90):
            frame = np.full((240, 320, 3), 40, dtype=np.uint8)
            frame[80:140, 2 * i : 2 * i + 60] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


class Row(NamedTuple):
    """One case: seconds of both revisions and the ratios of speed."""

    name: str
    old: float
    new: float
    control: float  # old / old
    ratio: float  # old / new

    def __str__(self) -> str:
        cells = f"{self.old * 1e3:.3f} | {self.new * 1e3:.3f} | {self.control:.2f}"
        return f"| {self.name} | {cells} | {self.ratio:.2f} |"


def measure(name: str, sides: Sequence[Revision], turns: int) -> Row:
    """One case, measured by processes of the old, the new and again the old revision."""
    times: list[list[float]] = [[] for _ in sides]
    order = list(zip(times, sides, strict=True))
    for turn in range(turns + 1):
        for found, side in order:
            seconds = side.measure(name)
            if turn:  # the first one warms up
                found.append(seconds)
        order.reverse()
    old, new, again = (statistics.mean(sorted(found)[: -(-turns // 4)]) for found in times)
    both = (old + again) / 2
    return Row(name, both, new, old / again, both / new)


def median_of(rows: Iterable[Row]) -> Row:
    """The medians of one case's measurements."""
    name, *columns = zip(*rows, strict=True)
    return Row(name[0], *map(statistics.median, columns))


def compare(
    old: str, new: str, names: list[str], turns: int, processes: int, sizes: list[str]
) -> list[Row]:
    """All cases of two revisions, printed and returned."""
    found: dict[str, list[Row]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_video(folder / "clip.mp4")
        options = [str(folder / "clip.mp4"), *sizes, *names]
        before = stack.enter_context(worktree(old, folder / "old"))
        after = stack.enter_context(worktree(new, folder / "new"))
        for _ in range(processes):
            with ExitStack() as running:
                sides = [Revision(checkout, options) for checkout in (before, after, before)]
                for side in sides:
                    running.callback(side.close)
                for name in [IMPORT, *sides[1].cases]:
                    row = measure(name, sides, min(turns, IMPORTS) if name == IMPORT else turns)
                    found.setdefault(name, []).append(row)
                    if len(found[name]) == processes:
                        print(median_of(found[name]), flush=True)
    return [median_of(rows) for rows in found.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", help="a revision, as git names it, or the folder of a checkout")
    parser.add_argument("new", help="another; . is what is not committed yet")
    parser.add_argument("--turns", type=int, default=30, help="of each process, in each case")
    parser.add_argument("--processes", type=int, default=3, help="new ones of each revision")
    parser.add_argument("--operators", nargs="*", default=list(operators()))
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--channels", type=int, default=64)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # the processes share a core, and so its caches
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print("| case | old: ms | new: ms | old / old | old / new |", flush=True)
    print("| --- | --- | --- | --- | --- |", flush=True)
    sizes = [str(options.batch_size), str(options.channels)]
    revisions = options.old, options.new, options.operators
    rows = compare(*revisions, options.turns, options.processes, sizes)
    slower = [row.name for row in rows if row.ratio < LEAST]
    least = min(rows, key=lambda row: row.ratio)
    noise = max(abs(row.control - 1) for row in rows)
    print(
        f"\n{len(rows)} cases; the old revision differs from itself by up to {noise:.2f}; least "
        f"ratio {least.ratio:.2f} ({least.name}); below {LEAST}: {', '.join(slower) or 'none'}"
    )
    if slower:
        raise SystemExit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        video, batch_size, channels, *names = sys.argv[2:]
        serve(video, names, int(batch_size), int(channels))
    else:
        main()
