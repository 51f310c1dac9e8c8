"""PyG's operators on a grid of tokens: the dense engine beside PyG's own ways to run them.

Prints Markdown tables, and with --output writes them to a folder, with a picture of the growth.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from measure import (
    NONE,
    Way,
    circumstances,
    number,
    publish,
    ratio,
    table,
    times_in_turns,
)
from torch import Tensor, nn
from torch_geometric.nn import (
    APPNP,
    EdgeConv,
    GATConv,
    GATv2Conv,
    GCNConv,
    GENConv,
    GINConv,
    GINEConv,
    GraphConv,
    MessagePassing,
    ResGatedGraphConv,
    SAGEConv,
    SGConv,
    TAGConv,
    TransformerConv,
)
from torch_geometric.utils import to_torch_csr_tensor

from taghead.graph import RELATIONS, Grid, repeat_edges
from taghead.graph.edge_features import EdgeFeatures, OffsetFeatures
from taghead.model.costs import peak_bytes
from taghead.nn.edge_features import RelativeFeatures
from taghead.operators import propagate

Run = Callable[[Tensor], Tensor]
HEADS = 4
DENSE, PYG, CSR = "dense", "PyG", "CSR"
PYG_COMPILED, DENSE_COMPILED = "PyG compiled", "dense compiled"
LAYERS_ALONE = "linear layers alone"


def network(inputs: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, channels), nn.ReLU(), nn.Linear(channels, channels))


OPERATORS: dict[str, Callable[[int], MessagePassing]] = {
    "APPNP": lambda c: APPNP(K=2, alpha=0.1),
    "GCNConv": lambda c: GCNConv(c, c),
    "SGConv": lambda c: SGConv(c, c, K=2),
    "TAGConv": lambda c: TAGConv(c, c, K=2),
    "SAGEConv": lambda c: SAGEConv(c, c),
    "SAGEConv max": lambda c: SAGEConv(c, c, aggr="max"),
    "GraphConv": lambda c: GraphConv(c, c),
    "GINConv": lambda c: GINConv(network(c, c)),
    "GATConv": lambda c: GATConv(c, c // HEADS, HEADS),
    "GATv2Conv": lambda c: GATv2Conv(c, c // HEADS, HEADS),
    "TransformerConv": lambda c: TransformerConv(c, c // HEADS, HEADS),
    "ResGatedGraphConv": lambda c: ResGatedGraphConv(c, c),
    "GENConv": lambda c: GENConv(c, c),
    "EdgeConv": lambda c: EdgeConv(network(2 * c, c)),
}
WITH_EDGES: dict[str, Callable[[int, int], MessagePassing]] = {  # of tokens' and edges' width
    "TransformerConv": lambda c, d: TransformerConv(c, c // HEADS, HEADS, edge_dim=d),
    "GATConv": lambda c, d: GATConv(c, c // HEADS, HEADS, edge_dim=d),
    "GATv2Conv": lambda c, d: GATv2Conv(c, c // HEADS, HEADS, edge_dim=d),
    "GENConv": lambda c, d: GENConv(c, c, edge_dim=d),
    "GINEConv": lambda c, d: GINEConv(network(c, c), edge_dim=d),
    "ResGatedGraphConv": lambda c, d: ResGatedGraphConv(c, c, edge_dim=d),
}
# SGConv and TAGConv take one too, but would normalise it at every forward
TAKE_CSR = ("APPNP", "GCNConv", "SAGEConv", "SAGEConv max", "GraphConv", "GINConv")
LINEAR = tuple(name for name in TAKE_CSR if name != "SAGEConv max")
# what a linear operator does beside aggregating, which no way to aggregate can spare
LAYERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "GCNConv": lambda conv, x: conv.lin(x),
    "SAGEConv": lambda conv, x: conv.lin_l(x) + conv.lin_r(x),
    "GraphConv": lambda conv, x: conv.lin_rel(x) + conv.lin_root(x),
    "GINConv": lambda conv, x: conv.nn(x),
}
GROWING = ("APPNP", "GCNConv", "SAGEConv max", "GATv2Conv", "TransformerConv")


class Setting(NamedTuple):
    """What is measured: a grid, and how many clips of which width on which device."""

    grid: Grid
    batch_size: int
    channels: int
    device: torch.device

    @property
    def num_edges(self) -> int:
        """Edges of the whole batch."""
        return self.batch_size * sum(self.grid.edge_index(r).size(1) for r in RELATIONS)

    def edge_index(self) -> Tensor:
        """The edges of the whole batch, sorted by target."""
        edge_index, _ = self.grid.typed_edges(RELATIONS)
        return repeat_edges(edge_index, self.batch_size, self.grid.num_nodes).to(self.device)

    def tokens(self) -> Tensor:
        size = (self.batch_size, self.grid.num_nodes, self.channels)
        return torch.randn(size, device=self.device)


class Measured(NamedTuple):
    """One operator's ways in one setting and one mode.

    Args:
        times: Seconds of each way in every round.
        memory: Peak bytes of each way.
    """

    times: dict[str, list[float]]
    memory: dict[str, int]

    def compared(self, way: str, base: str = DENSE) -> str:
        """How many times longer a way takes, and how many times more memory, than another."""
        if way not in self.times:
            return NONE
        memory = self.memory[way] / max(self.memory[base], 1)
        return f"{number(ratio(self.times, way, base))}, {number(memory)}"

    def absolute(self, way: str) -> str:
        """Milliseconds and MiB."""
        if way not in self.times:
            return NONE
        return f"{number(median(self.times[way]) * 1e3)}, {number(self.memory[way] / 2**20)}"


def on_edge_list(conv: MessagePassing, edges: Tensor, x: Tensor) -> Tensor:
    """PyG as a user writes it: a batch's edges, made once, and the module called."""
    return conv(x.flatten(0, 1), edges).unflatten(0, x.shape[:2])


