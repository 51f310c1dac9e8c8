"""Stored sweeps as `taghead sweep` leaves them, with effects that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

MEASURES = ["top1", "mca", "val_top1", "num_train", "num_test", "parameters", "head_parameters"]
MEASURES += ["head_gflop", "head_latency_ms", "train_sec", "epochs"]
ORIGIN = ["data", "commit", "torch", "pyg", "started", "config"]

Design = Sequence[tuple[Mapping[str, str], float]]
Tables = tuple[pd.DataFrame, pd.DataFrame]

FACTORS = ("operator", "relations", "layers")
SHIFTS = {"GATv2Conv": 1.5, "GCNConv": 0.0, "EdgeConv": -1.5}
DESIGN: Design = [
    ({"operator": "none", "relations": "", "layers": layers}, 0.0) for layers in ("2", "10")
] + [
    ({"operator": operator, "relations": relations, "layers": layers}, shift)
    for operator, shift in SHIFTS.items()
    for relations in ("past", "both")
    for layers in ("2", "10")
]
NULL = [({"operator": name}, 0.0) for name in ("none", "GCNConv", "GATv2Conv", "APPNP")]


def simulated(
    design: Design,
    num_seeds: int = 5,
    num_clips: int = 120,
    num_classes: int = 6,
    seed: int = 0,
    spread: float = 0.3,
    noise: float = 1.0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and predictions: a run is right where clip, shift, its seed and chance sum above 0.

    Args:
        design: Levels of each configuration, the control's with `none`, and its shift.
        num_seeds: Seeds from 0.
        num_clips: Test clips.
        num_classes: Their classes, as many clips of each.
        seed: Of the generator.
        spread: Standard deviation over the runs.
        noise: Standard deviation over the clips of a run.
    """
    random = np.random.default_rng(seed)
    factors = list(design[0][0])
    easy = random.normal(1.2, 1.5, num_clips)
    label = np.arange(num_clips) % num_classes
    clips = [f"clip_{number:04d}" for number in range(num_clips)]
    rows, predictions = [], []
    for place, (levels, shift) in enumerate(design):
        control = "none" in levels.values()
        for run_seed in range(num_seeds):
            own = shift + random.normal(0, spread) + random.normal(0, noise, num_clips)
            right = easy + own > 0
            predicted = np.where(right, label, (label + 1) % num_classes)
            name = sha256(f"{sorted(levels.items())} {run_seed}".encode()).hexdigest()[:12]
            by_class = [right[label == number].mean() for number in np.unique(label)]
            numbers = {"top1": right.mean(), "mca": np.mean(by_class), "val_top1": right.mean()}
            costs = {"num_train": 400, "num_test": num_clips, "parameters": 120_000 + place}
            costs |= {"head_parameters": 20_000 + 1_000 * place, "head_gflop": 0.02 + 0.003 * place}
            costs |= {"head_latency_ms": 2 + 0.3 * place + 0.01 * run_seed, "train_sec": 60}
            origin = {"data": "3fa9", "commit": "0123abc", "torch": "2.15.0", "pyg": "2.8.1"}
            rows.append(
                {"run": name, "sweep": "operators", **levels, "seed": run_seed}
                | {"control": str(control).lower(), "status": "done", "error": ""}
                | {**numbers, **costs, "epochs": 8, **origin}
                | {"started": "2026-11-25T10:00:00", "config": "{}"}
            )
            predictions.append(
                pd.DataFrame({"run": name, "clip": clips, "label": label, "predicted": predicted})
            )
    columns = ["run", "sweep", *factors, "seed", "control", "status", "error", *MEASURES, *ORIGIN]
    return pd.DataFrame(rows)[columns], pd.concat(predictions, ignore_index=True)


def store(folder: Path, runs: pd.DataFrame, predictions: pd.DataFrame) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    runs.to_csv(folder / "runs.csv", index=False)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    return folder
