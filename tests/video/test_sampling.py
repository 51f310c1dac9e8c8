from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taghead.video import clip_indices, uniform_indices
from taghead.video.sampling import Sampling

lengths, sizes, strides, counts = (st.integers(1, top) for top in (3000, 64, 8, 12))
samplings = st.sampled_from(["uniform", "dense", "segments"])


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


@pytest.mark.parametrize(
    ("num_available", "num_frames", "num_clips", "expected"),
    [
        (10, 4, 1, [[0, 3, 6, 9]]),
        (9, 3, 3, [[0, 3, 6], [1, 4, 7], [2, 5, 8]]),
        (7, 2, 2, [[0, 4], [2, 6]]),
        (3, 4, 2, [[0, 0, 1, 1], [0, 0, 1, 2]]),
        (1, 2, 2, [[0, 0], [0, 0]]),
    ],
)
def test_uniform_clips(
    num_available: int, num_frames: int, num_clips: int, expected: list[list[int]]
) -> None:
    assert clip_indices(num_available, num_frames, num_clips=num_clips).tolist() == expected


@pytest.mark.parametrize(
    ("num_available", "num_frames", "stride", "num_clips", "expected"),
    [
        (10, 4, 1, 1, [[3, 4, 5, 6]]),
        (11, 4, 2, 1, [[2, 4, 6, 8]]),
        (7, 4, 2, 1, [[0, 2, 4, 6]]),
        (10, 3, 2, 2, [[0, 2, 4], [5, 7, 9]]),
        (10, 3, 2, 3, [[0, 2, 4], [2, 4, 6], [5, 7, 9]]),
        (6, 4, 2, 1, [[0, 2, 4, 5]]),
        (3, 5, 1, 1, [[0, 1, 2, 2, 2]]),
        (3, 4, 2, 2, [[0, 2, 2, 2], [0, 2, 2, 2]]),
        (1, 3, 4, 1, [[0, 0, 0]]),
    ],
)
def test_dense(
    num_available: int, num_frames: int, stride: int, num_clips: int, expected: list[list[int]]
) -> None:
    indices = clip_indices(num_available, num_frames, "dense", stride, num_clips)
    assert indices.tolist() == expected


@pytest.mark.parametrize(
    ("num_available", "num_frames", "num_clips", "expected"),
    [
        (12, 4, 1, [[1, 4, 7, 10]]),
        (10, 4, 1, [[1, 3, 6, 8]]),  # segments 2.5 frames long, middles 1.25, 3.75, 6.25, 8.75
        (12, 3, 2, [[1, 5, 9], [3, 7, 11]]),
        (4, 4, 1, [[0, 1, 2, 3]]),
        (3, 6, 1, [[0, 0, 1, 1, 2, 2]]),
        (2, 5, 1, [[0, 0, 1, 1, 1]]),  # middles 0.2, 0.6, 1.0, 1.4, 1.8
        (1, 3, 2, [[0, 0, 0], [0, 0, 0]]),
    ],
)
def test_segments(
    num_available: int, num_frames: int, num_clips: int, expected: list[list[int]]
) -> None:
    indices = clip_indices(num_available, num_frames, "segments", num_clips=num_clips)
    assert indices.tolist() == expected


@given(lengths, sizes, samplings, strides, counts, st.booleans())
def test_every_sampling_stays_in_the_video_and_never_goes_back(
    num_available: int,
    num_frames: int,
    sampling: Sampling,
    stride: int,
    num_clips: int,
    train: bool,
) -> None:
    indices = clip_indices(num_available, num_frames, sampling, stride, num_clips, train)
    assert indices.dtype == np.int64
    assert indices.shape == (num_clips, num_frames)
    assert indices.min() >= 0
    assert indices.max() < num_available
    assert (np.diff(indices) >= 0).all()


@given(lengths, sizes, samplings, strides, counts)
def test_a_test_draws_nothing(
    num_available: int, num_frames: int, sampling: Sampling, stride: int, num_clips: int
) -> None:
    state = torch.get_rng_state()
    first = clip_indices(num_available, num_frames, sampling, stride, num_clips)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(
        first, clip_indices(num_available, num_frames, sampling, stride, num_clips)
    )


@given(lengths, sizes, counts)
def test_uniform_clips_interleave(num_available: int, num_frames: int, num_clips: int) -> None:
    indices = clip_indices(num_available, num_frames, num_clips=num_clips)
    assert np.array_equal(
        np.sort(indices, axis=None), uniform_indices(num_available, num_frames * num_clips)
    )
    assert np.array_equal(indices[:, :1], np.sort(indices[:, :1], axis=0))
    one = clip_indices(num_available, num_frames)
    assert np.array_equal(one, uniform_indices(num_available, num_frames)[None])
    state = torch.get_rng_state()
    assert np.array_equal(clip_indices(num_available, num_frames, train=True), one)
    assert torch.equal(torch.get_rng_state(), state)  # training is what it was before sampling


