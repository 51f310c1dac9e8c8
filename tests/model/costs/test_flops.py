from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import SimpleConv

from taghead.backbones import build_backbone
from taghead.model.costs import count_flops

X = torch.randn(6, 5)
INDEX = torch.tensor([0, 1, 1, 0, 2, 2])

OPERATIONS: dict[str, tuple[Callable[[], Tensor], int]] = {
    "addition": (lambda: X + X, 30),
    "in place": (lambda: X.clone().mul_(2), 30),
    "function": (lambda: X.exp(), 30),
    "broadcast": (lambda: X[:, None] - X, 180),
    "sum": (lambda: X.sum(0), 30),
    "maximum": (lambda: X.amax(1), 30),
    "softmax": (lambda: X.softmax(1), 150),
    "norm": (lambda: nn.functional.layer_norm(X, (5,)), 150),
    "distances": (lambda: torch.cdist(X, X[:2], p=1.0), 180),
    "scatter": (lambda: X.new_zeros(3, 5).index_add(0, INDEX, X), 30),
    "gather": (lambda: X[INDEX], 0),
    "copy": (lambda: X.t().contiguous(), 0),
    "comparison": (lambda: X > 0, 0),
    "choice": (lambda: torch.where(INDEX[:, None] > 0, X, X), 0),
    "integers": (lambda: INDEX + INDEX, 0),
    "product": (lambda: X @ X.t(), 360),
    "product and sum": (lambda: (X @ X.t()).relu(), 396),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str) -> None:
    run, flops = OPERATIONS[name]
    assert count_flops(run, arithmetic=True) == flops


def test_products_alone() -> None:
    assert count_flops(lambda: (X @ X.t()).relu() + 1) == 360


def test_pyg_adds_up_once_an_edge() -> None:
    edge_index = torch.combinations(torch.arange(6)).t()
    conv = SimpleConv(aggr="sum")
    assert count_flops(lambda: conv(X, edge_index), arithmetic=True) == 15 * 5


def test_transformer_in_evaluation_is_seen_into() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(1, 10, 8)
    projections, attention, feedforward = 4 * 8 * 8 * 10, 2 * 8 * 10 * 10, 2 * 8 * 16 * 10
    assert count_flops(lambda: layer(x)) == 2 * (projections + attention + feedforward)
    assert torch.backends.mha.get_fastpath_enabled()


def test_published_count_of_r2plus1d_34() -> None:
    with torch.device("meta"):
        backbone = build_backbone("r2plus1d_34").eval()
        clip = torch.empty(1, 3, 32, 112, 112)
    assert count_flops(lambda: backbone(clip)) == pytest.approx(304.7e9, rel=1e-3)
