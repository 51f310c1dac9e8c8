import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taghead.video import uniform_indices


@pytest.mark.parametrize(
    ("num_available", "num_frames", "expected"),
    [
        (1, 4, [0, 0, 0, 0]),
        (9, 1, [0]),
        (5, 5, [0, 1, 2, 3, 4]),
        (10, 4, [0, 3, 6, 9]),
        (9, 16, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8]),
    ],
)
def test_literal(num_available: int, num_frames: int, expected: list[int]) -> None:
    assert uniform_indices(num_available, num_frames).tolist() == expected


@given(st.integers(1, 100_000), st.integers(1, 256))
def test_properties(num_available: int, num_frames: int) -> None:
    indices = uniform_indices(num_available, num_frames)
    paper = np.linspace(0, num_available - 1, num_frames).astype(int)
    assert indices.dtype == np.int64
    assert indices.shape == (num_frames,)
    assert np.array_equal(indices, paper)
    assert indices[0] == 0
    assert indices[-1] == (num_available - 1 if num_frames > 1 else 0)
    assert (np.diff(indices) >= 0).all()


@pytest.mark.parametrize(("num_available", "num_frames"), [(0, 4), (-3, 4), (4, 0), (4, -1)])
def test_refuses_what_is_not_positive(num_available: int, num_frames: int) -> None:
    name = "num_available" if num_available < 1 else "num_frames"
    value = min(num_available, num_frames)
    with pytest.raises(ValueError, match=rf"{name} must be a positive integer \(got {value}\)"):
        uniform_indices(num_available, num_frames)