def densely(conv: MessagePassing, grid: Grid, x: Tensor) -> Tensor:
    return propagate(conv, x, grid, RELATIONS, engine="dense")


def csr_adjacency(setting: Setting) -> Tensor:
    """The batch's transposed adjacency, as PyG's sparse products take it."""
    size = setting.batch_size * setting.grid.num_nodes
    return to_torch_csr_tensor(setting.edge_index().flip(0), size=(size, size))


def with_cache(conv: MessagePassing) -> MessagePassing:
    """A copy that keeps its normalised adjacency, if it can: the fastest that PyG offers."""
    conv = copy.deepcopy(conv)
    if hasattr(conv, "cached"):
        conv.cached = True
    return conv


def eager_ways(name: str, conv: MessagePassing, setting: Setting) -> dict[str, Run]:
    ways = {
        DENSE: partial(densely, conv, setting.grid),
        PYG: partial(on_edge_list, conv, setting.edge_index()),
    }
    if name in TAKE_CSR:
        ways[CSR] = partial(on_edge_list, with_cache(conv), csr_adjacency(setting))
    return ways


def compiled_ways(conv: MessagePassing, setting: Setting) -> dict[str, Run]:
    torch.compiler.reset()
    module = torch.compile(copy.deepcopy(conv), dynamic=False)
    dense = torch.compile(partial(densely, conv, setting.grid), fullgraph=True, dynamic=False)
    return {
        PYG_COMPILED: partial(on_edge_list, module, setting.edge_index()),
        DENSE_COMPILED: dense,
    }


def parameters_of(run: Run) -> list[nn.Parameter]:
    """The parameters of the operators that a way holds."""
    held = run.args if isinstance(run, partial) else ()
    return [p for module in held if isinstance(module, nn.Module) for p in module.parameters()]


