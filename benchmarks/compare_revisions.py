"""Two revisions of the package side by side in one run: is the new one slower anywhere?

Each revision is checked out into a git worktree and measured by a process of its own; the two
processes take turns, old, new, old, new. Prints a Markdown table of the medians of the ratios.

    python benchmarks/compare_revisions.py OLD NEW
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

LEAST = 0.95  # of the old revision's speed
SHORTEST = 0.05  # seconds; a shorter case is repeated within a measurement
IMPORT = "import taghead"
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
    """Measures each case that standard input names, and answers with seconds."""
    found = cases(video, names, batch_size, channels)
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
        """Seconds of one case."""
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
    """A revision of this repository in a folder of its own."""
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


def compare(old: str, new: str, names: list[str], rounds: int, sizes: list[str]) -> list[tuple]:
    """The name, both times and the median ratio old/new of every case."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_video(folder / "clip.mp4")
        options = [str(folder / "clip.mp4"), *sizes, *names]
        with worktree(old, folder / "old") as before, worktree(new, folder / "new") as after:
            sides = [Revision(place, options) for place in (before, after)]
            try:
                for name in [IMPORT, *sides[1].cases]:
                    times: tuple[list[float], list[float]] = ([], [])
                    for i in range(rounds + 1):
                        for found, side in zip(times, sides, strict=True):
                            seconds = side.measure(name)
                            if i:  # the first turn warms up
                                found.append(seconds)
                    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
                    rows.append((name, *map(statistics.median, times), ratio))
                    print(
                        f"| {name} | {rows[-1][1] * 1e3:.2f} | {rows[-1][2] * 1e3:.2f} |"
                        f" {ratio:.2f} |",
                        flush=True,
                    )
            finally:
                for side in sides:
                    side.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", help="a revision, as git names it")
    parser.add_argument("new", help="another")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--operators", nargs="*", default=list(operators()))
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--channels", type=int, default=64)
    options = parser.parse_args()
    print("| case | old: ms | new: ms | old / new |\n| --- | --- | --- | --- |", flush=True)
    sizes = [str(options.batch_size), str(options.channels)]
    rows = compare(options.old, options.new, options.operators, options.rounds, sizes)
    slower = [name for name, _, _, ratio in rows if ratio < LEAST]
    least = min(rows, key=lambda row: row[-1])
    print(
        f"\n{len(rows)} cases, CPU time of one thread, medians of {options.rounds} turns; least "
        f"ratio {least[-1]:.2f} ({least[0]}); below {LEAST}: {', '.join(slower) or 'none'}"
    )
    if slower:
        raise SystemExit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        video, batch_size, channels, *names = sys.argv[2:]
        serve(video, names, int(batch_size), int(channels))
    else:
        main()
