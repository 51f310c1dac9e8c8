import pytest
import torch
from torch import nn

from taghead.backbones import build_backbone
from taghead.training.optim import depth_stages, parameter_groups


@pytest.mark.parametrize(
    ("name", "first_names"),
    [
        ("r2plus1d_tiny", ["features.0.", "features.1.", "features.2.", "features.3."]),
        ("r3d_18", [f"features.{i}." for i in range(5)]),
        ("swin3d_t", ["features.0.", *(f"features.2.{i}." for i in range(7)), "features.3."]),
    ],
)
def test_stages_are_those_of_the_network(name: str, first_names: list[str]) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    stages = depth_stages(backbone)
    for stage, first in zip(stages, first_names, strict=True):
        assert stage[0][0].startswith(first)
    flat = [pair for stage in stages for pair in stage]
    assert [name for name, _ in flat] == [name for name, _ in backbone.named_parameters()]
    assert all(a is b for (_, a), b in zip(flat, backbone.parameters(), strict=True))


def test_rates_fall_towards_the_input() -> None:
    backbone = build_backbone("r2plus1d_tiny")
    groups = parameter_groups(backbone, rate=0.8, weight_decay=0.1, layer_decay=0.5)
    assert [group["lr"] for group in groups] == [0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.8, 0.8]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0] * 4
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rates) == len(list(backbone.parameters()))
    for name, parameter in backbone.named_parameters():
        assert rates[id(parameter)] == 0.1 * 2 ** int(name.split(".")[1]), name


def test_no_decay_of_layers_is_two_groups() -> None:
    backbone = build_backbone("r2plus1d_tiny")
    groups = parameter_groups(backbone, rate=0.8, weight_decay=0.1)
    assert [group["lr"] for group in groups] == [0.8, 0.8]
    assert all(p.dim() > 1 for p in groups[0]["params"])


def test_parameters_beside_the_children_are_of_the_first_stage() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    network.register_parameter("positions", nn.Parameter(torch.zeros(2, 2)))
    names = [[name for name, _ in stage] for stage in depth_stages(network)]
    assert names == [["positions", "0.weight", "0.bias"], ["2.weight", "2.bias"]]
    assert depth_stages(nn.ReLU()) == [[]]
