"""Commands that are killed, stopped or torn end as they should: a few of `make trials`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from trials.commands import COMMANDS, differences
from trials.disturbances import FULL, SIGNALS, tear
from trials.trial import plan

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_few_trials(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    options = ["--trials=3", "--pairs=0", "--seed=3", "--commands", "fit", "generate", "index"]
    kinds = ["SIGKILL", "SIGTERM to all", "SIGKILL to a worker"]
    done = subprocess.run(
        [sys.executable, "-m", "trials", *options, f"--output={table}", "--disturbances", *kinds],
        env={**os.environ, "PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{os.environ.get('PYTHONPATH')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = table.read_text()
    assert text.endswith("3 of 3 right.\n")
    assert all(f"| {name} |" in text for name in ("fit", "generate", "index"))


def test_a_plan_has_all_commands_and_disturbances() -> None:
    planned = plan(70, 0, None, None)
    assert planned == plan(70, 0, None, None)
    assert {trial.command for trial in planned} == set(COMMANDS)
    kinds = {trial.disturbance for trial in planned if trial.command == "fit"}
    assert kinds == {kind.name for kind in SIGNALS} | {"SIGKILL, torn files", FULL}


def test_what_is_lost_twice_or_changed_is_found() -> None:
    wanted = {"a": [1, 2], "b": {"c": "x"}}
    assert differences({"a": [1, 2], "b": {"c": "x"}}, wanted) == []
    assert differences({"a": [1, 2, 2], "b": {"c": "x"}}, wanted) == ["a has 3 in place of 2"]
    assert differences({"a": [1, 3], "b": {}}, wanted) == ["a/1", "b/c"]
    assert differences({**wanted, "d": 0}, wanted) == ["d"]


def test_files_are_torn_but_those_that_were_synced(tmp_path: Path) -> None:
    import random

    for name in ("last.ckpt", "events", "table.csv"):
        (tmp_path / name).write_bytes(bytes(100))
    assert sorted(tear(tmp_path, random.Random(0))) == ["events", "table.csv"]
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes["last.ckpt"] == 100
    assert max(sizes["events"], sizes["table.csv"]) < 100
