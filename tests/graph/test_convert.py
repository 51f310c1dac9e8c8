from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.nn import HeteroConv, SAGEConv

from taghead.graph import (
    FUTURE,
    INTRA_FRAME,
    PAST,
    RELATIONS,
    TIME_ALIGNED,
    Grid,
    custom,
    from_tokens,
    spatial_window,
    time_aligned,
    to_data,
    to_feature_map,
    to_hetero_data,
    to_tokens,
)

RING = custom("ring", lambda grid: torch.arange(grid.num_nodes).expand(2, -1))
OTHERS = (spatial_window(1), PAST, FUTURE, time_aligned(2), RING)


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert one == other


def single_data(feature_map: Tensor, relations: Any = RELATIONS) -> Data:
    """The graph of one clip `[C, T, H, W]`, built node by node and edge by edge."""
    _, t, h, w = feature_map.shape
    grid = Grid(t, h, w)
    edge_index, edge_type = grid.typed_edges(relations)
    x = torch.stack([feature_map[:, i, j, k] for i, j, k in grid.positions().tolist()])
    return Data(
        x=x, edge_index=edge_index, pos=grid.positions().to(feature_map), edge_type=edge_type
    )


def single_hetero_data(feature_map: Tensor, relations: Any = RELATIONS) -> HeteroData:
    data = single_data(feature_map, relations)
    graph = HeteroData()
    graph["token"].x, graph["token"].pos = data.x, data.pos
    for number, relation in enumerate(relations):
        graph[tuple(relation)].edge_index = data.edge_index[:, data.edge_type == number]
    return graph


@pytest.mark.parametrize(
    ("build", "single"), [(to_data, single_data), (to_hetero_data, single_hetero_data)]
)
@pytest.mark.parametrize(
    "shape", [(3, 5, 2, 3, 2), (1, 4, 3, 2, 2), (2, 3, 1, 2, 2), (2, 3, 2, 1, 1)]
)
@pytest.mark.parametrize("relations", [RELATIONS, OTHERS], ids=["paper", "others"])
def test_a_batch_equals_pygs_own(
    build: Any, single: Any, shape: tuple[int, ...], relations: Any
) -> None:
    feature_map = torch.randn(shape)
    batch = build(feature_map, relations)
    expected = Batch.from_data_list([single(clip, relations) for clip in feature_map])
    assert type(batch) is type(expected)
    assert_equal(batch.to_dict(), expected.to_dict())
    assert_equal(batch._slice_dict, expected._slice_dict)
    assert_equal(batch._inc_dict, expected._inc_dict)
    assert batch.num_graphs == expected.num_graphs == shape[0]
    for number, (one, other) in enumerate(
        zip(batch.to_data_list(), expected.to_data_list(), strict=True)
    ):
        assert_equal(one.to_dict(), other.to_dict())
        assert_equal(batch[number].to_dict(), single(feature_map[number], relations).to_dict())


def test_relations_of_one_name_are_refused() -> None:
    feature_map = torch.randn(2, 3, 2, 2, 2)
    with pytest.raises(ValueError, match="'past_1f' is listed twice"):
        to_hetero_data(feature_map, [PAST, PAST])


@pytest.mark.parametrize("build", [to_data, to_hetero_data])
def test_there_and_back(build: Any) -> None:
    feature_map = torch.randn(3, 5, 2, 3, 4)
    assert torch.equal(to_feature_map(build(feature_map)), feature_map)
    assert torch.equal(to_feature_map(build(feature_map)[1]), feature_map[1:2])
    assert torch.equal(to_feature_map(build(feature_map), Grid(2, 3, 4)), feature_map)


def test_gradients_reach_the_feature_map() -> None:
    feature_map = torch.randn(2, 3, 2, 2, 2, requires_grad=True)
    (to_data(feature_map).x * 2).sum().backward()
    assert torch.equal(feature_map.grad, torch.full_like(feature_map, 2.0))


def test_tokens_are_in_the_order_of_nodes() -> None:
    feature_map = torch.arange(8.0).view(1, 1, 2, 2, 2)
    assert to_tokens(feature_map).flatten().tolist() == list(range(8))
    assert torch.equal(from_tokens(to_tokens(feature_map), Grid(2, 2, 2)), feature_map)


def test_only_the_relations_asked_for() -> None:
    feature_map = torch.randn(2, 3, 2, 2, 2)
    assert to_hetero_data(feature_map, [TIME_ALIGNED]).edge_types == [TIME_ALIGNED]
    assert to_data(feature_map, [INTRA_FRAME]).edge_type.unique().tolist() == [0]


def test_hetero_data_feeds_pygs_hetero_conv() -> None:
    data = to_hetero_data(torch.randn(2, 4, 3, 2, 2))
    conv = HeteroConv({relation: SAGEConv(4, 6) for relation in data.edge_types})
    out = conv(data.x_dict, data.edge_index_dict)["token"]
    assert out.shape == (2 * 12, 6)
    single = conv(data[1].x_dict, data[1].edge_index_dict)["token"]
    torch.testing.assert_close(out[12:], single)


@pytest.mark.parametrize("build", [to_data, to_hetero_data])
def test_a_feature_map_has_five_dimensions(build: Any) -> None:
    with pytest.raises(ValueError, match=r"\[B, C, T, H, W\] \(got \[3, 2, 2, 2\]\)"):
        build(torch.randn(3, 2, 2, 2))


def test_the_grid_must_fit_the_tokens() -> None:
    with pytest.raises(ValueError, match=r"multiple of 5 tokens \(got 16\)"):
        to_feature_map(to_data(torch.randn(2, 3, 2, 2, 2)), Grid(5, 1, 1))