def forward_only(run: Run, x: Tensor) -> Way:
    def way() -> Tensor:
        with torch.no_grad():
            return run(x)

    return way


def forward_and_backward(run: Run, x: Tensor, grad: Tensor, parameters: list) -> Way:
    """One step of training; gradients are made anew each time."""
    x = x.clone().requires_grad_()

    def way() -> None:
        for leaf in (x, *parameters):
            leaf.grad = None
        run(x).backward(grad)

    return way


def works(name: str, way: str, run: Run, x: Tensor, expected: Tensor) -> bool:
    """Runs a way for the first time; False, with the reason printed, where it does not compile.

    Raises:
        ValueError: If its output is not what it should be.
    """
    try:
        with torch.no_grad():
            out = run(x)
    except Exception as error:
        if way not in (PYG_COMPILED, DENSE_COMPILED):
            raise
        print(f"{name}, {way}: {type(error).__name__}: {str(error).splitlines()[0]}")
        return False
    error = float((out - expected).abs().max() / expected.abs().max())
    if error > 1e-4 and way != LAYERS_ALONE:
        raise ValueError(f"{name}: {way} differs from dense by {error:.1e}")
    return True


def measure(
    name: str, runs: Mapping[str, Run], setting: Setting, backward: bool, rounds: int
) -> Measured:
    """Time and memory of an operator's ways, in turns."""
    x, device = setting.tokens(), setting.device
    expected = forward_only(runs[DENSE], x)()
    runs = {way: run for way, run in runs.items() if works(name, way, run, x, expected)}
    parameters = [p for run in runs.values() for p in parameters_of(run)]
    grad = torch.randn_like(expected)
    ways = {
        way: forward_and_backward(run, x, grad, parameters) if backward else forward_only(run, x)
        for way, run in runs.items()
    }
    memory = {way: peak_bytes(run, device) for way, run in ways.items()}
    return Measured(times_in_turns(ways, rounds, device), memory)


def compare_all(
    names: list[str], setting: Setting, rounds: int, compiled: bool
) -> Iterator[tuple[str, str]]:
    """Every operator in one setting: a table for the forward pass and one with the backward."""
    header = ["operator", "dense: ms, MiB", PYG, CSR]
    if compiled:
        header += ["PyG compiled", "dense compiled", "PyG to dense compiled"]
    rows: dict[bool, list[list[str]]] = {False: [], True: []}
    for name in names:
        conv = OPERATORS[name](setting.channels).to(setting.device)
        runs = eager_ways(name, conv, setting)
        if compiled:
            runs |= compiled_ways(conv, setting)
        for backward, found in rows.items():
            result = measure(name, runs, setting, backward, rounds)
            row = [name, result.absolute(DENSE), *map(result.compared, (PYG, CSR))]
            if compiled:
                row += [result.compared(PYG_COMPILED), result.compared(DENSE_COMPILED)]
                is_there = DENSE_COMPILED in result.times
                row.append(result.compared(PYG, DENSE_COMPILED) if is_there else NONE)
            found.append(row)
            print(" ".join(row), flush=True)
    yield "Forward", table(header, rows[False])
    yield "Forward and backward", table(header, rows[True])


def with_edge_features(
    conv: MessagePassing, grid: Grid, features: EdgeFeatures, engine: Any, x: Tensor
) -> Tensor:
    return propagate(conv, x, grid, RELATIONS, edge_features=features, engine=engine)


