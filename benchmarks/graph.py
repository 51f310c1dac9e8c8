"""Building a batch of graphs, and running the paper's graph stage, in two ways side by side.

Prints a Markdown table of ratios: how many times faster the package is than a loop over clips.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.nn import APPNP

from taghead.graph import to_data, to_tokens
from taghead.grid import RELATIONS, Grid
from taghead.operators import propagate


def paired_times(
    slow: Callable[[], object], fast: Callable[[], object], rounds: int
) -> Iterable[tuple[float, float]]:
    """Seconds of both, taken in turns, after one round to warm up."""
    for number in range(rounds + 1):
        times = []
        for function in (slow, fast):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        if number:
            yield times[0], times[1]


def compare(
    title: str, slow: Callable[[], object], fast: Callable[[], object], rounds: int
) -> None:
    times = list(paired_times(slow, fast, rounds))
    slow_ms, fast_ms = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    ratio = statistics.median(one / other for one, other in times)
    print(f"| {title} | {slow_ms:.1f} | {fast_ms:.1f} | {ratio:.1f} |", flush=True)


def list_of_graphs(x: Tensor, grid: Grid, edge_index: Tensor, edge_type: Tensor) -> Batch:
    pos = grid.positions().to(x)
    return Batch.from_data_list(
        [Data(x=clip, edge_index=edge_index, edge_type=edge_type, pos=pos) for clip in x]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    appnp = APPNP(K=2, alpha=0.1)
    print("| task (grid) | loop over clips, ms | taghead, ms | ratio |")
    print("|---|---|---|---|")
    for size in ((4, 7, 7), (8, 7, 7)):
        grid = Grid(*size)
        edge_index, edge_type = grid.typed_edges(RELATIONS)
        feature_map = torch.randn(args.batch_size, args.channels, *size)
        x = to_tokens(feature_map)

        def paper(x: Tensor = x, grid: Grid = grid) -> Tensor:
            batch = list_of_graphs(x, grid, *grid.typed_edges(RELATIONS))
            return appnp(batch.x, batch.edge_index)

        name = "x".join(map(str, size))
        compare(
            f"batch of graphs ({name})",
            lambda x=x, g=grid, e=edge_index, t=edge_type: list_of_graphs(x, g, e, t),
            lambda f=feature_map: to_data(f),
            args.rounds,
        )
        compare(
            f"APPNP on the union ({name})",
            paper,
            lambda x=x, g=grid: propagate(appnp, x, g, RELATIONS),
            args.rounds,
        )


if __name__ == "__main__":
    main()
