"""What stops a command that has begun: a line and an exit code, no traceback."""

import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from taghead.cli import main
from taghead.errors import IGNORED_WARNINGS, DataError
from taghead.files import atomic_file, atomic_folder
from taghead.training.lightning_cli import mendable

CONFIG = Path(__file__).parents[2] / "experiments" / "synthgym.yaml"
COMMAND = [sys.executable, "-c", "from taghead.cli import main; main()"]
SMALL = [
    "--trainer.max-epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.num_train=36",
    "--data.num_val=18",
    "--data.num_test=18",
    "--data.batch-size=6",
    "--data.num_workers=0",
    "--data.preprocessing.num_frames=8",
    "--data.preprocessing.resize=32",
    "--data.preprocessing.crop=32",
]
LAST = Path("runs/synthgym/version_0/checkpoints/last.ckpt")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    return tmp_path


def fit_args(dataset: Path, *args: str) -> list[str]:
    return ["fit", f"--config={CONFIG}", f"--data.root={dataset}", *SMALL, *args]


@pytest.mark.parametrize("callback", ["ModelCheckpoint", "EarlyStopping"])
def test_a_metric_that_there_is_not(dataset: Path, callback: str) -> None:
    path = f"lightning.pytorch.callbacks.{callback}"
    args = [f"--trainer.callbacks+={path}", "--trainer.callbacks.monitor=val/topp1"]
    told = r"^error: trainer.callbacks: monitor: there is no metric 'val/topp1'; did you mean val/t"
    with pytest.raises(SystemExit, match=told) as stop:
        main(fit_args(dataset, *args))
    assert "\n" not in str(stop.value.code)


def test_other_parameters_after_a_checkpoint(dataset: Path) -> None:
    main(fit_args(dataset))
    more = ["--trainer.max_epochs=2", f"--ckpt-path={LAST}", "--model.freeze-backbone"]
    told = f"^error: {LAST}: its optimizer has other parameters .*--model.freeze_backbone"
    with pytest.raises(SystemExit, match=told) as stop:
        main(fit_args(dataset, *more))
    assert "\n" not in str(stop.value.code)
    with pytest.raises(SystemExit, match=rf"^error: best: no .*{LAST.parent}/best.ckpt\?"):
        main(["test", f"--config={CONFIG}", "--ckpt_path=best"])


def test_a_batch_norm_with_one_value(dataset: Path) -> None:
    size = ["num_frames=1", "resize=8", "crop=8"]
    args = [f"--data.preprocessing.{option}" for option in size]
    told = "^error: data.batch_size: batch norm needs more than one value per channel"
    with pytest.raises(SystemExit, match=told) as stop:
        main(fit_args(dataset, *args, "--data.batch_size=1"))
    assert "\n" not in str(stop.value.code)


def test_values_that_lightning_refuses(dataset: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: trainer: `devices` selected with `CPUAcc"):
        main(fit_args(dataset, "--trainer.devices=abc"))


def test_values_that_only_the_parser_refuses(
    dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arg, told in {
        "--trainer.callbacks+=Chekpoint": "--trainer.callbacks: Chekpoint is no known class",
        "--trainer.max_epochs=1.5": "--trainer.max_epochs: Does not validate",
        "--trainer.logger=CSVLogger": "--trainer.logger: Problem with given class_path",
    }.items():
        with pytest.raises(SystemExit) as stop:
            main(fit_args(dataset, arg))
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: --trainer.")
        assert told.split(": ")[0] in error
        assert error.count("\n") == 1


def test_a_full_disk_in_training(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    told = "^error: .*runs/synthgym/version_0.*: no space left on the disk$"
    with pytest.raises(SystemExit, match=told):
        main(fit_args(dataset))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_in_a_command() -> None:
    sizes = ["--num_frames=8", "--size=32", "--runs=1", "--output=/dev/full"]
    with pytest.raises(SystemExit, match=r"^error: /dev/full: no space left on the disk$"):
        main(["bench", "model", "r2plus1d_tiny", *sizes])


@pytest.mark.parametrize("write", [atomic_file, atomic_folder])
def test_a_full_disk_is_named(write: Any, folder: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*target'"):
        with write(folder / "target"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_which_errors_an_option_mends() -> None:
    with pytest.raises(ValueError, match="more than 1 value") as norm:
        nn.BatchNorm3d(2)(torch.zeros(1, 2, 1, 1, 1))
    assert "--data.batch_size" in (mendable(norm.value, None) or "")
    assert "--data.batch_size" in (mendable(torch.OutOfMemoryError("CUDA"), None) or "")
    assert mendable(RuntimeError("shapes do not match"), None) is None
    assert mendable(ValueError("a bug"), "last.ckpt") is None


def test_an_error_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**arguments: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("taghead.cli.live.load", lambda path: broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["demo"])


@pytest.mark.parametrize(
    ("error", "told", "code"),
    [
        (DataError("a.csv: no column"), "error: a.csv: no column", "error: a.csv: no column"),
        (KeyboardInterrupt(), "stopped\n", 130),
        (KeyboardInterrupt("go on"), "stopped; go on\n", 130),
    ],
)
def test_what_stops_a_command(
    error: BaseException,
    told: str,
    code: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("taghead.cli.live.run", stopped)
    with pytest.raises(SystemExit) as stop:
        main(["demo"])
    assert stop.value.code == code
    assert capsys.readouterr().err == ("" if isinstance(code, str) else told)


def interrupted(args: list[str], is_ready: Any) -> tuple[int, str]:
    """Exit code and standard error of a command that Ctrl-C stops once it has begun."""
    process = subprocess.Popen(
        [*COMMAND, *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not is_ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def test_ctrl_c_in_training(dataset: Path) -> None:
    args = fit_args(dataset, "--trainer.max_epochs=1000", "--data.num_workers=1")
    code, told = interrupted(args, LAST.exists)
    assert code == 130
    assert "Traceback" not in told
    assert "Detected KeyboardInterrupt" not in told
    assert told.splitlines()[-1].startswith("stopped; --ckpt_path=")
    assert torch.load(LAST, weights_only=True)["state_dict"]  # what is finished stays


def test_ctrl_c_in_generate(folder: Path) -> None:
    videos = folder / "clips" / "videos"
    code, told = interrupted(
        ["generate", "clips", "--num-workers=0", "--progress=false"],
        lambda: any(videos.rglob("[!.]*.mp4")),  # a hidden one is not finished
    )
    assert (code, told) == (130, "stopped\n")
    assert list(videos.rglob("[!.]*.mp4"))


def test_warnings_that_concern_nobody_are_patterns() -> None:
    assert all(isinstance(pattern, str) for pattern in IGNORED_WARNINGS)
    assert len(set(IGNORED_WARNINGS)) == len(IGNORED_WARNINGS)