def compare_edge_features(setting: Setting, rounds: int) -> str:
    """Operators with offsets, and with a learned table of them, densely and through PyG."""
    grid, rows = setting.grid, []
    for name, build in WITH_EDGES.items():
        for kind, features in (
            ("offset", OffsetFeatures()),
            ("relative", RelativeFeatures(grid, len(RELATIONS))),
        ):
            conv = build(setting.channels, features.out_channels).to(setting.device)
            given = conv, grid, features.to(setting.device)
            runs = {
                way: partial(with_edge_features, *given, engine)
                for way, engine in ((DENSE, "dense"), (PYG, "pyg"))
            }
            row = [f"{name}, {kind}"]
            for backward in (False, True):
                result = measure(name, runs, setting, backward, rounds)
                row += [result.absolute(DENSE), result.compared(PYG)]
            rows.append(row)
            print(" ".join(row), flush=True)
    header = ["operator, features"]
    for mode in ("forward", "and backward"):
        header += [f"{mode}, dense: ms, MiB", f"{PYG}, {mode}"]
    return table(header, rows)


def compare_csr(names: list[str], setting: Setting, rounds: int) -> str:
    """The linear operators beside sparse products alone, where PyG's edge lists are too large.

    The time of an operator's own linear layers, which every way has, bounds what can be gained.
    """
    rows = []
    for name in names:
        conv = OPERATORS[name](setting.channels).to(setting.device)
        runs = {
            DENSE: partial(densely, conv, setting.grid),
            CSR: partial(on_edge_list, with_cache(conv), csr_adjacency(setting)),
        }
        if name in LAYERS:
            runs[LAYERS_ALONE] = partial(LAYERS[name], conv)
        results = [measure(name, runs, setting, backward, rounds) for backward in (False, True)]
        bounds = [
            number(ratio(r.times, CSR, LAYERS_ALONE)) if name in LAYERS else NONE for r in results
        ]
        rows.append([name])
        for result, bound in zip(results, bounds, strict=True):
            rows[-1] += [result.absolute(DENSE), result.compared(CSR), bound]
        print(" ".join(rows[-1]), flush=True)
    header = ["operator"]
    for mode in ("forward", "and backward"):
        header += [f"{mode}, dense: ms, MiB", f"{CSR}, {mode}", "at most, by its linear layers"]
    return table(header, rows)


class Growth(NamedTuple):
    """One operator on one grid, forward."""

    name: str
    setting: Setting
    result: Measured
    skipped: dict[str, float]  # bytes that a way would need, about


def grow(
    names: list[str], grids: list[Grid], setting: Setting, rounds: int, limit: float
) -> list[Growth]:
    """Operators on larger and larger grids; what would need more memory is left out.

    Args:
        names: The operators.
        grids: The grids, the smallest first.
        setting: Batch size, width and device.
        rounds: Number of rounds.
        limit: Bytes that a way may need, as told by its need on the grid before.
    """
    found = []
    for name in names:
        per_edge: dict[str, float] = {}
        conv = OPERATORS[name](setting.channels).to(setting.device)
        for grid in grids:
            here = setting._replace(grid=grid)
            needs = {way: bytes_ * here.num_edges for way, bytes_ in per_edge.items()}
            skipped = {way: need for way, need in needs.items() if need > limit and way == PYG}
            runs = eager_ways(name, conv, here)
            runs = {way: run for way, run in runs.items() if way not in skipped}
            result = measure(name, runs, here, False, rounds)
            per_edge |= {way: peak / here.num_edges for way, peak in result.memory.items()}
            found.append(Growth(name, here, result, skipped))
            print(name, grid, *map(result.absolute, runs), flush=True)
    return found


def growth_table(found: list[Growth]) -> str:
    rows = []
    for name, setting, result, skipped in found:
        cells = {way: result.absolute(way) for way in (DENSE, PYG, CSR)}
        cells |= {way: f"needs about {need / 2**30:.0f} GiB" for way, need in skipped.items()}
        rows.append([name, size_of(setting.grid), str(setting.grid.num_nodes)])
        rows[-1] += [str(setting.num_edges), *cells.values()]
    return table(["operator", "grid", "nodes", "edges", DENSE, PYG, CSR], rows)


