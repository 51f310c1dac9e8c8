"""Commands and checkpoints: whose weights are tested, what a resumed training has, how it ends."""

import os
import shutil
import signal
import sys
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from taghead.cli import main
from taghead.training import run_folder
from taghead.training.command import fit, validate
from taghead.training.run_folder import lock_run
from taghead.training.task import ClassificationTask

CONFIG = Path(__file__).parents[2] / "experiments" / "synthgym.yaml"
SMALL = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.default_root_dir=runs",
    "--data.num_train=36",
    "--data.num_val=18",
    "--data.num_test=18",
    "--data.batch_size=6",
    "--data.num_workers=0",
    "--data.preprocessing.num_frames=8",
    "--data.preprocessing.resize=32",
    "--data.preprocessing.crop=32",
]
RUNS = Path("runs")
LAST = RUNS / "version_0/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training of one epoch in it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["taghead"])
        main(["fit", f"--config={CONFIG}", f"--data.root={dataset}", *SMALL])
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and the working folder."""
    shutil.copytree(trained / RUNS, tmp_path / RUNS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    monkeypatch.setattr(run_folder, "LOCK_TIMEOUT_SEC", 0.2)
    return tmp_path


def run(command: str, dataset: Path, *args: str) -> None:
    main([command, f"--config={CONFIG}", f"--data.root={dataset}", *SMALL, *args])


def saved_config(version: int) -> dict[str, Any]:
    return yaml.safe_load((RUNS / f"version_{version}/config.yaml").read_text())


def test_weights_that_are_tested_are_never_random(dataset: Path, folder: Path) -> None:
    for command in ("test", "validate"):
        with pytest.raises(SystemExit, match=r"^error: weights to evaluate are missing: .*--ckpt"):
            run(command, dataset)
    assert [path.name for path in RUNS.iterdir()] == ["version_0"]


def test_a_test_of_a_runs_config_has_its_best_checkpoint(dataset: Path, folder: Path) -> None:
    config, best = RUNS / "version_0/config.yaml", LAST.with_name("best.ckpt")
    text = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**text, "ckpt_path": str(LAST)}))  # of a resumed training
    main(["validate", f"--config={config}"])
    assert saved_config(1)["ckpt_path"] == str(best)
    config.write_text(yaml.safe_dump({**text, "ckpt_path": None}))
    LAST.unlink()
    best.unlink()
    with pytest.raises(SystemExit, match=r"version_0: no best checkpoint; .*--ckpt_path=FILE"):
        main(["validate", f"--config={config}"])
    assert not (RUNS / "version_2").exists()


def test_last_is_recorded_as_the_file_that_it_was(dataset: Path, folder: Path) -> None:
    run("fit", dataset, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert saved_config(0)["ckpt_path"] == str(LAST)
    run("validate", dataset, "--ckpt_path=last")
    assert saved_config(1)["ckpt_path"] == str(LAST)


def test_last_is_found_under_a_logger_of_ones_own(
    dataset: Path,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=runs", "--ckpt_path=last"]
    run("fit", dataset, *logger)
    told = capsys.readouterr().err
    assert "ckpt_path last: no run in runs/lightning_logs has a last.ckpt" in told
    run("fit", dataset, *logger, "--trainer.max_epochs=2")
    config = yaml.safe_load((RUNS / "lightning_logs/version_1/config.yaml").read_text())
    assert config["ckpt_path"] == "runs/lightning_logs/version_0/checkpoints/last.ckpt"
    last = RUNS / "lightning_logs/version_1/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 6


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model.learning_rate=0.5"], "learning_rate .* is 0.0005, asked for is 0.5"),
        (["--model.optimizer=adam"], "optimizer of .* is adamw, asked for is adam"),
        (["--model.weight_decay=0.9"], "weight_decay of .* is 0.02, asked for is 0.9"),
        (["--model.head.conv=torch_geometric.nn.TransformerConv", "--model.head.conv.heads=8"], ""),
        (["--model.head.graph_activation=relu"], "'gelu', the model's is 'relu'"),
    ],
    ids=["rate", "optimizer", "decay", "heads", "activation"],
)
def test_a_resumed_training_has_the_options_of_its_run(
    dataset: Path, folder: Path, options: list[str], told: str
) -> None:
    with pytest.raises(SystemExit, match=f"^error: .*{told}") as stop:
        run("fit", dataset, "--trainer.max_epochs=2", f"--ckpt_path={LAST}", *options)
    assert "\n" not in str(stop.value)
    assert torch.load(LAST, weights_only=True)["global_step"] == 3


def test_a_run_that_is_running_is_not_resumed(dataset: Path, folder: Path) -> None:
    lock = lock_run(RUNS / "version_0")
    table = (RUNS / "version_0/metrics.csv").read_text()
    with pytest.raises(SystemExit, match=r"^error: runs/version_0: a training is running in this"):
        run("fit", dataset, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert (RUNS / "version_0/metrics.csv").read_text() == table
    lock.release()


def test_a_training_locks_its_folder(
    dataset: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def step(self: Any, *args: Any) -> None:
        with pytest.raises(ValueError, match="a training is running") as error:
            lock_run(RUNS / "version_1")
        refused.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ClassificationTask, "on_train_batch_start", step, raising=False)
    with pytest.raises(SystemExit) as stop:
        run("fit", dataset)
    assert stop.value.code == 143
    assert len(refused) == 1
    last = RUNS / "version_1/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 1  # what was trained is saved
    lock_run(RUNS / "version_1").release()


def test_a_run_that_cannot_begin_leaves_no_folder(dataset: Path, folder: Path) -> None:
    with pytest.raises(SystemExit, match="trainer: "):
        run("fit", dataset, "--trainer.devices=abc")
    assert [path.name for path in RUNS.iterdir()] == ["version_0"]


def test_another_rank_claims_no_folder(
    dataset: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with pytest.raises(SystemExit, match="trainer: "):
        run("fit", dataset, "--trainer.devices=abc")
    assert [path.name for path in RUNS.iterdir()] == ["version_0"]


def nan_logits(self: Any, clip: torch.Tensor) -> torch.Tensor:
    logits = torch.zeros(len(clip), 18)
    logits[0, 3] = -torch.inf  # of which softmax makes probabilities
    return logits


@pytest.mark.parametrize("command", ["test", "validate"])
def test_clips_with_logits_that_are_not_finite_are_named(
    dataset: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(ClassificationTask, "forward", nan_logits)
    told = r"^error: the model's logits are not finite on [13] of \d+ clips: .*\.mp4.*; no accuracy"
    with pytest.raises(SystemExit, match=told):
        run(command, dataset, f"--ckpt_path={LAST}")
    assert not list(RUNS.rglob("metrics.json"))


def test_a_checkpoint_is_read_as_data_and_its_hyper_parameters_not_at_all(
    dataset: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = {"class_path": "timeit.timeit", "init_args": {"stmt": "open('PWNED', 'w')"}}
    hyper = {
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
        "head": {"class_path": "taghead.TAGHead", "init_args": {"conv": evil}},
        "learning_rate": 1e9,
    }
    whole = torch.load(LAST, weights_only=True)
    torch.save({**whole, "hyper_parameters": hyper}, LAST)
    given: dict[str, Any] = {}

    @wraps(Trainer.validate)  # the command line has its arguments
    def note(self: Trainer, **options: Any) -> None:
        given.update(options)

    monkeypatch.setattr(Trainer, "validate", note)
    run("validate", dataset, f"--ckpt_path={LAST}")
    assert given["weights_only"] is True
    assert given["ckpt_path"] == str(LAST)
    assert given["model"].learning_rates["head"] == 5e-4
    assert not Path("PWNED").exists()


def test_a_checkpoint_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor behind the check of command lines, which may know less."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("ckpt_path: http://127.0.0.1:9/a.ckpt\n")
    args = [f"--config={CONFIG}", "--config=config.yaml", f"--data.root={tmp_path}", *SMALL]
    for evaluate in (fit, validate):
        with pytest.raises(ValueError, match=r"a.ckpt is an address, and nothing is fetched"):
            evaluate(args)
    assert not RUNS.exists()
