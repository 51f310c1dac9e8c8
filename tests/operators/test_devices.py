"""The dense engine leaves nothing on another device than its tokens; this needs no GPU."""

import pytest
import torch
from cases import CASES, RELATION_SETS, WIDTH, Case, edge_features, run
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from taghead.graph import Grid

GRID = Grid(3, 2, 3)
# PNAConv reads its statistics of degrees as numbers, which tensors without values cannot tell
FIRST_OF_CLASS = {case.cls: case for case in CASES if case.cls.__name__ != "PNAConv"}


def on_the_gpu(module: nn.Module) -> nn.Module:
    """The module with tensors that have a device, and no values."""
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, value in held.items():
                if value is not None:
                    held[name] = torch.empty_like(value, device="cuda")
    return module


@pytest.mark.parametrize("name", RELATION_SETS)
def test_all_tensors_are_where_the_tokens_are(name: str) -> None:
    relations = RELATION_SETS[name]
    for case in FIRST_OF_CLASS.values():
        edge_attr = edge_features(case, len(relations), torch.float32)
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            conv = on_the_gpu(case.build())
            x = torch.empty(2, GRID.num_nodes, WIDTH, device="cuda")
            if edge_attr is not None:
                edge_attr = torch.empty(edge_attr.shape, device="cuda")
            out = run(conv, x, GRID, relations, "dense", edge_attr)
        assert out.device.type == "cuda", case


def test_a_tensor_elsewhere_is_noticed() -> None:
    case: Case = next(case for case in CASES if case.cls.__name__ == "GCNConv")
    with torch.no_grad(), FakeTensorMode():
        x = torch.empty(2, GRID.num_nodes, WIDTH, device="cuda")
        with pytest.raises(RuntimeError, match="same device"):
            run(case.build(), x, GRID, RELATION_SETS["union"], "dense", None)
