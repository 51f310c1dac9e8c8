"""The paper's head, whole, and its graph stage alone, beside the paper's own way to run them.

Prints a Markdown table, and with --output adds it to RESULTS.md in a folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from measure import (
    Way,
    circumstances,
    number,
    publish,
    ratio,
    table,
    times_in_turns,
)
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import APPNP, global_mean_pool

from taghead import TAGHead
from taghead.graph import RELATIONS, Grid, grid_of, to_tokens
from taghead.model.costs import peak_bytes

OURS, PAPER = "taghead", "the paper's way"
Stage = Callable[[Tensor], Tensor]


class PaperHead:
    """The paper's head as its authors run it: a graph for each clip, batched at every forward.

    It has the head's positions and classifier, and its Transformer as torch makes it.

    Args:
        head: The head.
        edge_index: The edges of one clip.
    """

    def __init__(self, head: TAGHead, edge_index: Tensor) -> None:
        self.head = head
        self.encoder = torch_encoder(head)
        self.edge_index = edge_index
        self.appnp = APPNP(K=2, alpha=0.1)

    def pooled(self, x: Tensor) -> Tensor:
        """The graph stage: tokens `[B, N, C]` -> `[B, C]`."""
        graphs = Batch.from_data_list([Data(x=clip, edge_index=self.edge_index) for clip in x])
        return global_mean_pool(self.appnp(graphs.x, graphs.edge_index), graphs.batch)

    def logits(self, feature_map: Tensor) -> Tensor:
        x = self.head.positions(to_tokens(feature_map), grid_of(feature_map))
        x = self.encoder.train(self.head.training)(x)
        return self.head.classifier(self.pooled(x))


def frames_of(head: TAGHead, x: Tensor, grid: Grid) -> Tensor:
    """What the readout sees, by frame: tokens `[B, N, C]` -> `[B, T, P, C]`."""
    return head.refine(x, grid, all_tokens=False).unflatten(1, (grid.frames, -1))


def torch_encoder(head: TAGHead) -> nn.TransformerEncoder:
    """torch's own Transformer of the paper, with the same parameters."""
    first = head.encoder.layers[0]
    layer = nn.TransformerEncoderLayer(
        head.in_channels,
        first.self_attn.num_heads,
        first.linear1.out_features,
        first.dropout.p,
        batch_first=True,
    )
    encoder = nn.TransformerEncoder(layer, len(head.encoder.layers), enable_nested_tensor=False)
    encoder.load_state_dict(head.encoder.state_dict())
    return encoder.to(next(head.parameters()).device)


def without_gradients(stage: Stage, x: Tensor) -> Way:
    def way() -> Tensor:
        with torch.no_grad():
            return stage(x)

    return way


def with_gradients(stage: Stage, x: Tensor, parameters: list[nn.Parameter]) -> Way:
    x = x.clone().requires_grad_()

    def way() -> None:
        for leaf in (x, *parameters):
            leaf.grad = None
        stage(x).square().sum().backward()

    return way


def compare(title: str, ways: dict[str, Way], rounds: int, device: torch.device) -> list[str]:
    """One row: milliseconds, MiB and ratios."""
    peaks = {name: peak_bytes(way, device) for name, way in ways.items()}
    times = times_in_turns(ways, rounds, device)
    row = [title]
    for name in (PAPER, OURS):
        row.append(f"{number(median(times[name]) * 1e3)}, {number(peaks[name] / 2**20)}")
    row += [number(ratio(times, PAPER, OURS)), number(peaks[PAPER] / max(peaks[OURS], 1))]
    print(" ".join(row), flush=True)
    return row


def check_equal(stages: dict[str, Stage], x: Tensor) -> None:
    """Raises an error if the two ways do not give the same numbers."""
    with torch.no_grad():
        ours, paper = (stages[name](x) for name in (OURS, PAPER))
    error = float((ours - paper).abs().max() / paper.abs().max())
    if error > 1e-4:
        raise ValueError(f"the two ways differ by {error:.1e}")


def rows(head: TAGHead, feature_map: Tensor, rounds: int) -> list[list[str]]:
    """Whole head and graph stage, forward in evaluation, forward and backward in training."""
    grid, device = grid_of(feature_map), feature_map.device
    paper = PaperHead(head, grid.typed_edges(RELATIONS)[0].to(device))
    with torch.no_grad():
        tokens = head.eval().encode(feature_map)
    work: dict[str, tuple[Tensor, dict[str, Stage]]] = {
        "whole head": (feature_map, {PAPER: paper.logits, OURS: head}),
        "graph stage": (
            tokens,
            {
                PAPER: paper.pooled,
                OURS: lambda x: head.readout(frames_of(head, x, grid)),
            },
        ),
    }
    parameters = [*head.parameters(), *paper.encoder.parameters()]
    found = []
    for title, (x, stages) in work.items():
        head.eval()
        check_equal(stages, x)
        ways = {name: without_gradients(stage, x) for name, stage in stages.items()}
        found.append(compare(f"{title}, forward", ways, rounds, device))
        head.train()
        ways = {name: with_gradients(stage, x, parameters) for name, stage in stages.items()}
        found.append(compare(f"{title}, forward and backward", ways, rounds, device))
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--threads", type=int, default=1, help="more than one: wall time, on an idle machine"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a tiny size: shows that it works")
    parser.add_argument("--output", type=Path, help="folder for RESULTS.md")
    args = parser.parse_args()
    if args.quick:
        args.batch_size, args.rounds = 1, 1
    return args


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    head = TAGHead.paper("gym99").to(device)
    grid = Grid(2, 2, 2) if args.quick else head.grid
    size = (grid.frames, grid.height, grid.width)
    feature_map = torch.randn(args.batch_size, head.in_channels, *size, device=device)
    header = ["stage", "paper's way: ms, MiB", "taghead: ms, MiB", "time ratio", "memory ratio"]
    found = rows(head, feature_map, args.rounds)
    parts = [
        "## The paper's head",
        circumstances(device),
        f"`TAGHead.paper('gym99')`, {args.batch_size} clips, grid {'x'.join(map(str, size))}. The "
        "paper's way makes a graph for each clip, batches them and normalises their edges at every "
        "forward. The Transformer, which both have, bounds what the whole can gain.",
        table(header, found),
    ]
    publish(args.output, "head", "\n\n".join(parts))


if __name__ == "__main__":
    main()
