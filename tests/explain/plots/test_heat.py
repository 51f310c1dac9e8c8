from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from taghead import Grid
from taghead.explain import ClipHeat, compare_heat, save_figure, token_heat
from taghead.explain.plots.heat import BACKGROUND, HeatScale

GRID = Grid(2, 3, 4)


@pytest.fixture
def frames() -> Tensor:
    return torch.full((4, 48, 64, 3), 128, dtype=torch.uint8)


def test_heat_is_strongest_over_its_token(frames: Tensor) -> None:
    values = torch.zeros(GRID.frames, GRID.height, GRID.width)
    values[1, 2, 3] = 1.0
    first, second = (axis.images[1].get_array() for axis in token_heat(frames, values).axes[:2])
    assert not np.asarray(first)[..., 3].any()  # nothing to see where all are 0
    opacity = np.asarray(second)[..., 3]
    row, column = np.unravel_index(opacity.argmax(), opacity.shape)
    assert opacity.shape == (48, 64)
    assert (row // 16, column // 16) == (2, 3)


def test_signs_have_colours_and_strength_has_opacity(frames: Tensor) -> None:
    values = torch.zeros(GRID.frames, GRID.height, GRID.width)
    values[0, 0, 0], values[0, 2, 3], values[1, 1, 1] = 2.0, -2.0, -0.5
    first, second = (
        np.asarray(axis.images[1].get_array()) for axis in token_heat(frames, values).axes[:2]
    )
    red, _, blue, most = first[4, 4]
    assert red > blue
    red, _, blue, _ = first[-4, -4]
    assert blue > red
    assert most > second[24, 24, 3] > second[4, 60, 3] == 0


def test_the_colour_bar_shows_what_lies_on_a_pale_frame() -> None:
    scale = HeatScale(torch.tensor([1.0, 3.0]))
    bar, rgba = scale.bar().to_rgba([1.0, 3.0]), scale.rgba(np.array([1.0, 3.0]))
    assert rgba[:, 3].tolist() == pytest.approx([0, 0.8])
    mixed = rgba[:, :3] * rgba[:, 3:] + BACKGROUND * (1 - rgba[:, 3:])
    np.testing.assert_allclose(bar[:, :3], mixed, atol=1e-6)


def test_names_are_no_formulas(frames: Tensor, tmp_path: Path) -> None:
    values = torch.rand(GRID.frames, GRID.height, GRID.width)
    figure = compare_heat([ClipHeat(frames, values, "$a_$ {")], title="$\\nosuch$")
    save_figure(figure, tmp_path / "heat.svg")
    assert "$a_$ {" in (tmp_path / "heat.svg").read_text()


def test_frames_that_do_not_go_with_the_tokens_are_refused(frames: Tensor) -> None:
    with pytest.raises(ValueError, match="must be a multiple of 3"):
        token_heat(frames, torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match=r"uint8 of the shape .* \(got float32"):
        token_heat(frames.float(), torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match="the same number of token frames"):
        compare_heat(
            [ClipHeat(frames, torch.zeros(2, 2, 2)), ClipHeat(frames, torch.zeros(4, 2, 2))]
        )
