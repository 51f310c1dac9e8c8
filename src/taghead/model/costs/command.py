"""The command `taghead bench model`: parameters, GFLOP, latency and memory of models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from taghead.backbones import Backbone, build_backbone
from taghead.errors import check_counts
from taghead.model.classifier import VideoClassifier
from taghead.model.costs.parts import PartCosts, Precision, model_costs
from taghead.model.head_factory import HeadFactory
from taghead.model.pretrained import as_device
from taghead.nn.head import TAGHead


def bench_model(
    backbones: list[str],
    head: HeadFactory = TAGHead,
    num_classes: int = 99,
    num_frames: int | None = None,
    size: int | None = None,
    batch_size: int = 1,
    precision: Precision = "32",
    device: str = "auto",
    runs: int = 20,
    channels_last: bool = True,
    output: str | None = None,
) -> None:
    """Prints the costs of backbones with a head: parameters, GFLOP, latency and memory.

    Args:
        backbones: Names of backbones, or class paths of your own.
        head: The head's class and options.
        num_classes: Number of classes.
        num_frames: Frames of a clip; as in the backbone's own training when not given.
        size: Height and width of a clip; as in the backbone's own training when not given.
        batch_size: Clips in a batch.
        precision: `32`, `bf16-mixed` or `16-mixed`.
        device: Where it runs: `auto`, `cpu`, `cuda`, ...
        runs: Number of measurements of each latency.
        channels_last: Whether clips and convolutions are laid out channels-last.
        output: A CSV file for the same table.

    Raises:
        ValueError: If an argument breaks its rule.
    """
    counts = {"num_classes": num_classes, "batch_size": batch_size, "runs": runs}
    sizes = {"num_frames": num_frames, "size": size}
    check_counts(**counts, **{name: n for name, n in sizes.items() if n is not None})
    target = torch.device(as_device(device))
    models = [_model(name, head, num_classes, num_frames, size) for name in backbones]
    rows: list[dict[str, object]] = []
    for model, clip_size in track(models, "Measuring", transient=True):
        layout = torch.channels_last_3d if channels_last else torch.contiguous_format
        model.backbone.to(memory_format=layout)
        clip = torch.randn(batch_size, 3, *clip_size).to(target, memory_format=layout)
        costs = model_costs(model.to(target), clip, precision, runs)
        clips = f"{batch_size}x{'x'.join(map(str, clip_size))}"
        rows += [{"model": str(model.backbone), "clips": clips, **row} for row in as_rows(costs)]
        model.cpu()
        if output:
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(output, index=False)
    threads = f"{torch.get_num_threads()} threads"
    processor = torch.cuda.get_device_name(target) if target.type == "cuda" else threads
    _print(pd.DataFrame(rows), f"precision {precision}, {target} ({processor}), {runs} runs")


def as_rows(costs: list[PartCosts]) -> Iterator[dict[str, object]]:
    """Table rows: one for each part, and one with the head's share of the whole, in percent."""
    for part in costs:
        yield {
            "part": part.part,
            "params (M)": part.parameters / 1e6,
            "GFLOP": part.flops / 1e9,
            "median (ms)": part.latency.median,
            "p95 (ms)": part.latency.p95,
            "peak (MiB)": part.peak_bytes / 2**20,
        }
    backbone, head, _, both = costs
    yield {
        "part": "head's share (%)",
        "params (M)": 100 * head.parameters / both.parameters,
        "GFLOP": 100 * head.flops / both.flops,
        "median (ms)": 100 * head.latency.median / both.latency.median,
        "peak (MiB)": 100 * (1 - min(1.0, backbone.peak_bytes / both.peak_bytes)),
    }


def _model(
    name: str, head: HeadFactory, num_classes: int, num_frames: int | None, size: int | None
) -> tuple[VideoClassifier, tuple[int, int, int]]:
    """A model with random weights, and its clip size (t, h, w)."""
    backbone: Backbone = build_backbone(name)
    frames = num_frames or backbone.preprocessing.num_frames
    pixels = size or backbone.preprocessing.crop
    grid = backbone.grid(frames, pixels)
    model = VideoClassifier(backbone, head(backbone.channels, num_classes, grid))
    return model, (frames, pixels, pixels)


def _print(costs: pd.DataFrame, setting: str) -> None:
    """Prints one table for each model."""
    for (name, clips), model in costs.groupby(["model", "clips"], sort=False):
        table = Table(box=box.SIMPLE, title=f"{name}, clips {clips}, {setting}")
        rows = model.drop(columns=["model", "clips"])
        for column in rows.columns:
            table.add_column(column, justify="left" if column == "part" else "right")
        for part, *values in rows.itertuples(index=False):
            table.add_row(part, *("" if pd.isna(value) else f"{value:.4g}" for value in values))
        Console().print(table)
