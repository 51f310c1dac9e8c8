"""Rules for edges, against tables and plain loops."""

import time
from typing import Any

import pytest
import torch

from taghead.graph import (
    FUTURE,
    INTRA_FRAME,
    PAST,
    TIME_ALIGNED,
    Grid,
    Relation,
    as_relation,
    custom,
    future,
    past,
    spatial_window,
    time_aligned,
)


def test_edges_of_the_other_relations_on_small_grids() -> None:
    line = Grid(4, 1, 1)
    assert line.edge_index(time_aligned(reach=2)).tolist() == [
        [1, 2, 0, 2, 3, 0, 1, 3, 1, 2],
        [0, 0, 1, 1, 1, 2, 2, 2, 3, 3],
    ]
    assert line.edge_index(PAST).tolist() == [[0, 1, 2], [1, 2, 3]]
    assert line.edge_index(FUTURE).tolist() == [[1, 2, 3], [0, 1, 2]]
    assert line.edge_index(past(reach=2)).tolist() == [[0, 0, 1, 1, 2], [1, 2, 2, 3, 3]]
    # two frames of 2 x 3: nodes 0 1 2 / 3 4 5 | 6 7 8 / 9 10 11
    edges = Grid(2, 2, 3).edge_index(spatial_window(1))
    of_first_frame = [
        [1, 3, 4, 0, 2, 3, 4, 5, 1, 4, 5, 0, 1, 4, 0, 1, 2, 3, 5, 1, 2, 4],
        [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5],
    ]
    assert edges[:, :22].tolist() == of_first_frame
    assert (edges[:, 22:] - 6).tolist() == of_first_frame


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 3), (4, 1, 1), (5, 2, 2), (2, 4, 3)])
@pytest.mark.parametrize("number", [1, 2, 9])
def test_other_edges_are_those_of_the_definition(size: tuple[int, int, int], number: int) -> None:
    grid = Grid(*size)
    places = [tuple(p) for p in grid.positions().tolist()]
    found: dict[Relation, list] = {
        time_aligned(number): [],
        past(number): [],
        future(number): [],
        spatial_window(number): [],
    }
    both, before, after, window = found.values()
    for j, (tj, yj, xj) in enumerate(places):
        for i, (ti, yi, xi) in enumerate(places):
            if (yi, xi) == (yj, xj) and 0 < abs(ti - tj) <= number:
                both.append([i, j])
                (before if ti < tj else after).append([i, j])
            if ti == tj and i != j and max(abs(yi - yj), abs(xi - xj)) <= number:
                window.append([i, j])
    for relation, edges in found.items():
        assert grid.edge_index(relation).t().tolist() == edges
    t, p, r = grid.frames, grid.num_positions, min(number, grid.frames - 1)
    assert len(before) == len(after) == p * r * (2 * t - r - 1) // 2

    def pairs(n: int) -> int:
        r = min(number, n - 1)
        return n * (2 * r + 1) - r * (r + 1)

    assert len(window) == t * (pairs(grid.height) * pairs(grid.width) - p)


def test_reach_1_is_the_plain_relation_and_windows_grow_to_frames() -> None:
    assert time_aligned(reach=1) == TIME_ALIGNED
    assert as_relation("time_1f") == TIME_ALIGNED
    assert (past(), future()) == (PAST, FUTURE)
    grid = Grid(2, 2, 3)
    assert torch.equal(grid.edge_index(spatial_window(2)), grid.edge_index(INTRA_FRAME))


def test_a_large_window_needs_no_loop_over_nodes() -> None:
    start = time.process_time()
    assert Grid(16, 28, 28).edge_index(spatial_window(2)).shape == (2, 274_752)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"'odd': the function must return an int64 tensor \[2, E\] \(got NoneType\)"),
        (torch.zeros(2, 3), r"got torch.float32 of the shape \[2, 3\]"),
        (torch.zeros(3, 2, dtype=torch.long), r"got the shape \[3, 2\]"),
        (torch.zeros(4, dtype=torch.long), "an int64 tensor"),
        (torch.tensor([[0], [4]]), r"nodes must be from 0 to 3 on Grid.*\(got 0 to 4\)"),
        (torch.tensor([[-1], [0]]), r"\(got -1 to 0\)"),
    ],
)
def test_custom_edges_are_checked(found: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(1, 2, 2).edge_index(custom("odd", lambda grid: found))


def test_no_custom_edges_are_fine() -> None:
    none = custom("nothing", lambda grid: torch.empty(2, 0, dtype=torch.long))
    assert Grid(1, 2, 2).edge_index(none).shape == (2, 0)