@given(lengths, sizes, strides, counts, st.booleans())
def test_dense_keeps_its_stride_and_holds_the_last_frame(
    num_available: int, num_frames: int, stride: int, num_clips: int, train: bool
) -> None:
    indices = clip_indices(num_available, num_frames, "dense", stride, num_clips, train)
    if num_available >= (num_frames - 1) * stride + 1:
        assert (np.diff(indices) == stride).all()
        return
    held = [min(stride * frame, num_available - 1) for frame in range(num_frames)]
    assert (indices == held).all()


@given(lengths, sizes, strides, st.integers(2, 12))
def test_dense_clips_of_a_test_span_the_video(
    num_available: int, num_frames: int, stride: int, num_clips: int
) -> None:
    room = num_available - 1 - (num_frames - 1) * stride
    (centre,) = clip_indices(num_available, num_frames, "dense", stride)
    clips = clip_indices(num_available, num_frames, "dense", stride, num_clips)
    if room >= 0:
        assert num_available - 1 - centre[-1] - centre[0] in (0, 1)
        assert clips[0, 0] == 0
        assert clips[-1, -1] == num_available - 1
        steps = np.diff(clips[:, 0])
        assert steps.max() - steps.min() <= 1


@given(lengths, sizes, counts, st.booleans())
def test_each_frame_lies_in_its_segment(
    num_available: int, num_frames: int, num_clips: int, train: bool
) -> None:
    """A segment is a stretch of the video's length; a frame lies in it if they overlap."""
    indices = clip_indices(num_available, num_frames, "segments", 1, num_clips, train)
    segment = np.arange(num_frames)
    assert ((indices + 1) * num_frames > segment * num_available).all()
    assert (indices * num_frames < (segment + 1) * num_available).all()
    if not train:
        middles = [[i + (v + 0.5) / num_clips for i in range(num_frames)] for v in range(num_clips)]
        exact = np.array(middles) * num_available / num_frames
        assert np.abs(indices + 0.5 - exact).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("num_available", "num_frames"), [(12, 4), (11, 4), (7, 5), (3, 8)])
def test_training_draws_every_frame_of_a_segment_by_its_share(
    num_available: int, num_frames: int
) -> None:
    draws = 4000
    drawn = clip_indices(num_available, num_frames, "segments", num_clips=draws, train=True)
    share = np.zeros((num_frames, num_available))
    for segment in range(num_frames):
        start, end = (place * num_available / num_frames for place in (segment, segment + 1))
        for frame in range(int(start), ceil(end)):
            share[segment, frame] = (min(end, frame + 1) - max(start, frame)) / (end - start)
    found = np.stack([np.bincount(column, minlength=num_available) for column in drawn.T]) / draws
    assert (found[share == 0] == 0).all()
    assert np.abs(found - share).max() < 5 * 0.5 / draws**0.5  # five standard deviations
    assert (found.sum(axis=0) > 0).all()


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 8), strides)
def test_training_draws_every_start_of_a_dense_clip(
    num_available: int, num_frames: int, stride: int
) -> None:
    drawn = clip_indices(num_available, num_frames, "dense", stride, 1000, train=True)
    latest = max(0, num_available - 1 - (num_frames - 1) * stride)
    assert set(drawn[:, 0]) == set(range(latest + 1))
    if stride == 1:
        assert set(drawn.flat) == set(range(num_available))


def test_seeds_decide_what_training_draws() -> None:
    def draw(seed: int, sampling: Sampling) -> np.ndarray:
        torch.manual_seed(seed)
        return clip_indices(500, 16, sampling, train=True)

    for sampling in ("dense", "segments"):
        assert np.array_equal(draw(1, sampling), draw(1, sampling))
        assert not np.array_equal(draw(1, sampling), draw(2, sampling))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_available": 0}, r"num_available must be a positive integer \(got 0\)"),
        ({"num_frames": -1}, r"num_frames must be a positive integer \(got -1\)"),
        ({"stride": 0}, r"stride must be a positive integer \(got 0\)"),
        ({"num_clips": 0}, r"num_clips must be a positive integer \(got 0\)"),
        ({"sampling": "tsn"}, r"sampling must be uniform, dense or segments \(got 'tsn'\)"),
    ],
)
def test_clips_refuse_what_makes_none(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clip_indices(**{"num_available": 9, "num_frames": 4, **options})
