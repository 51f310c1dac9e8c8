from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from stored import NULL, Tables, simulated, store

from taghead.compare.tables import read_table
from taghead.errors import DataError


def swap_clips(runs: pd.DataFrame, predictions: pd.DataFrame) -> Tables:
    last = predictions["run"] == runs["run"].iloc[-1]
    other = predictions["clip"].where(~last, predictions["clip"] + "x")
    return runs, predictions.assign(clip=other)


def relabel(runs: pd.DataFrame, predictions: pd.DataFrame) -> Tables:
    last = predictions["run"] == runs["run"].iloc[-1]
    return runs, predictions.assign(label=predictions["label"].where(~last, 0))


REFUSALS: dict[str, tuple[Callable[[pd.DataFrame, pd.DataFrame], Tables], str]] = {
    "other clips": (swap_clips, "all runs must be tested on the same clips"),
    "fewer clips": (lambda r, p: (r, p.iloc[:-1]), "on the same clips: .* 120 and 119"),
    "other labels": (relabel, "have different labels for a clip"),
    "no predictions": (lambda r, p: (r, p[p["run"] != r["run"].iloc[3]]), "has no predictions"),
    "a clip twice": (lambda r, p: (r, pd.concat([p, p.iloc[:1]])), "has clip clip_0000 twice"),
    "a run twice": (lambda r, p: (pd.concat([r, r.iloc[:1]]), p), "is there twice"),
    "a seed twice": (
        lambda r, p: (r.assign(seed=r["seed"].replace(1, 0)), p),
        "one run a configuration and seed",
    ),
    "other data": (
        lambda r, p: (r.assign(data=["aa", *r["data"].iloc[1:]]), p),
        r"all runs must have the same data \(got 3fa9, aa\)",
    ),
    "two sweeps": (
        lambda r, p: (r.assign(sweep=["other", *r["sweep"].iloc[1:]]), p),
        "the runs must be of one sweep",
    ),
    "no control": (lambda r, p: (r.assign(control="false"), p), "no run is a control"),
    "control maybe": (
        lambda r, p: (r.assign(control="maybe"), p),
        r"true or false \(got 'maybe'\)",
    ),
    "no column": (lambda r, p: (r.drop(columns="mca"), p), "columns missing: mca"),
    "no factor": (lambda r, p: (r.drop(columns="operator"), p), "a column for each factor"),
    "no seed": (lambda r, p: (r.assign(seed=""), p), "seed must be an integer"),
    "no number": (lambda r, p: (r.assign(top1="good"), p), "top1 must be a number"),
    "infinite": (lambda r, p: (r.assign(head_gflop="inf"), p), "head_gflop must be a finite"),
    "nothing done": (lambda r, p: (r.assign(status="failed"), p), "no run is done"),
    "another Top-1": (lambda r, p: (r.assign(top1=r["top1"] + 0.01), p), "top1 of run .* must be"),
    "another MCA": (lambda r, p: (r.assign(mca=r["mca"] - 0.01), p), "mca of run .* must be"),
    "no Top-1": (lambda r, p: (r.assign(top1=""), p), "top1 of run .* must be"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(case: str, tmp_path: Path) -> None:
    change, message = REFUSALS[case]
    folder = store(tmp_path, *change(*simulated(NULL)))
    with pytest.raises(DataError, match=message):
        read_table(folder)


def test_refuses_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"runs\.csv: no such file"):
        read_table(tmp_path)
    store(tmp_path, *simulated(NULL))
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"predictions\.parquet: not a table of predictions"):
        read_table(tmp_path)
    (tmp_path / "predictions.parquet").unlink()
    with pytest.raises(DataError, match=r"predictions\.parquet: no such file"):
        read_table(tmp_path)
