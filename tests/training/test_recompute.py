"""Recomputed activations: the same numbers in less memory."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.video import mvit_v2_s

from taghead.backbones import build_backbone
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
