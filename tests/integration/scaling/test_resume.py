"""Training that was cut off ends where an uninterrupted one does, bit for bit."""

import os
import random
import shutil
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from resume import Runner, same, trained, trials
from torch_geometric.nn import SAGEConv

from taghead import TAGHead
from taghead.cli import main
from taghead.data import SynthGym
from taghead.data.dataset import ClipDataset
from taghead.data.seeding import SampleKey
from taghead.training.checkpoints import LastCheckpoint
from taghead.training.run_folder import last_checkpoint
from taghead.training.task import ClassificationTask
from taghead.video import Preprocessing

SMALL = Preprocessing(num_frames=4, resize=36, crop=32)
SIZES = {"num_train": 36, "num_val": 18, "num_test": 18}


class CopyLast(Callback):
    """Copies `last.ckpt` after every batch, and after every epoch, in which it has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copies: list[Path] = []
        self.seen = 0

    def copy(self) -> None:
        path = self.folder / "last.ckpt"
        if path.exists() and path.stat().st_mtime_ns != self.seen:
            self.seen = path.stat().st_mtime_ns
            self.copies.append(self.folder / f"copy_{len(self.copies)}.ckpt")
            shutil.copy(path, self.copies[-1])

    def on_train_batch_start(self, *args: Any) -> None:
        self.copy()

    def on_train_end(self, *args: Any) -> None:
        self.copy()


def fit(
    dataset: Path, folder: Path, ckpt: Path | None = None, ema: bool = False, **options: Any
) -> tuple[CopyLast, dict[str, float]]:
    """Trains 3 epochs of 4 steps each, with a checkpoint at every step."""
    seed_everything(3, verbose=False)
    head = partial(
        TAGHead,
        encoder_layers=1,
        channels=32,
        encoder_heads=2,
        encoder_dropout=0.3,
        conv=SAGEConv,
        graph_dropout=0.2,
    )
    names = [str(i) for i in range(18)]
    more, every = options.pop("callbacks", []), options.pop("every_n_steps", 1)
    workers, balance = options.pop("num_workers", 0), options.pop("class_balance", 0.0)
    task = ClassificationTask(names, SMALL, "r2plus1d_tiny", head=head, warmup=0.2, mixup=0.3)
    data = SynthGym(
        str(dataset),
        **SIZES,
        preprocessing=SMALL,
        batch_size=9,
        num_workers=workers,
        class_balance=balance,
    )
    copies = CopyLast(folder)
    best = ModelCheckpoint(
        folder, monitor="val/loss", filename="best", enable_version_counter=False
    )
    callbacks = [copies, *more, *([EMAWeightAveraging(decay=0.7)] if ema else []), best]
    trainer = Trainer(
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        deterministic=True,
        callbacks=[*callbacks, LastCheckpoint(every, str(folder))],
        **{"max_epochs": 3, "num_sanity_val_steps": 0, **options},
    )
    trainer.fit(task, data, ckpt_path=ckpt, weights_only=True)
    return copies, {key: value.item() for key, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"ema": True},
        {"val_check_interval": 0.5},
        {"accumulate_grad_batches": 3, "class_balance": 0.5},
        {"max_epochs": -1, "max_steps": 10, "check_val_every_n_epoch": 2},
        {"num_workers": 1, "limit_train_batches": 3},
    ],
    ids=lambda options: next(iter(options)),
)
def test_from_every_checkpoint_on_training_is_the_same(
    dataset: Path, tmp_path: Path, options: dict
) -> None:
    copies, metrics = fit(dataset, tmp_path / "whole", **options)
    saved = [trained(path) for path in copies.copies]
    # at every step once; where a validation comes, behind it
    steps = [made["global_step"] for made in saved]
    wanted = set(range(1, steps[-1] + 1)) - ({4, 8} if "max_steps" in options else set())
    assert steps == sorted(wanted)
    *earlier, _ = copies.copies
    # within an epoch, where it is validated, where it ends
    for path in [earlier[i] for i in (1, 3, 6) if i < len(earlier)]:
        folder = tmp_path / path.stem
        _, found = fit(dataset, folder, ckpt=path, **options)
        made = trained(folder / "last.ckpt")
        assert [part for part in made if not same(made[part], saved[-1][part])] == [], path.name
        assert {name: metrics[name] for name in found} == found
    assert "train/loss" in found


class Terminate(Callback):
    """Sends SIGTERM to the training, once, in a batch of a step."""

    def __init__(self, step: int, split: str) -> None:
        self.step, self.split = step, split

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.end(trainer, "train")

    def on_validation_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.end(trainer, "val")

    def end(self, trainer: Trainer, split: str) -> None:
        if (trainer.global_step, split) == (self.step, self.split):
            self.step = -1
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("step", "split"), [(5, "train"), (7, "train"), (8, "val")])
def test_a_terminated_training_has_a_checkpoint_to_go_on_from(
    dataset: Path, tmp_path: Path, step: int, split: str
) -> None:
    """Within an epoch, in its last step, and in the first of two batches of its validation."""
    options = {"every_n_steps": 100}
    _, metrics = fit(dataset, tmp_path / "whole", **options)
    ended = tmp_path / "ended"
    with pytest.raises(SystemExit):
        fit(dataset, ended, callbacks=[Terminate(step, split)], **options)
    last = ended / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == (8 if step > 5 else 6)
    _, found = fit(dataset, tmp_path / "on", ckpt=last, **options)
    whole, made = (trained(tmp_path / name / "last.ckpt") for name in ("whole", "on"))
    assert [part for part in made if not same(made[part], whole[part])] == []
    assert {name: metrics[name] for name in found} == found


def test_killed_trainings_end_as_one_that_was_not(dataset: Path, tmp_path: Path) -> None:
    runner = Runner(dataset, ["--data.num_workers=0", "--trainer.max_epochs=3"])
    done = trials(tmp_path, runner, number=2, kills=1, seed=1)
    assert [trial.is_equal for trial in done] == [True, True]


def augmented(dataset: Path) -> ClipDataset:
    data = SynthGym(str(dataset), **SIZES, preprocessing=SMALL, num_workers=0)
    data.setup("fit")
    train = data.dataset("train")
    assert isinstance(train, ClipDataset)
    return train


def test_a_draw_decides_its_augmentation_and_leaves_the_generators_alone(dataset: Path) -> None:
    clips = augmented(dataset)
    first = clips[SampleKey(2, 5)][0]
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    clips[0]
    torch.rand(3)
    random.random()
    after = torch.get_rng_state()
    assert torch.equal(clips[SampleKey(2, 5)][0], first)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(before[0], after)
    assert any(not torch.equal(clips[SampleKey(2, seed)][0], first) for seed in range(3))


SMALL_RUN = [
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    *(f"--data.{name}={number}" for name, number in SIZES.items()),
    "--data.batch_size=6",
    "--data.num_workers=0",
    "--data.preprocessing.num_frames=8",
    "--data.preprocessing.resize=32",
    "--data.preprocessing.crop=32",
]


def command(name: str, dataset: Path, *args: str) -> None:
    config = Path(__file__).parents[3] / "experiments" / "synthgym.yaml"
    main([name, f"--config={config}", f"--data.root={dataset}", *SMALL_RUN, *args])


def test_last_is_the_newest_run_and_it_goes_on_in_its_folder(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    runs = tmp_path / "runs/synthgym"
    with pytest.raises(SystemExit, match="error: ckpt_path last: no run in runs/synthgym has a"):
        command("test", dataset, "--ckpt_path=last")
    command(
        "fit", dataset, "--trainer.max_epochs=1", "--ckpt_path=last"
    )  # none yet: from the start
    command("fit", dataset, "--trainer.max_epochs=1")
    assert last_checkpoint(runs) == runs / "version_1/checkpoints/last.ckpt"
    half = runs / "version_1/checkpoints/.unfinished-last.ckpt"
    half.write_bytes(b"half of")
    command("fit", dataset, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert not half.exists()
    assert sorted(path.name for path in runs.iterdir()) == ["version_0", "version_1"]
    steps = [
        torch.load(runs / f"version_{i}/checkpoints/last.ckpt", weights_only=True)["global_step"]
        for i in range(2)
    ]
    assert steps == [3, 6]
    table = pd.read_csv(runs / "version_1/metrics.csv")
    assert table.dropna(subset="train/loss")["step"].tolist() == list(range(6))
    assert table.dropna(subset="val/top1")["step"].tolist() == [2, 5]
    command("test", dataset, "--ckpt_path=last")
    assert (runs / "version_2/test/metrics.json").exists()


def test_a_file_that_is_no_checkpoint_is_named(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/synthgym/version_0/checkpoints"
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_text("hello")
    with pytest.raises(SystemExit, match=r"error: .*version_0/checkpoints/last.ckpt: not a check"):
        command("fit", dataset, "--ckpt_path=last")
