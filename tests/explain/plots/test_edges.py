import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from taghead import Grid
from taghead.explain import edges_on_frames

GRID = Grid(2, 3, 4)


@pytest.fixture
def frames() -> Tensor:
    return torch.full((4, 48, 64, 3), 128, dtype=torch.uint8)


def test_edges_are_drawn_between_their_tokens(frames: Tensor) -> None:
    names = [f"{end}_{axis}" for end in ("source", "target") for axis in "tyx"]
    places = [[0, 0, 0, 0, 2, 3], [0, 1, 1, 1, 1, 1]]
    edges = pd.DataFrame(places, columns=names)
    edges = edges.assign(relation=["intra_frame", "time_aligned"], weight=[0.5, 0.25])
    figure = edges_on_frames(frames, GRID, edges)
    within, across = (a for a in figure.artists if isinstance(a, ConnectionPatch))
    assert within.xy1 == (7.5, 7.5)
    assert within.xy2 == (55.5, 39.5)
    assert across.axesA is figure.axes[0]
    assert across.axesB is figure.axes[1]
    assert to_hex(within.get_edgecolor()) != to_hex(across.get_edgecolor())
