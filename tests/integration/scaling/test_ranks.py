"""Two processes say of a model what one says, and stop together."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from ranks import data, on_two, task, trainer

from taghead.errors import DataError
from taghead.metrics import ClipMean
from taghead.training.checkpoints import LastCheckpoint
from taghead.training.report import TestReport

NUM_CLIPS = 101


@pytest.fixture
def many(dataset: Path, tmp_path: Path) -> Path:
    """The dataset, with 101 clips to validate and to test on."""
    root = tmp_path / "many"
    shutil.copytree(dataset, root)
    table = pd.read_csv(root / "test.csv")
    more = pd.concat([table] * 6).iloc[:NUM_CLIPS]
    for split in ("val", "test"):
        more.sample(frac=1, random_state=3).to_csv(root / f"{split}.csv", index=False)
    return root


def evaluate(root: Path, devices: int, output: Path) -> dict[str, Any]:
    model, clips = task(), data(root)
    run = trainer(devices, callbacks=[TestReport(str(output))])
    (validated,) = run.validate(model, clips, verbose=False)
    (tested,) = run.test(model, clips, verbose=False)
    seen = sum(len(part) for part in model.test_predictions.clip_index)
    return {
        "numbers": {**validated, **tested},
        "predictions": model.test_predictions.compute()._asdict(),
        "seen": seen,
    }


def test_two_processes_measure_what_one_does(many: Path, tmp_path: Path) -> None:
    one = evaluate(many, 1, tmp_path / "one")
    both = on_two(evaluate, many, 2, tmp_path / "two")
    assert one["seen"] == NUM_CLIPS
    assert [part["seen"] for part in both] == [51, 51]  # one clip comes twice, and counts once
    for part in both:
        predictions = part["predictions"]
        assert predictions["clip_index"].tolist() == list(range(NUM_CLIPS))
        assert (predictions["label"] == one["predictions"]["label"]).all()
        np.testing.assert_allclose(
            predictions["probabilities"], one["predictions"]["probabilities"], atol=1e-6
        )
        numbers = part["numbers"]
        assert numbers.pop("val/loss") == pytest.approx(one["numbers"]["val/loss"], abs=1e-6)
        assert numbers == {k: v for k, v in one["numbers"].items() if k != "val/loss"}
    reports = [
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")
    ]
    for name in ("top1", "mca", "top5", "num_clips"):
        assert reports[0][name] == reports[1][name]
    assert reports[1]["num_clips"] == NUM_CLIPS


def test_a_clip_that_comes_twice_counts_once_in_a_mean() -> None:
    mean = ClipMean()
    mean.update(torch.tensor([3, 1]), torch.tensor([1.0, 2.0]))
    mean.update(torch.tensor([0, 3]), torch.tensor([6.0, 1.0]))
    assert mean.compute() == 3.0


def reported(root: Path, folder: Path) -> str:
    run = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=CSVLogger(folder, name="", version=0),
        enable_progress_bar=False,
        callbacks=[TestReport()],
    )
    run.test(task(), data(root), verbose=False)
    return run.log_dir or ""


def test_a_report_without_a_folder_on_two_processes(dataset: Path, tmp_path: Path) -> None:
    assert on_two(reported, dataset, tmp_path) == [str(tmp_path / "version_0")] * 2
    metrics = json.loads((tmp_path / "version_0/test/metrics.json").read_text())
    assert metrics["num_clips"] == metrics["num_listed"] == 18


class Infinite(Callback):
    """Gives one clip of one process a logit that is infinite."""

    def on_test_batch_start(self, trainer: Any, module: Any, *others: Any) -> None:
        if trainer.global_rank == 1:
            module.model.head.classifier[-1].bias.data[2] = float("-inf")


def infinite(root: Path) -> str:
    run = trainer(2, callbacks=[Infinite()])
    try:
        run.test(task(), data(root), verbose=False)
    except DataError as error:
        return str(error)
    return ""


def test_logits_that_are_not_finite_in_one_process_stop_both(dataset: Path) -> None:
    first, second = on_two(infinite, dataset)
    assert first == second
    assert first.startswith("the model's logits are not finite on 9 of 18 clips: ")


class Poison(Callback):
    """Makes the clips of one process useless in a step."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 2:
            batch[0].fill_(float("nan"))


class Seen(Callback):
    """Remembers the clips of the last batch."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        clips = trainer.train_dataloader.dataset.clips
        self.names = [clips[i].id for i in batch[2].tolist()]


def poisoned(root: Path, folder: Path) -> tuple[str, int, list[str]]:
    seen = Seen()
    callbacks = [Poison(), seen, LastCheckpoint(1, str(folder))]
    run = trainer(2, max_epochs=3, callbacks=callbacks)
    try:
        run.fit(task(), data(root, batch_size=4))
    except DataError as error:
        return str(error), run.global_step, seen.names
    return "", run.global_step, seen.names


def test_a_loss_that_is_no_number_in_one_process_stops_both(dataset: Path, tmp_path: Path) -> None:
    first, second = on_two(poisoned, dataset, tmp_path)
    assert first[1] == second[1] == 2
    for message, _, _ in (first, second):
        assert message.startswith("train/loss is nan in step 2 of epoch 0: ")
        named = message.partition("The clips of the batch: ")[2].partition(". The last")[0]
        assert named.split(", ") == second[2]
        assert message.endswith(f"The last checkpoint: {tmp_path / 'last.ckpt'}")
    assert not set(first[2]) & set(second[2])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


class Spoil(Callback):
    """Makes a gradient of one process useless in a step, whose loss is a number."""

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        if trainer.global_step == 2 and trainer.global_rank == trainer.world_size - 1:
            next(module.model.head.parameters()).grad[0] = float("inf")


def callback_of(kind: str, folder: Path) -> list[Callback]:
    """The callbacks that write checkpoints, each at every step."""
    best = ModelCheckpoint(folder, "last", every_n_train_steps=1, enable_version_counter=False)
    if kind == "averaged":
        return [EMAWeightAveraging(decay=0.5), best]
    return [best if kind == "best" else LastCheckpoint(1, str(folder))]


def spoiled(root: Path, folder: Path, devices: int, kind: str) -> tuple[str, int]:
    callbacks = [Spoil(), *callback_of(kind, folder)]
    run = trainer(devices, max_epochs=3, limit_val_batches=0, callbacks=callbacks)
    try:
        run.fit(task(), data(root, batch_size=4))
    except DataError as error:
        return str(error), run.global_step
    return "", run.global_step


@pytest.mark.parametrize(
    ("devices", "kind"), [(1, "last"), (1, "best"), (1, "averaged"), (2, "last"), (2, "best")]
)
def test_weights_that_are_no_numbers_take_no_checkpoints_place(
    dataset: Path, tmp_path: Path, devices: int, kind: str
) -> None:
    args = (dataset, tmp_path, devices, kind)
    for message, step in [spoiled(*args)] if devices == 1 else on_two(spoiled, *args):
        assert step == 3
        first = next(name for name, _ in task().named_parameters() if ".head." in name)
        assert f"weights are not finite after step 3, the first of 1: {first}; no c" in message
        assert message.endswith(f"The last one: {tmp_path / 'last.ckpt'}")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
