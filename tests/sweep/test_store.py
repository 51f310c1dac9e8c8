"""The store: no run is lost, none is done twice, whoever dies or asks at the same time."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from taghead.errors import DataError
from taghead.sweep import Run, Sweep, read_sweep
from taghead.sweep.packing import PIECE, packed, unpacked
from taghead.sweep.pool import is_dead, new_owner
from taghead.sweep.store import GRACE_SEC, MAX_LOST, Store, is_failed, is_lost, is_over
from taghead.sweep.table import write_predictions, write_runs

Write = Callable[..., str]
CLIPS = [("a.mp4", 0), ("b.mp4", 1), ("c.mp4", 1)]


@pytest.fixture
def sweep(write: Write) -> Sweep:
    return read_sweep(write())


@pytest.fixture
def runs(sweep: Sweep) -> list[Run]:
    return sweep.runs()


@pytest.fixture
def store(folder: Path, sweep: Sweep) -> Store:
    opened = Store("sqlite:///study.db", sweep.name)
    opened.begin(list(sweep.factors))
    return opened


def result(top1: float) -> dict[str, object]:
    return {"top1": top1, "mca": top1, "num_test": 3, "train_sec": 1.0}


def test_runs_are_queued_once(store: Store, runs: list[Run]) -> None:
    assert store.enqueue(runs[:4]) == 4
    assert store.enqueue(runs) == 2
    assert Store(store.url, store.name).enqueue(runs, retry_failed=True) == 0
    assert {run for run in store.current()} == {run.id for run in runs}


def test_workers_that_ask_at_once_get_different_runs(store: Store, runs: list[Run]) -> None:
    store.enqueue(runs)

    def take(owner: str) -> list[str]:
        mine = Store(store.url, store.name)
        taken = []
        while (trial := mine.claim(owner)) is not None:
            taken.append(trial.user_attrs["run"])
        return taken

    with ThreadPoolExecutor(3) as pool:
        taken = [run for each in pool.map(take, "abc") for run in each]
    assert sorted(taken) == sorted(run.id for run in runs)
    owners = [trial.user_attrs["owner"] for trial in store.running()]
    assert len(owners) == len(runs)
    assert set(owners) <= set("abc")


def test_a_run_that_two_machines_queued_is_done_once(store: Store, runs: list[Run]) -> None:
    store.enqueue(runs[:1])
    store.study.add_trial(store.study.get_trials()[0])  # the other machine's, at the same moment
    first = store.claim("a")
    assert first is not None
    assert store.claim("b") is None
    assert store.complete(first, result(1.0), CLIPS, [0, 1, 1])
    assert store.enqueue(runs[:1]) == 0
    assert store.claim("b") is None


def test_what_a_dead_worker_did_is_done_again(store: Store, runs: list[Run]) -> None:
    store.enqueue(runs[:1])
    trial = store.claim("dead")
    assert trial is not None
    assert store.enqueue(runs[:1]) == 0
    assert store.lose("another", "it died") == []
    assert [lost.number for lost in store.lose("dead", "it died")] == [trial.number]
    assert is_lost(store.current()[runs[0].id])
    assert not store.complete(trial, result(1.0), CLIPS, [0, 1, 1])  # it was not dead after all
    assert not store.fail(trial, "an error", {})
    assert store.enqueue(runs[:1]) == 1
    again = store.claim("b")
    assert again is not None
    assert again.user_attrs["run"] == trial.user_attrs["run"]
    assert store.complete(again, result(0.5), CLIPS, [0, 0, 1])
    assert store.current()[runs[0].id].user_attrs["result"]["top1"] == 0.5


def test_a_run_that_kills_its_process_again_and_again_is_failed(
    store: Store, runs: list[Run]
) -> None:
    for _ in range(MAX_LOST):
        assert store.enqueue(runs[:1]) == 1
        assert store.claim("dead") is not None
        store.lose("dead", "its process died with exit code -9")
    trial = store.current()[runs[0].id]
    assert is_failed(trial)
    assert trial.user_attrs["error"] == f"its process died with exit code -9, {MAX_LOST} times"
    assert store.enqueue(runs[:1]) == 0
    assert store.enqueue(runs[:1], retry_failed=True) == 1
    for _ in range(MAX_LOST):  # nobody's fault, as where a machine is switched off
        assert store.claim("gone") is not None
        store.lose("gone", "")
        assert store.enqueue(runs[:1]) == 1


def test_what_nobody_has_a_sign_of_is_done_again(store: Store, runs: list[Run]) -> None:
    store.enqueue(runs[:2])
    silent, alive = store.claim("a"), store.claim("b")
    assert silent is not None
    assert alive is not None
    with sqlite3.connect("study.db") as database:
        database.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, ?) WHERE trial_id = ?",
            (f"-{GRACE_SEC + 5} seconds", silent._trial_id),
        )
    store.lose_stale()
    assert [trial.number for trial in store.running()] == [alive.number]
    assert store.enqueue(runs[:2]) == 1


def test_an_owner_is_dead_when_its_process_is(store: Store) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = new_owner()
    assert not is_dead(owner)
    machine, pid, number = owner.rsplit(" ", 2)
    assert int(pid) == os.getpid()
    assert is_dead(f"{machine} {gone.pid} {number}")
    assert not is_dead(f"another-{machine} {gone.pid} {number}")


def test_runs_may_only_be_added(store: Store, runs: list[Run], write: Write) -> None:
    store.enqueue(runs)
    more = read_sweep(write(seeds=[0, 1, 2]))
    store.check(more, more.runs())
    assert store.enqueue(more.runs()) == 3
    for keys, message in (
        ({"seeds": [1, 2]}, r"has the run relations=none seed=0 \(\w+\), which sweep.yaml does no"),
        (
            {"seeds": [0, 1, 2], "set": {"model.head.channels": 32}},
            "relations=none seed=0 with model.head.channels = 16, sweep.yaml with 32: runs may on",
        ),
        (
            {"factors": {"f": {"a": {}}}},
            "has runs of the factors operator, relations, sweep.yaml has f; choose another --out",
        ),
    ):
        changed = read_sweep(write(**keys))
        with pytest.raises(DataError, match=message) as told:
            store.check(changed, changed.runs())
        assert "\n" not in str(told.value)


def test_the_tables_come_from_the_store_alone(store: Store, runs: list[Run], folder: Path) -> None:
    store.enqueue(runs)
    predicted = {run.id: [number % 2, 1, number % 3] for number, run in enumerate(runs)}
    for _ in runs[:-2]:
        trial = store.claim("a")
        assert trial is not None
        store.complete(trial, result(0.25), CLIPS, predicted[trial.user_attrs["run"]])
    failed = store.claim("a")
    assert failed is not None
    assert store.fail(failed, 'DataError: a, b\n"c"', {"commit": "1234"})
    elsewhere = Store(store.url, store.name)
    write_runs(elsewhere, folder / "out")
    write_predictions(elsewhere, folder / "out")
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "predictions.parquet",
        "runs.csv",
    ]
    table = pd.read_csv(folder / "out/runs.csv", keep_default_na=False)
    assert list(table.columns) == [
        *("run", "sweep", "operator", "relations", "seed", "control", "status", "error"),
        *("top1", "mca", "val_top1", "num_train", "num_test", "parameters", "head_parameters"),
        *("head_gflop", "head_latency_ms", "train_sec", "epochs", "data", "commit", "torch"),
        *("pyg", "started", "config"),
    ]
    assert table["run"].tolist() == sorted(run.id for run in runs[:-1])
    assert (table["status"] == "failed").sum() == 1
    row = table.set_index("run").loc[failed.user_attrs["run"]]
    assert (row["error"], row["top1"], row["commit"]) == ('DataError: a, b\n"c"', "", "1234")
    control = table.set_index("run").loc[runs[0].id]
    assert (control["operator"], control["relations"], control["control"]) == ("", "none", True)
    assert not table.set_index("run").loc[runs[1].id, "control"]
    long = pd.read_parquet(folder / "out/predictions.parquet")
    assert list(long.columns) == ["run", "clip", "label", "predicted"]
    assert len(long) == 3 * 4
    for run, clips in long.groupby("run"):
        assert list(zip(clips["clip"], clips["label"], strict=True)) == CLIPS
        assert clips["predicted"].tolist() == predicted[str(run)]
    assert is_over(store.current()[failed.user_attrs["run"]])


def test_long_values_come_in_pieces_and_back() -> None:
    value = [[f"clip {i * 7919 % 104729}", i] for i in range(30_000)]
    digest, pieces = packed(value)
    assert len(pieces) > 2
    assert max(map(len, pieces)) == PIECE
    assert unpacked(pieces) == value
    assert packed([*value, 1])[0] != digest


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/nowhere/study.db", "mysql+no://a/b"])
def test_a_store_that_cannot_be_used(url: str) -> None:
    with pytest.raises((DataError, OSError)) as told:
        Store(url, "tiny")
    assert "\n" not in str(told.value)
