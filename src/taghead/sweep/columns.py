"""The columns of a table of runs."""

from __future__ import annotations

from collections.abc import Sequence

NUMBERS = (
    *("top1", "mca", "val_top1", "num_train", "num_test"),
    *("parameters", "head_parameters", "head_gflop", "head_latency_ms", "train_sec", "epochs"),
)
"""What was measured."""

ORIGIN = ("data", "commit", "torch", "pyg", "started")
"""What the numbers come from, beside the config."""


def columns(factors: Sequence[str] = ()) -> list[str]:
    """All columns in their order, with one for each factor."""
    before = ["run", "sweep", *factors, "seed", "control", "status", "error"]
    return [*before, *NUMBERS, *ORIGIN, "config"]
