"""`taghead sweep`: what it does when all goes well, and when workers and runs do not."""

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from taghead.cli import main
from taghead.features import FeatureCache
from taghead.sweep import read_sweep
from taghead.sweep import workers as workers_of
from taghead.sweep.run import code_version
from taghead.sweep.store import Store, is_interrupted

Write = Callable[..., str]
DIVERGES = {"model.learning_rate": 1.0e30}


@pytest.fixture
def cache(cache_root: Path, folder: Path) -> Path:
    (folder / "cache").symlink_to(cache_root)
    return folder / "cache"


def kill_one_at_work(store: Store, killed: list[str], over: threading.Event) -> None:
    """Kills the first worker that is in the middle of a run."""
    while not over.wait(0.05):
        for trial in store.trials(TrialState.RUNNING):
            for process in multiprocessing.active_children():
                if process.name == trial.user_attrs.get("worker") and process.pid is not None:
                    time.sleep(0.2)
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(trial.user_attrs["run"])
                    return


def test_workers_die_and_runs_fail_but_none_is_lost_or_doubled(
    cache: Path, write: Write, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relations = {"none": {"set": {"model.head.mode": "none"}, "without": ["operator"]}, "both": {}}
    operator = {"SAGEConv": {"model.head.conv": "torch_geometric.nn.SAGEConv"}, "bad": DIVERGES}
    file = write(factors={"operator": operator, "relations": relations}, seeds=[0, 1])
    sweep = read_sweep(file)
    runs = {run.id: run for run in sweep.runs()}
    assert len(runs) == 6
    store = Store("sqlite:///out/study.db", sweep.name)
    store.enqueue(list(sweep.factors), list(runs.values()))
    # a command that was killed had begun with a run, and its heartbeat is long ago
    with pytest.warns(UserWarning, match="Heartbeat of storage"):
        store.study.ask()
    with sqlite3.connect("out/study.db") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hours')")

    killed: list[str] = []
    over = threading.Event()
    killer = threading.Thread(target=kill_one_at_work, args=(store, killed, over))
    killer.start()
    command = ["sweep", file, "--workers=2", "--output=out"]
    with pytest.raises(SystemExit) as stop:
        main(command)
    over.set()
    killer.join()
    assert stop.value.code == 1
    assert len(killed) == 1
    printed = capsys.readouterr().out
    assert "4 of 6 runs are done, 2 failed" in printed
    assert printed.count("failed: DataError: train/loss is ") == 2

    table = pd.read_csv("out/runs.csv", keep_default_na=False).set_index("run")
    assert sorted(table.index) == sorted(runs)
    done = table[table["status"] == "done"]
    assert len(done) == 4
    complete = [trial.user_attrs["run"] for trial in store.trials(TrialState.COMPLETE)]
    assert sorted(complete) == sorted(done.index)
    assert store.trials(TrialState.RUNNING, TrialState.WAITING) == []
    interrupted = [trial for trial in store.trials() if is_interrupted(trial)]
    assert len(interrupted) == 2  # that of the command before, and the one of the killed worker
    assert interrupted[1].user_attrs["run"] == killed[0]
    deaths = [trial.user_attrs.get("deaths", 0) for trial in store.current().values()]
    assert sorted(deaths) == [0, 0, 0, 0, 0, 1]
    for id, row in table.iterrows():
        assert json.loads(row["config"]) == runs[str(id)].config
        assert (row["operator"] or "-") == runs[str(id)].levels.get("operator", "-")
        assert (row["status"] == "failed") == (row["operator"] == "bad")
    spec = FeatureCache(cache).spec
    assert done["data"].str.startswith(f"features:{spec.weights_sha256[:12]}:").all()
    assert done["num_train"].astype(int).tolist() == [36] * 4
    assert (done["head_parameters"].astype(int) < done["parameters"].astype(int)).all()
    assert (done["head_gflop"].astype(float) > 0).all()
    assert (table["commit"] == code_version()).all()

    long = pd.read_parquet("out/predictions.parquet")
    assert set(long["run"]) == set(done.index)
    right = (long["label"] == long["predicted"]).groupby(long["run"]).mean()
    assert right.to_dict() == pytest.approx(done["top1"].astype(float).to_dict())
    assert long.groupby("run")["clip"].nunique().tolist() == [18] * 4

    before = Path("out/runs.csv").read_bytes()
    with pytest.raises(SystemExit):  # there is nothing to do, but two runs have failed
        main(command)
    assert Path("out/runs.csv").read_bytes() == before
    main_run = next(run for run in runs.values() if run.levels.get("operator") == "SAGEConv")
    reproduce(main_run.config, long[long["run"] == main_run.id], folder)


def reproduce(config: dict, predicted: pd.DataFrame, folder: Path) -> None:
    """`taghead fit` with a run's config, and a test of its last weights, predict the same."""
    (folder / "run.json").write_text(json.dumps(config))
    root = ["--trainer.default_root_dir=again", "--trainer.logger=true"]
    main(["fit", "--config=run.json", *root, "--trainer.enable_checkpointing=true"])
    (checkpoint,) = Path("again").rglob("*.ckpt")
    report = "--trainer.callbacks=taghead.training.TestReport"
    main(["test", "--config=run.json", *root, report, f"--ckpt_path={checkpoint}"])
    (table,) = Path("again").rglob("predictions.csv")
    found = pd.read_csv(table)
    names = FeatureCache("cache").spec.class_names
    clips = [Path(clip) for clip in predicted["clip"]]
    assert not any(clip.is_absolute() for clip in clips)  # the same wherever the videos lie
    assert [
        Path(path).parts[-len(clip.parts) :]
        for path, clip in zip(found["path"], clips, strict=True)
    ] == [clip.parts for clip in clips]
    assert found["predicted"].tolist() == [names[i] for i in predicted["predicted"]]
    assert found["predicted"].nunique() > 1  # they tell clips apart


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_asked_to_stop_gives_its_runs_back(
    cache: Path, write: Write, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(seeds=[0], set={"trainer.max_epochs": 100_000})  # no run ends by itself
    code = "import sys; from taghead.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "sweep", file, "--workers=2", "--output=out"]
    process = subprocess.Popen(command)
    try:
        store = wait_for_runs(process)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    finally:
        process.kill()
    printed = capfd.readouterr()
    assert "the same command resumes it" in printed.out
    assert "GPU available" not in printed.out + printed.err  # Lightning's reports for each config
    assert store.trials(TrialState.RUNNING) == []
    assert all(trial.state != TrialState.COMPLETE for trial in store.trials())
    assert pd.read_csv("out/runs.csv").empty
    spec = read_sweep(file)
    assert store.enqueue(list(spec.factors), spec.runs()) == 2  # those that were begun


def test_a_killed_sweep_is_taken_over_at_once(write: Write, cache: Path) -> None:
    """Without the grace of a heartbeat, where its processes were on this machine and are gone."""
    sweep = read_sweep(write())
    store = Store("sqlite:///out/study.db", sweep.name)
    store.enqueue(list(sweep.factors), sweep.runs())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    workers = {
        "gone": f"{workers_of._machine()} {gone.pid} 1",
        "alive": f"{workers_of._machine()} {os.getpid()} 2",
        "elsewhere": f"other/1 {gone.pid} 3",
    }
    for worker in workers.values():
        with pytest.warns(UserWarning, match="Heartbeat of storage"):
            trial = store.study.ask()
        trial.set_user_attr("worker", worker)
    workers_of.give_up_dead(store)
    running = {trial.user_attrs["worker"] for trial in store.trials(TrialState.RUNNING)}
    assert running == {workers["alive"], workers["elsewhere"]}
    assert store.enqueue(list(sweep.factors), sweep.runs()) == 1


def wait_for_runs(process: subprocess.Popen) -> Store:
    """A sweep's store, as soon as two runs have begun."""
    while process.poll() is None:
        time.sleep(0.5)
        if Path("out/study.db").exists():
            store = Store("sqlite:///out/study.db", "tiny")
            if len(store.trials(TrialState.RUNNING)) == 2:
                return store
    raise AssertionError(f"the sweep ended with exit code {process.returncode}")


def test_readouts_with_options_are_levels_of_a_factor(
    cache: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    conv = {"class_path": "temporal_conv", "init_args": {"layers": 1, "pool": "mean"}}
    pooled = {"class_path": "Set2Set", "init_args": {"processing_steps": 2}}
    levels = {
        "mean": {"model.head.readout": "mean"},
        "temporal_conv": {"model.head.readout": conv},
        "set2set": {"model.head.readout": pooled},
    }
    file = write(seeds=[0], factors={"readout": levels}, set={"trainer.max_epochs": 1})
    main(["sweep", file, "--output=out"])
    assert "3 of 3 runs are done" in capsys.readouterr().out
    table = pd.read_csv("out/runs.csv").set_index("readout")
    assert set(table.index) == set(levels)
    for level, config in table["config"].items():
        head = json.loads(config)["model"]["head"]["init_args"]
        assert head["readout"] == levels[str(level)]["model.head.readout"]


def test_a_dry_run_lists_the_runs(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write()  # and needs no data
    main(["sweep", file, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    runs = read_sweep(file).runs()
    assert lines[0] == f"{runs[0].id}  relations=none seed=0  (control)"
    assert lines[1] == f"{runs[1].id}  operator=SAGEConv relations=both seed=0"
    assert lines[-1] == "6 runs"
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("level", "place", "message"),
    [
        ({"model.head.conv": "torch_geometric.nn.SAGEConvv"}, "model.head.conv", "SAGEConvv"),
        ({"model.head.modee": "none"}, "model.head.modee", "modee"),
        ({"model.head.conv": {"class_path": "torch_geometric.nn.SAGEConv",
                              "init_args": {"headds": 4}}}, "model.head.conv", "headds"),
        ({"data.rooot": "x"}, "data.rooot", "rooot"),
        # only where the model is built
        ({"model.learning_rate": 0.2, "model.head.encoder_heads": 3}, "model.head.encoder_heads",
         r"encoder_heads must divide the width 16 \(got 3\)"),
        ({"data.root": "nowhere"}, "data.root", "nowhere: no feature cache"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_last_level_is_told_before_the_first_run(
    cache: Path, write: Write, level: dict, place: str, message: str
) -> None:
    file = write(factors={"f": {"b": level}})
    where = rf"^error: sweep.yaml: factors.f.b.{place}: .*{message}"
    with pytest.raises(SystemExit, match=where) as told:
        main(["sweep", file, "--output=out"])
    assert "\n" not in str(told.value.code)
    assert Store("sqlite:///out/study.db", "tiny").trials() == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--workers=-1"], r"workers must be at least 0 \(got -1\)"),
        (["--threads=0"], r"threads must be at least 1 \(got 0\)"),
        (["--limit=0"], r"limit must be a positive integer \(got 0\)"),
        (["--storage=nonsense"], "nonsense: not a usable store: "),
    ],
)
def test_options_that_break_a_rule(write: Write, args: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: {message}") as told:
        main(["sweep", write(), *args])
    assert "\n" not in str(told.value.code)


def test_a_base_that_is_wrong_is_named(cache: Path, write: Write, folder: Path) -> None:
    file = write()
    base = yaml.safe_load((folder / "base.yaml").read_text())
    (folder / "base.yaml").write_text(yaml.safe_dump({**base, "modell": 1}))
    with pytest.raises(SystemExit, match=r"^error: sweep.yaml: base: .*modell"):
        main(["sweep", file, "--dry-run"])
