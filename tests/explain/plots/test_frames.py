from pathlib import Path

import pytest
import torch
from torch import Tensor

from taghead import Grid
from taghead.explain import ClipHeat, compare_heat, save_figure

GRID = Grid(2, 3, 4)


@pytest.fixture
def frames() -> Tensor:
    return torch.full((4, 48, 64, 3), 128, dtype=torch.uint8)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_figures_are_written(frames: Tensor, tmp_path: Path, suffix: str) -> None:
    values = torch.rand(GRID.frames, GRID.height, GRID.width)
    figure = compare_heat([ClipHeat(frames, values, "one"), ClipHeat(frames, values, "other")])
    path = tmp_path / f"heat{suffix}"
    save_figure(figure, path)
    begins = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(begins)
