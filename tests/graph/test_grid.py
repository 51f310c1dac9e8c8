import time

import pytest

from taghead.graph import (
    INTRA_FRAME,
    PAST,
    RELATIONS,
    TIME_ALIGNED,
    Grid,
)


def test_edges_of_a_small_grid() -> None:
    # two frames of two positions: nodes 0 1 | 2 3
    grid = Grid(2, 1, 2)
    assert grid.edge_index(INTRA_FRAME).tolist() == [
        [1, 0, 3, 2],  # source
        [0, 1, 2, 3],  # target
    ]
    assert grid.edge_index(TIME_ALIGNED).tolist() == [
        [2, 3, 0, 1],
        [0, 1, 2, 3],
    ]
    edge_index, edge_type = grid.typed_edges(RELATIONS)
    assert edge_index.tolist() == [
        [1, 2, 0, 3, 0, 3, 1, 2],
        [0, 0, 1, 1, 2, 2, 3, 3],
    ]
    assert edge_type.tolist() == [0, 1, 0, 1, 1, 0, 1, 0]


def test_edges_in_time_reach_both_neighbours() -> None:
    assert Grid(3, 1, 1).edge_index(TIME_ALIGNED).tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]


def test_positions_follow_the_order_of_nodes() -> None:
    assert Grid(2, 1, 2).positions().tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]


def test_number_of_edges_of_the_paper() -> None:
    grid = Grid(8, 7, 7)
    assert grid.edge_index(INTRA_FRAME).shape == (2, 18_816)
    assert grid.edge_index(TIME_ALIGNED).shape == (2, 686)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 3), (4, 1, 1), (3, 2, 2), (2, 3, 1)])
def test_edges_are_those_of_the_definition(size: tuple[int, int, int]) -> None:
    grid = Grid(*size)
    places = [tuple(p) for p in grid.positions().tolist()]
    intra, aligned = [], []
    for j, (tj, *pj) in enumerate(places):  # target first: the order of the edges
        for i, (ti, *pi) in enumerate(places):
            if ti == tj and pi != pj:
                intra.append([i, j])
            if abs(ti - tj) == 1 and pi == pj:
                aligned.append([i, j])
    assert grid.edge_index(INTRA_FRAME).t().tolist() == intra
    assert grid.edge_index(TIME_ALIGNED).t().tolist() == aligned


def test_a_large_grid_needs_no_loop_over_nodes() -> None:
    start = time.process_time()
    edges = Grid(16, 28, 28).edge_index(INTRA_FRAME)
    assert edges.shape == (2, 16 * 784 * 783)
    assert time.process_time() - start < 10  # a loop over its 9.8 million edges takes longer


@pytest.mark.parametrize("name", ["frames", "height", "width"])
@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_sizes_must_be_positive_integers(name: str, size: object) -> None:
    sizes = {"frames": 2, "height": 2, "width": 2, name: size}
    with pytest.raises(ValueError, match=f"{name} must be a positive integer .*{size}"):
        Grid(**sizes)  # type: ignore[arg-type]


def test_no_relations_no_edges() -> None:
    edge_index, edge_type = Grid(2, 2, 2).typed_edges([])
    assert edge_index.shape == (2, 0)
    assert edge_type.shape == (0,)


def test_edges_of_several_relations_come_by_type() -> None:
    edge_index, edge_type = Grid(2, 1, 2).typed_edges([TIME_ALIGNED, INTRA_FRAME, PAST])
    assert edge_index.tolist() == [[1, 2, 0, 3, 0, 0, 3, 1, 1, 2], [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]]
    assert edge_type.tolist() == [1, 0, 1, 0, 0, 2, 1, 0, 2, 1]