def draw_growth(found: list[Growth], path: Path) -> None:
    """Time and memory over the number of nodes, both logarithmic."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(growth.name for growth in found))
    figure = Figure(figsize=(3 * len(names), 5.4), layout="constrained")
    axes = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    styles = {DENSE: "o-C0", PYG: "s--C3", CSR: "^:C2"}
    for column, name in zip(axes.T, names, strict=True):
        for way, style in styles.items():
            points = [
                (g.setting.grid.num_nodes, median(g.result.times[way]) * 1e3, g.result.memory[way])
                for g in found
                if g.name == name and way in g.result.times
            ]
            if points:
                nodes, ms, memory = zip(*points, strict=True)
                column[0].loglog(nodes, ms, style, label=way)
                column[1].loglog(nodes, [bytes_ / 2**20 for bytes_ in memory], style)
        column[0].set_title(name)
        column[0].legend(frameon=False)
        column[1].set_xlabel("nodes")
    axes[0, 0].set_ylabel("forward, ms")
    axes[1, 0].set_ylabel("peak extra memory, MiB")
    figure.savefig(path, dpi=110)


def size_of(grid: Grid) -> str:
    return f"{grid.frames}x{grid.height}x{grid.width}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, default=list(OPERATORS))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--threads", type=int, default=1, help="more than one: wall time, on an idle machine"
    )
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit-gib", type=float, default=4.0, help="of one way, in the growth")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--output", type=Path, help="folder for RESULTS.md and the picture")
    args = parser.parse_args()
    if args.quick:
        args.batch_size, args.channels, args.rounds, args.no_compile = 2, 8, 1, True
    return args


def sizes(quick: bool) -> tuple[Grid, Grid, list[Grid]]:
    """The grid of the comparison, that of the comparison with CSR alone, and those of growth."""
    if quick:
        return Grid(2, 2, 2), Grid(2, 3, 3), [Grid(2, 2, 2), Grid(2, 3, 3)]
    growing = [(4, 7, 7), (8, 7, 7), (8, 14, 14), (16, 14, 14), (16, 28, 28)]
    return Grid(8, 7, 7), Grid(8, 14, 14), [Grid(*size) for size in growing]


def main() -> None:
    args = arguments()
    warnings.filterwarnings("ignore")  # torch: sparse CSR tensors are in beta
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    grid, larger, growing = sizes(args.quick)
    setting = Setting(grid, args.batch_size, args.channels, device)
    parts = [
        "## Operators",
        circumstances(device),
        f"{args.batch_size} clips, {args.channels} channels, the union of both relations. A cell "
        "says how many times more time and how many times more peak extra memory a way takes than "
        "dense. PyG: the module on a batch's edge list, which is made once. CSR: a sparse "
        "adjacency, made and normalised once, where the operator takes one.",
    ]
    for title, text in compare_all(args.operators, setting, args.rounds, not args.no_compile):
        parts += [f"### {title}, {size_of(grid)}", text]
    linear = [name for name in args.operators if name in LINEAR]
    against_csr = compare_csr(linear, setting._replace(grid=larger), args.rounds)
    parts += [f"### Linear operators and sparse products, {size_of(larger)}", against_csr]
    parts += [f"### With edge features, {size_of(grid)}"]
    parts += [compare_edge_features(setting, args.rounds)]
    names = [name for name in args.operators if name in GROWING]
    one_clip = setting._replace(batch_size=1)
    found = grow(names, growing, one_clip, args.rounds, args.limit_gib * 2**30)
    parts += [
        "### Growth with the grid, one clip, forward",
        "Milliseconds and MiB. PyG is left out where it would need more than "
        f"{args.limit_gib:g} GiB.",
        growth_table(found),
    ]
    if args.output and found:
        args.output.mkdir(parents=True, exist_ok=True)
        draw_growth(found, args.output / "growth.png")
        parts.append("![time and memory over the number of nodes](growth.png)")
    publish(args.output, "operators", "\n\n".join(parts))


if __name__ == "__main__":
    main()
