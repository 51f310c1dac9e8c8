"""What makes training fit: each option gives the numbers that training without it gives."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging
from ranks import data, task, trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.video import mvit_v2_s

from taghead.backbones import build_backbone
from taghead.cli import main
from taghead.errors import DataError
from taghead.training.checkpoints import LastCheckpoint
from taghead.training.finetuning import StagedUnfreezing, batch_norms
from taghead.training.optim import depth_stages
from taghead.training.recompute import blocks, recompute_activations


def passes(network: nn.Module, clip: Tensor) -> tuple[dict[str, Tensor], int]:
    """Two training passes: outputs, gradients and buffers, and the bytes kept for gradients."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(5)
    parameters = {p.data_ptr() for p in network.parameters()}
    for _ in range(2):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            output = network.train()(clip)
        output.square().mean().backward()
    found = {f"grad {n}": p.grad for n, p in network.named_parameters() if p.grad is not None}
    found |= {f"buffer {name}": b.clone() for name, b in network.named_buffers()}
    return {**found, "output": output.detach()}, sum(
        size for pointer, size in kept.items() if pointer not in parameters
    )


@pytest.mark.parametrize(
    ("build", "num_blocks", "size"),
    [
        (lambda: build_backbone("r2plus1d_tiny"), None, (8, 32, 32)),
        (lambda: build_backbone("s3d"), None, (16, 64, 64)),
        (lambda: mvit_v2_s(stochastic_depth_prob=0.5), 16, (16, 224, 224)),
    ],
    ids=["r2plus1d", "s3d", "mvit"],
)
def test_recomputing_changes_no_number_and_keeps_less(
    build: Any, num_blocks: int | None, size: tuple[int, int, int]
) -> None:
    torch.manual_seed(1)
    plain = build()
    if num_blocks:  # too large to run here: how it is divided
        assert sum(type(b).__name__ == "MultiscaleBlock" for b in blocks(plain)) == num_blocks
        return
    thrifty = copy.deepcopy(plain)
    recompute_activations(thrifty)
    assert list(thrifty.state_dict()) == list(plain.state_dict())
    clip = torch.randn(2, 3, *size)
    expected, most = passes(plain, clip)
    found, least = passes(copy.deepcopy(thrifty), clip)  # as an average of the weights copies it
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6, msg=name)
    assert any(name.endswith("num_batches_tracked") for name in found)  # 2, and not 4
    assert least < 0.6 * most
    assert torch.equal(thrifty.eval()(clip), build_like(thrifty, plain)(clip))


def build_like(source: nn.Module, target: nn.Module) -> nn.Module:
    target.load_state_dict(source.state_dict())
    return target.eval()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_task_gives_the_same_loss_and_gradients(backend: str) -> None:
    batch = (torch.randn(3, 3, 4, 32, 32), torch.arange(3), torch.arange(3))
    grads = []
    for options in ({}, {"compile_backend": backend}):
        model = task(**options)
        loss = model.training_step(batch, 0)
        loss.backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_recompute_and_compile_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"exclude each other \(got 'inductor'\)"):
        task(recompute=True, compile_backend="inductor")


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


def test_the_command_line_has_them_all(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    config = Path(__file__).parents[3] / "experiments" / "synthgym.yaml"
    sizes = {"num_train": 36, "num_val": 18, "num_test": 18, "batch_size": 6, "num_workers": 0}
    # oneDNN's gradients of 3D convolutions in bf16 read memory that nobody wrote, on some CPUs
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    main(
        [
            "fit",
            f"--config={config}",
            f"--data.root={dataset}",
            *(f"--data.{name}={number}" for name, number in sizes.items()),
            "--data.preprocessing.num_frames=4",
            "--data.preprocessing.resize=32",
            "--data.preprocessing.crop=32",
            "--trainer.accelerator=cpu",
            "--trainer.max_epochs=2",
            "--trainer.enable_progress_bar=false",
            "--trainer.precision=bf16-mixed",
            "--trainer.accumulate_grad_batches=2",
            "--trainer.callbacks+=taghead.training.finetuning.StagedUnfreezing",
            "--trainer.callbacks.epochs_per_stage=0",
            "--model.recompute=true",
            "--model.freeze_batch_norm=true",
            "--model.channels_last=true",
        ]
    )
    (last,) = tmp_path.rglob("last.ckpt")
    saved = torch.load(last, weights_only=True)
    assert saved["global_step"] == 6  # 6 batches an epoch, two to a step
    assert all(value.dtype != torch.bfloat16 for value in saved["state_dict"].values())
