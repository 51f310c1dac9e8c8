"""Every aggregation that PyG exports as a readout: a table of the docs.

`python tests/nn/test_readout_aggregations.py` prints it.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import aggr

from taghead import Grid, TAGHead
from taghead.graph import from_tokens, to_hetero_data
from taghead.nn.readout import AggregationReadout

PAGE = Path(__file__).parents[2] / "docs/readouts.md"
BEGIN, END = "<!-- every aggregation: begin -->", "<!-- every aggregation: end -->"
GRID = Grid(3, 2, 2)
WIDTH = 8
GATE = {
    "class_path": "torch_geometric.nn.MLP",
    "init_args": {"num_layers": 2, "hidden_channels": 4, "norm": None},
}
NETWORK = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 8, "out_features": 6}}
OPTIONS: dict[str, dict[str, Any]] = {
    "MultiAggregation": {
        "aggrs": [
            "mean",
            {
                "class_path": "torch_geometric.nn.Set2Set",
                "init_args": {"in_channels": 8, "processing_steps": 1},
            },
        ]
    },
    "SoftmaxAggregation": {"learn": True, "channels": 8},
    "PowerMeanAggregation": {"learn": True},
    "QuantileAggregation": {"q": [0.25, 0.75]},
    "Set2Set": {"processing_steps": 2},
    "DegreeScalerAggregation": {"aggr": ["mean", "max"], "scaler": ["identity", "linear"]},
    "SortAggregation": {"k": 3},
    "GraphMultisetTransformer": {"k": 2},
    "AttentionalAggregation": {"gate_nn": GATE},
    "DeepSetsAggregation": {"local_nn": NETWORK},
    "EquilibriumAggregation": {"num_layers": [4]},
    "MLPAggregation": {"num_layers": 1},
    "PatchTransformerAggregation": {"patch_size": 4, "num_transformer_blocks": 1},
}
"""What aggregations must be told, or may be."""
ORDERED = {"LSTMAggregation", "GRUAggregation", "MLPAggregation", "LCMAggregation"}
ORDERED |= {"PatchTransformerAggregation"}
"""Those whose result depends on the order of tokens."""
WEIGHTED = {"MeanAggregation", "SumAggregation", "MaxAggregation", "MinAggregation"}
WEIGHTED |= {"SoftmaxAggregation", "AttentionalAggregation"}
"""Those with weights for attention rollout."""


@cache
def head_of(name: str) -> TAGHead | str:
    """A head with an aggregation as its readout, or why there is none."""
    torch.manual_seed(0)
    spec = {"class_path": name, "init_args": OPTIONS.get(name, {})}
    try:
        return TAGHead(WIDTH, 5, GRID, readout=spec, mode="none").double().eval()
    except ValueError as error:
        return str(error)


def some_map(frames: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, WIDTH, frames, 2, 2, dtype=torch.float64)


def is_ordered(name: str) -> bool:
    readout = head_of(name).readout  # type: ignore[union-attr]
    x = torch.rand(2, 3, 4, WIDTH, dtype=torch.float64)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(1, 2)[:, order].view_as(x)
    return not torch.allclose(readout(shuffled), readout(x), atol=1e-5)


@pytest.mark.parametrize("name", aggr.__all__)
def test_it_runs_as_in_pyg_or_is_refused_by_name(name: str) -> None:
    head = head_of(name)
    if isinstance(head, str):
        assert name == "Aggregation", head  # the base class, which aggregates nothing
        assert "must give a vector for a clip (got None)" in head
        return
    assert isinstance(head.readout, AggregationReadout)
    feature_map = some_map()
    logits, tokens = head(feature_map), head.encode(feature_map)
    data = to_hetero_data(from_tokens(tokens, GRID), head.relations)
    found = head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    rows, index = tokens.flatten(0, 1), torch.arange(2).repeat_interleave(12)
    expected = head.classifier(head.readout.aggr(rows, index))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    again = TAGHead(**head.config()).double().eval()
    again.load_state_dict(head.state_dict())
    torch.testing.assert_close(again(feature_map), logits, rtol=1e-5, atol=1e-5)
    logits.sum().backward()
    assert is_ordered(name) == (name in ORDERED)


@pytest.mark.parametrize("name", [name for name in aggr.__all__ if name != "Aggregation"])
def test_a_clip_has_the_same_logits_alone_and_in_a_batch(name: str) -> None:
    """All but PyG's EquilibriumAggregation, whose descent takes the mean over the batch."""
    head, feature_map = head_of(name), some_map()
    assert isinstance(head, TAGHead)
    is_same = torch.allclose(head(feature_map[:1]), head(feature_map)[:1], atol=1e-5)
    assert is_same == (name != "EquilibriumAggregation")


@pytest.mark.parametrize("name", [name for name in aggr.__all__ if name != "Aggregation"])
def test_it_has_weights_of_tokens_or_says_that_it_has_none(name: str) -> None:
    head, feature_map = head_of(name), some_map()
    assert isinstance(head, TAGHead)
    _, attention = head(feature_map, return_attention=True)
    if name in WEIGHTED:
        total = attention.rollout().sum((1, 2, 3))
        torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64))
    else:
        assert attention.no_rollout.startswith(f"readout: {name} has no weights of tokens")
        assert attention.readout is None


@pytest.mark.parametrize("name", ["AttentionalAggregation", "MeanAggregation"])
def test_the_weights_are_those_of_the_mean(name: str) -> None:
    readout = head_of(name).readout  # type: ignore[union-attr]
    x = torch.randn(2, 3, 4, WIDTH, dtype=torch.float64)
    expected = (readout.weights(x)[..., None] * x.flatten(1, 2)).sum(1)
    torch.testing.assert_close(readout(x), expected)


def test_more_tokens_than_an_aggregation_takes_are_refused() -> None:
    head = head_of("MLPAggregation")
    assert isinstance(head, TAGHead)
    assert head(some_map(2)).shape == (2, 5)
    message = r"MLPAggregation takes at most max_num_elements=12 tokens of a clip \(got 20\)"
    with pytest.raises(ValueError, match=message):
        head(some_map(5))


def row(name: str) -> str:
    head = head_of(name)
    options = ", ".join(f"`{option}`" for option in OPTIONS.get(name, {}))
    if isinstance(head, str):
        return f"| `{name}` | {options} |  |  |  | gives no vector: it is the base class |"
    width = head.readout.out_channels / WIDTH
    order = "yes" if is_ordered(name) else "no"
    weights = "yes" if name in WEIGHTED else "no"
    return f"| `{name}` | {options} | {width:g} x | {order} | {weights} |  |"


def table() -> str:
    head = ["aggregation", "options given", "width", "order of tokens matters", "rollout"]
    lines = [f"| {' | '.join([*head, 'refused as'])} |", "| --- " * 6 + "|"]
    return "\n".join([*lines, *map(row, sorted(aggr.__all__, key=str.lower))])


def test_the_committed_table_is_current() -> None:
    committed = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert committed.splitlines() == table().splitlines()


if __name__ == "__main__":
    print(table())
