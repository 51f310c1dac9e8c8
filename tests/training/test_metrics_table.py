"""`metrics.csv` of a resumed training: every row of an undisturbed one, each once."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from taghead.errors import DataError
from taghead.training.checkpoints import AtomicCheckpointIO, LastCheckpoint
from taghead.training.resume import ExactResume, run_loggers

NUM_BATCHES = 4


class Task(LightningModule):
    """A linear layer that logs each step and, if asked to, at the end of each epoch."""

    def __init__(self, logs_epochs: bool) -> None:
        super().__init__()
        self.logs_epochs = logs_epochs
        self.layer = nn.Linear(2, 1)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        if self.logs_epochs:
            self.log("train/bias", self.layer.bias.sum())

    def validation_step(self, batch: Tensor, index: int) -> None:
        self.log("val/loss", self.layer(batch).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(root: Path, resumed: Path | None = None, **options: Any) -> Path:
    """Trains two epochs of four batches and saves every step; its run's folder."""
    seed_everything(0, verbose=False)
    loader: Any = DataLoader(torch.ones(NUM_BATCHES, 2))  # equal: it cannot start within an epoch
    loggers = run_loggers(str(root), resumed)
    run = Path(loggers[0].log_dir or "")
    best = ModelCheckpoint(run / "checkpoints", monitor="val/loss", filename="best")
    trainer = Trainer(
        default_root_dir=root,
        logger=loggers,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ExactResume(), best, LastCheckpoint(1, str(run / "checkpoints"))],
        **{"max_epochs": 2, "num_sanity_val_steps": 0, "log_every_n_steps": 1, **options},
    )
    # at the last of `max_steps` Lightning does not end the epoch again
    task = Task(logs_epochs="max_steps" not in options)
    trainer.fit(task, loader, loader, ckpt_path=resumed, weights_only=True)
    return run


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{name: v for name, v in row.items() if v} for row in csv.DictReader(file)]


def losses(run: Path) -> list[tuple[int, float]]:
    """The steps and losses of all files of TensorBoard, whose names need not be in their order."""
    events = EventAccumulator(str(run), purge_orphaned_data=False).Reload()
    if "train/loss" not in events.Tags()["scalars"]:
        return []
    return sorted((event.step, event.value) for event in events.Scalars("train/loss"))


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of a run's folder as a kill just after each `last.ckpt` leaves it."""
    copies: list[Path] = []
    save = AtomicCheckpointIO.save_checkpoint

    def save_and_copy(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        save(self, checkpoint, path, storage_options)
        run = Path(path).parent.parent
        if Path(path).name == "last.ckpt" and run.parent.name == "whole":
            copies.append(tmp_path / f"killed_{len(copies)}" / run.name)
            shutil.copytree(run, copies[-1])

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", save_and_copy)
    return copies


@pytest.mark.parametrize("log_every", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},  # steps 1, 2, 3 and, after the epoch's validation, 4
        {"val_check_interval": 2},
        {"limit_val_batches": 0},  # step 4 is saved at the epoch's end
        {"accumulate_grad_batches": 2},
        {"max_epochs": -1, "max_steps": 7},
    ],
    ids=str,
)
def test_no_row_is_lost_and_none_is_there_twice(
    tmp_path: Path, killed: list[Path], options: dict[str, Any], log_every: int
) -> None:
    options = {**options, "log_every_n_steps": log_every}
    whole = rows(train(tmp_path / "whole", **options))
    assert len(whole) == len({tuple(sorted(row.items())) for row in whole})
    assert len(killed) >= 2
    for copy in killed:
        steps = torch.load(copy / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        late = tmp_path / "late" / copy.parent.name / copy.name  # killed a little later
        shutil.copytree(copy, late)
        shutil.copy(tmp_path / "whole" / copy.name / "metrics.csv", late)
        for run in (copy, late):
            resumed = train(run.parent, run / "checkpoints/last.ckpt", **options)
            assert resumed == run
            assert rows(run) == whole, f"{run.parts[-2]} after {steps} steps"
        assert losses(copy) == losses(tmp_path / "whole/version_0"), f"after {steps} steps"


def test_a_row_of_other_things_than_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "version_0/checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"global_step": 3, "unlogged_row": {"train/loss": "=1+1"}}, path)
    with pytest.raises(DataError, match=r"last.ckpt: .* unlogged_row must map names to numbers"):
        run_loggers(str(tmp_path), path)
