"""Run folders: claimed once, locked, and searched for the last and the best checkpoint."""

import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from taghead.errors import DataError
from taghead.training import run_folder
from taghead.training.checkpoint_choice import checkpoint_of_run
from taghead.training.run_folder import (
    ANY_LAYOUT,
    best_checkpoint,
    claim_version,
    clear_dead,
    last_checkpoint,
    lock_run,
    remove_empty,
)


def save(path: Path, steps: int, best: Path | str = "", monitor: str = "val/top1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"monitor": monitor, "best_model_path": str(best)}
    content = {"global_step": steps, "state_dict": {}, "callbacks": {f"M{monitor}": state}}
    torch.save(content, path)
    return path


def test_each_process_claims_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "version_7").mkdir()
    with ThreadPoolExecutor(8) as pool:
        claimed = sorted(pool.map(claim_version, [tmp_path] * 24))
    assert claimed == list(range(8, 32))


def test_a_folder_that_appears_meanwhile_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version_0").mkdir()
    monkeypatch.setattr(run_folder, "next_version", lambda root: 0)
    assert claim_version(tmp_path) == 1


def test_a_locked_run_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "LOCK_TIMEOUT_SEC", 0.0)
    lock = lock_run(tmp_path / "version_0")
    with pytest.raises(DataError, match=r"version_0: a training is running .*--ckpt_path=.*last"):
        lock_run(tmp_path / "version_0")
    lock_run(tmp_path / "version_1").release()
    lock.release()
    lock_run(tmp_path / "version_0").release()


def test_only_empty_folders_are_removed(tmp_path: Path) -> None:
    for name in ("empty", "locked", "written"):
        (tmp_path / name).mkdir()
    lock_run(tmp_path / "locked").release()
    (tmp_path / "written/config.yaml").touch()
    for folder in list(tmp_path.iterdir()):
        remove_empty(folder)
    assert [folder.name for folder in tmp_path.iterdir()] == ["written"]


def test_last_goes_by_the_run_and_its_steps_not_by_file_times(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    old = save(tmp_path / "version_9/checkpoints/last.ckpt", 50)
    fewer = save(tmp_path / "version_10/checkpoints/last.ckpt", 4)
    more = save(tmp_path / "version_10/checkpoints/last-v1.ckpt", 6)
    (tmp_path / "version_11/checkpoints").mkdir(parents=True)  # killed before its first one
    for day, path in enumerate((more, fewer, old)):  # as a copy may leave them
        os.utime(path, (86400 * day, 86400 * day))
    assert last_checkpoint(tmp_path) == more
    more.unlink()
    assert last_checkpoint(tmp_path) == fewer


def test_last_below_a_loggers_own_folder(tmp_path: Path) -> None:
    first = save(tmp_path / "project/abc/checkpoints/last.ckpt", 5)
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path, ANY_LAYOUT) == first
    save(tmp_path / "project/xyz/checkpoints/last.ckpt", 9)
    with pytest.raises(DataError, match=r"ambiguous; .*abc/checkpoints/last.ckpt, .*xyz"):
        last_checkpoint(tmp_path, ANY_LAYOUT)


def test_the_best_checkpoint_is_the_one_that_the_newest_names(tmp_path: Path) -> None:
    run = tmp_path / "version_0"
    with pytest.raises(DataError, match=r"version_0: no best checkpoint; .*\(there are: none\)"):
        best_checkpoint(run)
    elsewhere = "/elsewhere/version_0/checkpoints"  # the run's folder was moved
    early = save(run / "checkpoints/epoch=1.ckpt", 2, f"{elsewhere}/epoch=1.ckpt")
    late = save(run / "checkpoints/epoch=2.ckpt", 4, f"{elsewhere}/epoch=2.ckpt")
    save(run / "checkpoints/last.ckpt", 6, f"{elsewhere}/epoch=2.ckpt")
    assert best_checkpoint(run) == late
    save(run / "checkpoints/last.ckpt", 6, f"{elsewhere}/epoch=1.ckpt")
    assert best_checkpoint(run) == early
    save(run / "checkpoints/last.ckpt", 6, late, monitor="")  # kept without a metric
    with pytest.raises(DataError, match=r"no best checkpoint; .*epoch=1.ckpt, .*last.ckpt\)"):
        best_checkpoint(run)


def test_the_checkpoint_of_a_test(tmp_path: Path) -> None:
    run = tmp_path / "version_0"
    best = save(run / "checkpoints/best.ckpt", 2, "best.ckpt")
    config, mine = run / "config.yaml", tmp_path / "mine.yaml"
    config.write_text("ckpt_path: resumed_from.ckpt")
    mine.write_text("ckpt_path: mine.ckpt")
    with pytest.raises(DataError, match=r"^weights to evaluate are missing: give --ckpt_path="):
        checkpoint_of_run({"ckpt_path": None, "config": [mine]}, ["test"])
    merged = {"ckpt_path": "resumed_from.ckpt", "config": [mine, config]}
    assert checkpoint_of_run(merged, ["test", "--config=..."]) == best
    merged = {"ckpt_path": "mine.ckpt", "config": [config, mine]}
    assert checkpoint_of_run(merged, ["test"]) == "mine.ckpt"
    given = {"ckpt_path": "given.ckpt", "config": [config]}
    for args in (["test", "--ckpt_path=given.ckpt"], ["test", "--ckpt-path", "given.ckpt"]):
        assert checkpoint_of_run(given, args) == "given.ckpt"


def test_half_a_first_checkpoint_is_cleared_and_that_of_a_live_training_is_not(
    tmp_path: Path,
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    machine = re.sub("[^A-Za-z0-9.]", "_", platform.node())
    left = [
        tmp_path / f"version_{i}/checkpoints/.unfinished-{machine}-{pid}-last.ckpt"
        for i, pid in enumerate((gone.pid, os.getpid()))
    ]
    for path in left:
        path.parent.mkdir(parents=True)
        path.touch()
    clear_dead(tmp_path)
    assert [path.exists() for path in left] == [False, True]
