"""Readouts: by hand, and the table that holds them."""

from typing import Any, get_args

import pytest
import torch
from heads import GRID, small_head
from torch_geometric.nn import global_mean_pool

from taghead import TAGHead
from taghead.graph import from_tokens, to_hetero_data
from taghead.nn.readout import (
    READOUTS,
    FrameAggregation,
    MeanReadout,
    NoTokenWeights,
    Readout,
    ReadoutName,
    build_readout,
    needs_frame_means_only,
    readout_component,
)

WEIGHTED = ("mean", "frame_mean_max", "attention", "last_frame", "frame_sequence")


def made(readout: Any, channels: int = 8) -> Readout:
    """A readout of clips of three frames, in evaluation."""
    return build_readout(readout_component(readout), channels, GRID).eval()


def test_frame_mean_max_by_hand() -> None:
    x = torch.tensor([[[[1.0, 0.0], [3.0, 0.0]], [[0.0, 5.0], [0.0, 1.0]]]])  # [B, T, P, C]
    readout = READOUTS["frame_mean_max"](2)
    assert readout(x).tolist() == [[2.0, 3.0]]
    assert readout(x.mean(2, keepdim=True)).tolist() == [[2.0, 3.0]]


def test_frame_mean_max_of_graphs_without_some_frames() -> None:
    x, index = torch.tensor([[1.0], [3.0], [7.0], [-1.0]]), torch.tensor([0, 0, 0, 2])
    aggregation = READOUTS["frame_mean_max"](1).aggregation()
    out = aggregation(x, index, frame=torch.tensor([4, 4, 1, 0]))
    assert out.tolist() == [[7.0], [0.0], [-1.0]]  # as PyG's, a graph without nodes has zeros


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_readout_weights_sum_to_one(name: str, frames: int) -> None:
    readout, x = made(name), torch.randn(2, frames, 4, 8)
    weights = readout.weights(x)
    assert weights.shape == (2, frames * 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_readout_weights_of_a_maximum() -> None:
    x = torch.tensor([[[[1.0, 0.0, 0.0]], [[0.0, 5.0, 2.0]]]])  # [B, T, P, C]
    weights = READOUTS["frame_mean_max"](3).weights(x)
    torch.testing.assert_close(weights, torch.tensor([[1 / 3, 2 / 3]]))


def test_the_table_and_the_names_are_the_same() -> None:
    assert tuple(READOUTS) == get_args(ReadoutName)


@pytest.mark.parametrize("name", READOUTS)
def test_an_aggregation_is_its_readout(name: Any) -> None:
    readout, x = made(name), torch.randn(2, 3, 4, 8)
    batch, frame = torch.arange(2).repeat_interleave(12), torch.arange(3).repeat_interleave(4)
    aggregation = readout.aggregation()
    by_frame = isinstance(aggregation, FrameAggregation)
    options = {"frame": frame.repeat(2)} if by_frame else {}
    torch.testing.assert_close(aggregation(x.flatten(0, 2), batch, **options), readout(x))
    assert {id(p) for p in aggregation.parameters()} == {id(p) for p in readout.parameters()}


@pytest.mark.parametrize("name", READOUTS)
def test_readouts_of_frame_means_say_so(name: Any) -> None:
    """And no other does: then the head's last layers would run on too little."""
    readout, x = made(name), torch.randn(2, 3, 4, 8)
    means = x.mean(dim=2, keepdim=True).expand_as(x)
    assert needs_frame_means_only(readout) == torch.allclose(readout(means), readout(x), atol=1e-6)


def test_a_subclass_must_say_itself_that_it_needs_frame_means_only() -> None:
    class FirstToken(MeanReadout):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 0, 0]

    assert needs_frame_means_only(MeanReadout(8))
    assert not needs_frame_means_only(FirstToken(8))


def test_readouts_without_weights_say_what_to_do() -> None:
    for name in set(READOUTS) - set(WEIGHTED):
        with pytest.raises(
            NoTokenWeights, match=r"has no weights .* are mean, .*saliency"
        ) as found:
            made(name).weights(torch.randn(1, 3, 4, 8))
        assert type(made(name)).__name__ in str(found.value)


class LastFrameAggregation(FrameAggregation):
    def forward(self, x: Any, index: Any, *_: Any, frame: Any, **__: Any) -> torch.Tensor:
        is_last = frame == frame.max()
        return global_mean_pool(x[is_last], index[is_last])


class LastFrameReadout(Readout):
    """The mean over the last frame: all that is written to add a readout, beside its row."""

    uses_frame_means = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, -1].mean(1)

    def weights(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.zeros_like(x[..., 0])
        weights[:, -1] = 1 / x.size(2)
        return weights.flatten(1)

    def aggregation(self) -> FrameAggregation:
        return LastFrameAggregation()


def test_a_readout_is_a_class_and_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READOUTS, "mine", LastFrameReadout)
    head = small_head(readout="mine", mode="none")
    feature_map = torch.randn(2, 8, 3, 2, 2)
    expected = head.classifier(head.encode(feature_map)[:, -4:].mean(1))
    torch.testing.assert_close(head(feature_map), expected)
    data = to_hetero_data(from_tokens(head.encode(feature_map), GRID), head.relations)
    logits = head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict)
    torch.testing.assert_close(logits, expected)
    _, attention = head(feature_map, return_attention=True)
    assert (attention.readout[:, -4:] == 0.25).all()
    assert TAGHead(**head.config()).config() == head.config()
