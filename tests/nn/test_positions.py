from typing import Any

import pytest
import torch
from torch.nn import functional as F

from taghead import Grid
from taghead.nn.positions import PositionalEncoding

GRID = Grid(2, 3, 4)


def encoding(positions: PositionalEncoding, grid: Grid) -> torch.Tensor:
    return positions(torch.zeros(1, grid.num_nodes, positions.tables[0].size(-1)), grid)


def test_full_is_one_vector_a_node() -> None:
    positions = PositionalEncoding(5, GRID)
    assert [table.shape for table in positions.tables] == [(1, 24, 5)]
    assert torch.equal(encoding(positions, GRID), positions.tables[0])


def test_factorised_is_the_sum_over_frame_row_and_column() -> None:
    positions = PositionalEncoding(5, GRID, kind="factorised")
    frame, row, column = (table[0] for table in positions.tables)
    out = encoding(positions, GRID)[0]
    for node, (t, y, x) in enumerate(GRID.positions().tolist()):
        torch.testing.assert_close(out[node], frame[t] + row[y] + column[x])


@pytest.mark.parametrize("grid", [Grid(4, 6, 8), Grid(1, 1, 1), Grid(3, 3, 4)])
def test_another_grid_gets_the_trilinear_interpolation(grid: Grid) -> None:
    positions = PositionalEncoding(5, GRID)
    volume = positions.tables[0].transpose(1, 2).view(1, 5, 2, 3, 4)
    size = (grid.frames, grid.height, grid.width)
    expected = F.interpolate(volume, size=size, mode="trilinear").flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoding(positions, grid), expected)


def test_factorised_positions_of_another_grid_stay_a_sum() -> None:
    positions = PositionalEncoding(3, GRID, kind="factorised")
    grid = Grid(4, 6, 2)
    out = encoding(positions, grid)[0].view(4, 6, 2, 3)
    # a sum of one-dimensional terms has no mixed differences
    mixed = out[1:, 1:] - out[:-1, 1:] - out[1:, :-1] + out[:-1, :-1]
    torch.testing.assert_close(mixed, torch.zeros_like(mixed), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["full", "factorised"])
def test_gradients_reach_the_tables(kind: Any) -> None:
    positions = PositionalEncoding(3, GRID, kind=kind)
    encoding(positions, Grid(3, 3, 3)).square().sum().backward()
    assert all(table.grad.abs().sum() > 0 for table in positions.tables)


def test_std_is_that_of_the_initial_values() -> None:
    positions = PositionalEncoding(64, Grid(8, 7, 7), std=1.0)
    assert 0.97 < positions.tables[0].std() < 1.03
