"""What makes training fit: each option gives the numbers that training without it gives."""

import sys
from pathlib import Path

import pytest
import torch
from ranks import task

from taghead.cli import main


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
