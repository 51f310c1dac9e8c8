"""The store: no run is lost, none is done twice, whoever dies or asks at the same time."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from taghead.errors import DataError
from taghead.sweep import RunSpec, SweepSpec, read_sweep
from taghead.sweep.spec import RunResult
from taghead.sweep.store import (
    GRACE_SEC,
    MAX_DEATHS,
    Store,
    is_ended,
    is_failed,
    is_interrupted,
)
from taghead.sweep.trial_attributes import CHUNK, from_chunks, to_chunks

Write = Callable[..., str]
CLIPS = [("a.mp4", 0), ("b.mp4", 1), ("c.mp4", 1)]
DIED = "its process died with exit code -9"


@pytest.fixture
def sweep(write: Write) -> SweepSpec:
    return read_sweep(write())


@pytest.fixture
def runs(sweep: SweepSpec) -> list[RunSpec]:
    return sweep.runs()


@pytest.fixture
def store(folder: Path, sweep: SweepSpec) -> Store:
    return Store("sqlite:///study.db", sweep.name)


def enqueue(store: Store, runs: list[RunSpec], retry_failed: bool = False) -> int:
    return store.enqueue(["operator", "relations"], runs, retry_failed)


def result(top1: float, predicted: list[int] | None = None) -> RunResult:
    values: dict[str, Any] = {"top1": top1, "mca": top1, "num_test": 3, "train_sec": 1.0}
    return RunResult(values, CLIPS, predicted or [0, 1, 1])


def complete(store: Store, top1: float = 1.0, worker: str = "a") -> bool:
    return store.run_next(worker, lambda config: result(top1), {})


def running(store: Store) -> list[FrozenTrial]:
    return store.trials(TrialState.RUNNING)


@contextmanager
def at_work(store: Store, worker: str, top1: float = 1.0) -> Iterator[None]:
    """Meanwhile a worker does a run; then it ends it, whether it was given up or not."""
    begun, end = threading.Event(), threading.Event()

    def function(config: dict) -> RunResult:
        begun.set()
        assert end.wait(60)
        return result(top1)

    own = Store(store.url, store.name)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(own.run_next, worker, function, {})
        assert begun.wait(60)
        try:
            yield
        finally:
            end.set()
            assert future.result(60)


def test_runs_are_queued_once(store: Store, runs: list[RunSpec]) -> None:
    assert enqueue(store, runs[:4]) == 4
    assert enqueue(store, runs) == 2
    assert enqueue(Store(store.url, store.name), runs, retry_failed=True) == 0
    assert {run for run in store.current()} == {run.id for run in runs}


def test_workers_that_ask_at_once_get_different_runs(store: Store, runs: list[RunSpec]) -> None:
    enqueue(store, runs)
    by_config = {json.dumps(run.config): run.id for run in runs}

    def take(worker: str) -> list[str]:
        mine = Store(store.url, store.name)
        taken: list[str] = []

        def function(config: dict) -> RunResult:
            taken.append(by_config[json.dumps(config)])
            return result(0.5)

        while mine.trials(TrialState.WAITING):
            mine.run_next(worker, function, {})
        return taken

    with ThreadPoolExecutor(3) as pool:
        taken = [run for each in pool.map(take, "abc") for run in each]
    assert sorted(taken) == sorted(run.id for run in runs)
    workers = [trial.user_attrs["worker"] for trial in store.trials(TrialState.COMPLETE)]
    assert len(workers) == len(runs)
    assert set(workers) <= set("abc")


def test_a_run_that_two_machines_queued_is_done_once(store: Store, runs: list[RunSpec]) -> None:
    enqueue(store, runs[:1])
    store.study.add_trial(store.study.get_trials()[0])  # the other machine's, at the same moment
    with at_work(store, "a"):
        assert not complete(store, worker="b")
    assert enqueue(store, runs[:1]) == 0
    assert not complete(store, worker="b")
    (trial,) = store.trials(TrialState.COMPLETE)
    assert trial.user_attrs["worker"] == "a"


def test_without_a_queued_run_nothing_is_begun(
    store: Store, runs: list[RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not complete(store)
    assert store.study.get_trials() == []
    enqueue(store, runs[:1])
    queued = store.trials()
    assert complete(Store(store.url, store.name), worker="b")
    with monkeypatch.context() as patch:  # it was taken between the look and the claim
        patch.setattr(store, "trials", lambda *states: queued)
        assert not complete(store)
    assert [trial.user_attrs["worker"] for trial in store.current().values()] == ["b"]


def test_what_a_dead_worker_did_is_done_again(store: Store, runs: list[RunSpec]) -> None:
    enqueue(store, runs[:1])
    with at_work(store, "dead", top1=1.0):
        assert enqueue(store, runs[:1]) == 0
        assert not store.give_up("another", DIED)
        assert store.give_up("dead", DIED)
        assert not store.give_up("dead", DIED)
        assert enqueue(store, runs[:1]) == 0  # it is queued already
    # it was not dead after all, and what it gave does not count
    assert store.trials(TrialState.COMPLETE) == []
    assert not any("result" in trial.user_attrs for trial in store.trials())
    assert complete(store, 0.5)
    assert store.current()[runs[0].id].user_attrs["result"]["top1"] == 0.5
    assert not complete(store)


def test_what_a_stopped_worker_did_is_done_again(store: Store, runs: list[RunSpec]) -> None:
    enqueue(store, runs[:1])
    for _ in range(MAX_DEATHS + 1):  # nobody's fault, as where a machine is needed for others
        with at_work(store, "stopped"):
            assert store.give_up("stopped")
            assert is_interrupted(store.current()[runs[0].id])
        assert enqueue(store, runs[:1]) == 1
    assert complete(store)


def test_a_run_that_kills_its_process_again_and_again_is_failed(
    store: Store, runs: list[RunSpec]
) -> None:
    assert enqueue(store, runs[:1]) == 1
    for _ in range(MAX_DEATHS):
        with at_work(store, "dead"):
            store.give_up("dead", DIED)
    trial = store.current()[runs[0].id]
    assert is_failed(trial)
    assert trial.user_attrs["error"] == f"{DIED}, {MAX_DEATHS} times"
    assert not complete(store)
    assert enqueue(store, runs[:1]) == 0
    assert enqueue(store, runs[:1], retry_failed=True) == 1
    assert complete(store)


def test_a_result_that_is_no_number_is_an_error(store: Store, runs: list[RunSpec]) -> None:
    enqueue(store, runs[:1])
    assert complete(store, float("nan"))
    error = store.current()[runs[0].id].user_attrs["error"]
    assert error == "ValueError: top1 must be a number (got NaN): was no clip tested?"
    assert enqueue(store, runs[:1]) == 0


def test_json_has_no_infinity_and_no_nan(
    store: Store, sweep: SweepSpec, runs: list[RunSpec]
) -> None:
    enqueue(store, runs[:1])
    infinite = result(1.0)._replace(values={"top1": 1.0, "head_gflop": float("inf")})
    assert store.run_next("a", lambda config: infinite, {})
    error = store.current()[runs[0].id].user_attrs["error"]
    assert error == "ValueError: head_gflop must be a finite number (got inf)"
    with sqlite3.connect("study.db") as database:
        values = [
            value for (value,) in database.execute("SELECT value_json FROM trial_user_attributes")
        ]
        assert not any("Infinity" in value or "NaN" in value for value in values)
        query = "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'config'"
        database.execute(query, (json.dumps('{"model": {"learning_rate": NaN}}'),))
    with pytest.raises(DataError, match=r"study.db: the run \w+ is not readable in the store: "):
        Store(store.url, store.name).check(sweep, runs)


def test_a_run_without_a_heartbeat_is_done_again(store: Store, runs: list[RunSpec]) -> None:
    enqueue(store, runs[:2])
    with at_work(store, "silent", top1=1.0), at_work(store, "alive", top1=0.5):
        first, second = running(store)
        store.retry_stale()
        assert running(store) == [first, second]
        with sqlite3.connect("study.db") as database:
            database.execute(
                "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, ?) WHERE trial_id = "
                "(SELECT trial_id FROM trials WHERE number = ?)",
                (f"-{GRACE_SEC + 5} seconds", first.number),
            )
        store.retry_stale()
        assert [trial.number for trial in running(store)] == [second.number]
        assert enqueue(store, runs[:2]) == 0  # it is queued already
    assert [trial.user_attrs["worker"] for trial in store.trials(TrialState.COMPLETE)] == ["alive"]
    assert complete(store, 0.25)
    assert store.current()[runs[0].id].user_attrs["result"]["top1"] == 0.25


def test_a_claim_has_a_heartbeat(store: Store, runs: list[RunSpec]) -> None:
    enqueue(store, runs[:1])
    with pytest.warns(UserWarning, match="Heartbeat of storage"):
        store.study.ask()  # and the process dies before its thread has started
    with sqlite3.connect("study.db") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hours')")
    store.retry_stale()
    assert complete(store)


def test_runs_may_only_be_added(store: Store, runs: list[RunSpec], write: Write) -> None:
    enqueue(store, runs)
    more = read_sweep(write(seeds=[0, 1, 2]))
    store.check(more, more.runs())
    assert enqueue(store, more.runs()) == 3
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


def test_a_config_that_was_changed_is_not_done(
    store: Store, sweep: SweepSpec, runs: list[RunSpec]
) -> None:
    enqueue(store, runs[:2])
    changed = {**runs[0].config, "seed_everything": 7}
    with sqlite3.connect("study.db") as database:
        query = "UPDATE trial_user_attributes SET value_json = ? WHERE value_json = ?"
        texts = [json.dumps(json.dumps(config)) for config in (changed, runs[0].config)]
        assert database.execute(query, texts).rowcount == 1
    with pytest.raises(DataError, match="was changed in the store: seed_everything is 7, in the "):
        store.check(sweep, runs)
    done: list[dict[str, Any]] = []

    def do(config: dict[str, Any]) -> RunResult:
        done.append(config)
        return result(1.0)

    known = {run.id: run.config for run in runs}
    while store.run_next("a", do, {}, known):
        pass
    assert done == [runs[1].config]
    assert "was changed in the store" in store.current()[runs[0].id].user_attrs["error"]


def test_a_run_that_the_sweep_file_does_not_have_is_left_to_others(
    store: Store, runs: list[RunSpec]
) -> None:
    enqueue(store, runs)
    known = {run.id: run.config for run in runs[3:]}
    for _ in known:
        while not store.run_next("a", lambda config: result(1.0), {}, known):
            pass
    assert not store.run_next("a", lambda config: result(1.0), {}, known)
    current = store.current()
    assert {run for run, trial in current.items() if is_ended(trial)} == set(known)
    assert {t.state for run, t in current.items() if run not in known} == {TrialState.WAITING}
    while complete(store):
        pass
    assert all(map(is_ended, store.current().values()))


def test_the_tables_come_from_the_store_alone(
    store: Store, runs: list[RunSpec], folder: Path
) -> None:
    enqueue(store, runs)
    predicted = {run.id: [number % 2, 1, number % 3] for number, run in enumerate(runs)}
    for run in runs[:-2]:
        assert store.run_next("a", lambda _, id=run.id: result(0.25, predicted[id]), {})

    def fail(config: dict) -> RunResult:
        raise DataError('a, b\n"c"')

    assert store.run_next("a", fail, {"commit": "1234"})
    failed = runs[-2]
    elsewhere = Store(store.url, store.name)
    elsewhere.write_tables(folder / "out")
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
    row = table.set_index("run").loc[failed.id]
    assert (row["error"], row["top1"], row["commit"]) == ('DataError: a, b "c"', "", "1234")
    control = table.set_index("run").loc[runs[0].id]
    assert (control["operator"], control["relations"], control["control"]) == ("", "none", True)
    assert not table.set_index("run").loc[runs[1].id, "control"]
    long = pd.read_parquet(folder / "out/predictions.parquet")
    assert list(long.columns) == ["run", "clip", "label", "predicted"]
    assert len(long) == 3 * 4
    for run, clips in long.groupby("run"):
        assert list(zip(clips["clip"], clips["label"], strict=True)) == CLIPS
        assert clips["predicted"].tolist() == predicted[str(run)]
    assert is_ended(store.current()[failed.id])


def test_long_values_come_in_chunks_and_back() -> None:
    value = [[f"clip {i * 7919 % 104729}", i] for i in range(30_000)]
    chunks = to_chunks("clips", value)
    assert list(chunks) == [f"clips:{number}" for number in range(len(chunks))]
    assert len(chunks) > 2
    assert max(map(len, chunks.values())) == CHUNK
    assert from_chunks("clips", {**chunks, "other:0": "x"}) == value


def test_the_clips_are_stored_once_for_all_runs_that_share_them(
    store: Store, runs: list[RunSpec]
) -> None:
    enqueue(store, runs[:3])
    for clips in (CLIPS, CLIPS, CLIPS[:2]):
        given = result(1.0)._replace(clips=clips, predicted=[0] * len(clips))
        store.run_next("a", lambda _, given=given: given, {})
    stored = [trial.user_attrs["result"]["clips"] for trial in store.current().values()]
    assert stored[0] == stored[1] != stored[2]
    assert sum(name.startswith("clips:") for name in store.study.user_attrs) == 2


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/nowhere/study.db", "mysql+no://a/b"])
def test_a_store_that_cannot_be_used(url: str) -> None:
    with pytest.raises((DataError, OSError)) as told:
        Store(url, "tiny")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "attributes",
    [
        {"config": "no JSON"},
        {"config": "[1]"},
        {"config": 3},
        {"levels": 3},
        {"levels": {"operator": 1}},
        {"seed": "0"},
    ],
)
def test_a_trial_of_a_stranger_is_refused_by_its_number(
    store: Store, sweep: SweepSpec, runs: list[RunSpec], attributes: dict[str, Any]
) -> None:
    """A store may be shared: nothing in it is done, and its error names it."""
    enqueue(store, runs[:1])
    held = {**store.trials()[0].user_attrs, **attributes}
    store._add(TrialState.WAITING, {**held, "run": runs[1].id})
    with pytest.raises(DataError, match=r"the run \w+ is not readable in the store: ") as told:
        store.check(sweep, runs)
    assert "\n" not in str(told.value)
    store._add(TrialState.WAITING, {**held, "run": 3})  # no run at all
    done: list[dict[str, Any]] = []
    for _ in range(4):
        store.run_next("a", lambda config: done.append(config) or result(1.0), {})
    assert done == [runs[0].config]


@pytest.mark.parametrize("attributes", [{"result": 3}, {"levels": [1]}, {"result": {}}])
def test_a_result_of_a_stranger_is_refused_by_its_number(
    store: Store, runs: list[RunSpec], folder: Path, attributes: dict[str, Any]
) -> None:
    enqueue(store, runs[:1])
    assert complete(store)
    held = {**store.trials()[0].user_attrs, "run": "x", **attributes}
    store.study.add_trial(create_trial(state=TrialState.COMPLETE, value=1.0, user_attrs=held))
    with pytest.raises(DataError, match=r"^sqlite:///study.db: trial 1 has no result as taghead"):
        store.write_tables(folder / "tables")
    assert not list((folder / "tables").glob("*"))
