"""Staged unfreezing and frozen batch norms."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from ranks import data, task, trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from taghead.errors import DataError
from taghead.training.checkpoints import LastCheckpoint
from taghead.training.finetuning import StagedUnfreezing, batch_norms
from taghead.training.optim import depth_stages


def test_frozen_batch_norms_stay_as_they_are(dataset: Path) -> None:
    model = task(freeze_batch_norm=True)
    norms = {n: m for n, m in model.model.backbone.named_modules() if isinstance(m, _BatchNorm)}
    before = copy.deepcopy({name: norm.state_dict() for name, norm in norms.items()})
    weight = next(p for p in model.model.backbone.parameters() if p.dim() > 1)
    first = weight.clone()
    trainer(1, max_epochs=1, limit_val_batches=1, enable_checkpointing=False).fit(
        model, data(dataset)
    )
    for name, norm in norms.items():
        for key, value in before[name].items():
            assert torch.equal(norm.state_dict()[key], value), (name, key)
    assert not torch.equal(weight, first)  # the rest is trained


class Watch(Callback):
    """Which stages of the backbone change in each epoch, and which norms keep their statistics."""

    def __init__(self) -> None:
        self.changed: list[list[bool]] = []

    def state(self, module: Any) -> list[list[Tensor]]:
        stages = [[p.detach().clone() for _, p in s] for s in depth_stages(module.model.backbone)]
        return stages

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.on_train_epoch_start(trainer, module)  # resumed, it begins in the middle

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.before = self.state(module)
        self.means = [n.running_mean.clone() for n in batch_norms(module.model.backbone)]

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        pairs = zip(self.before, self.state(module), strict=True)
        self.changed.append(
            [any(not torch.equal(a, b) for a, b in zip(*p, strict=True)) for p in pairs]
        )
        norms = zip(self.means, batch_norms(module.model.backbone), strict=True)
        for mean, norm in norms:
            trained = norm.weight.requires_grad
            assert trained == (not torch.equal(mean, norm.running_mean))


def unfreeze(root: Path, folder: Path, epochs: int, ckpt: Path | None = None) -> tuple[Any, Any]:
    model, watch = task(weight_decay=0.1), Watch()
    stages = StagedUnfreezing(first_epoch=1, epochs_per_stage=1)
    callbacks = [stages, watch, EMAWeightAveraging(decay=0.5), LastCheckpoint(3, str(folder))]
    run = trainer(1, max_epochs=epochs, callbacks=callbacks, limit_val_batches=1)
    run.fit(model, data(root, batch_size=9), ckpt_path=ckpt, weights_only=True)
    return model, watch


def test_stages_are_unfrozen_from_the_last_on_also_after_resuming(
    dataset: Path, tmp_path: Path
) -> None:
    model, watch = unfreeze(dataset, tmp_path / "whole", 3)
    num_stages = len(depth_stages(model.model.backbone))
    for epoch, changed in enumerate(watch.changed):
        assert changed == [i >= num_stages - epoch for i in range(num_stages)]
    whole = torch.load(tmp_path / "whole/last.ckpt", weights_only=True)

    class Cut(Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 7:  # the last checkpoint is of step 4 + 3
                raise KeyError

    model = task(weight_decay=0.1)
    callbacks = [StagedUnfreezing(), EMAWeightAveraging(decay=0.5), Cut()]
    callbacks += [LastCheckpoint(3, str(tmp_path / "cut"))]
    run = trainer(1, max_epochs=3, callbacks=callbacks, limit_val_batches=1)
    with pytest.raises(KeyError):
        run.fit(model, data(dataset, batch_size=9))
    cut = tmp_path / "cut/last.ckpt"
    assert torch.load(cut, weights_only=True)["global_step"] == 7
    unfreeze(dataset, tmp_path / "resumed", 3, ckpt=cut)
    resumed = torch.load(tmp_path / "resumed/last.ckpt", weights_only=True)
    for key, value in whole["current_model_state"].items():
        assert torch.equal(resumed["current_model_state"][key], value), key


def test_how_many_stages_are_trained() -> None:
    slow, at_once = StagedUnfreezing(2, 3), StagedUnfreezing(1, 0)
    assert [slow.num_trained(e, 3) for e in range(12)] == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert [at_once.num_trained(e, 5) for e in range(3)] == [0, 5, 5]
    with pytest.raises(ValueError, match=r"first_epoch must not be negative \(got -1\)"):
        StagedUnfreezing(-1)


def test_unfreezing_needs_a_backbone_to_train(dataset: Path) -> None:
    run = trainer(1, max_epochs=1, callbacks=[StagedUnfreezing()], enable_checkpointing=False)
    with pytest.raises(DataError, match="StagedUnfreezing needs a backbone that is trained"):
        run.fit(task(freeze_backbone=True), data(dataset))


@pytest.mark.parametrize("frozen", [False, True])
def test_norms_that_are_synchronised_are_treated_as_norms(frozen: bool) -> None:
    """As the trainer's `sync_batchnorm` makes them; they themselves run on GPUs only."""
    model = task(freeze_batch_norm=frozen, recompute=True)
    keys, number = list(model.state_dict()), len(batch_norms(model.model.backbone))
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    norms = batch_norms(model.model.backbone)
    assert len(norms) == number > 0
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(model.state_dict()) == keys
    model.train()
    assert {norm.training for norm in norms} == {not frozen}
    assert {p.requires_grad for norm in norms for p in norm.parameters()} == {not frozen}
