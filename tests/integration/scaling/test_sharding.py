"""The model under FSDP: Lightning runs it on GPUs only, torch's own also on the CPU with gloo."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from ranks import on_two, task
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy
from torch.nn import functional as F

from taghead.training.recompute import blocks

LAYERS = {"layer_decay": 0.5, "weight_decay": 0.5, "learning_rate": 1e-2}


def one_step(sharded: bool) -> tuple[dict[str, Tensor], list[tuple[int, float, float]]]:
    """The parameters after a step on 4 clips, and the sizes and options of their groups."""
    model = task(freeze_batch_norm=True, **LAYERS)
    clip, label = (
        torch.randn(4, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1)),
        torch.arange(4),
    )
    network: nn.Module = model
    if sharded:
        rank = int(os.environ["LOCAL_RANK"])
        distributed.init_process_group("gloo", rank=rank, world_size=2)
        clip, label = clip[rank::2], label[rank::2]
        # not the head's operators, which are not called as modules where they run densely
        units = {id(block) for block in blocks(model.model.backbone)}
        policy = partial(lambda_auto_wrap_policy, lambda_fn=lambda module: id(module) in units)
        network = FSDP(
            model, use_orig_params=True, auto_wrap_policy=policy, device_id=torch.device("cpu")
        )
        assert sum(isinstance(m, FSDP) for m in network.modules()) > 2
    groups = model.optimizer_groups()
    optimizer = torch.optim.SGD(groups)  # Adam's first step hides how large a gradient is
    F.cross_entropy(network(clip), label).backward()
    optimizer.step()
    options = [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups]
    if not sharded:
        return {n: p.detach().clone() for n, p in model.named_parameters()}, options
    with FSDP.summon_full_params(network):
        full = {
            name.replace("_fsdp_wrapped_module.", ""): p.detach().clone()
            for name, p in network.named_parameters()
        }
    distributed.destroy_process_group()
    return full, options


def test_a_sharded_step_is_the_step_of_one_process() -> None:
    expected, groups = one_step(sharded=False)
    before = dict(task(freeze_batch_norm=True, **LAYERS).named_parameters())
    assert len({rate for _, rate, _ in groups}) > 3  # a rate for each stage
    for found, found_groups in on_two(one_step, True):
        assert found_groups == groups
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)
    moved = [name for name, value in expected.items() if not torch.equal(value, before[name])]
    assert any(name.startswith("model.backbone") for name in moved)


def test_lightning_says_that_it_shards_on_gpus_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`fsdp` requires a GPU accelerator"):
        Trainer(accelerator="cpu", strategy="fsdp", default_root_dir=tmp_path)
