import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from functools import partial
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest
import torch
from numbered import numbers_of, write_video
from PIL import Image
from torchvision.transforms import v2

from taghead.errors import VideoError
from taghead.video import Limits, Preprocessing, Segment, VideoReader, clip_indices, uniform_indices
from taghead.video.preprocessing import READ_AT_ONCE_BYTES, Interpolation
from taghead.video.rgb import BAND_BYTES
from taghead.video.sampling import Sampling

SMALL = Preprocessing(num_frames=8, resize=64, crop=48)


@pytest.fixture(scope="module")
def frames(h264: Path) -> torch.Tensor:
    """Frames `[T, 3, 120, 160]` of a real video."""
    return torch.from_numpy(VideoReader(h264).read(range(0, 80, 10))).permute(0, 3, 1, 2)


def pixels(clip: torch.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """A normalised clip back in 0..255, `[T, H, W, 3]`."""
    mean, std = (torch.tensor(x).view(3, 1, 1, 1) for x in (preprocessing.mean, preprocessing.std))
    return ((clip * std + mean) * 255).permute(1, 2, 3, 0).numpy()


def test_against_a_plain_reference(frames: torch.Tensor) -> None:
    preprocessing = Preprocessing(mean=(0.4, 0.45, 0.5), std=(0.2, 0.225, 0.25), resize=96, crop=80)
    clip = preprocessing.test_transform()(frames)
    assert clip.shape == (3, 8, 80, 80)
    assert clip.dtype == torch.float32
    assert clip.is_contiguous()
    for shown, frame in zip(pixels(clip, preprocessing), frames.permute(0, 2, 3, 1), strict=True):
        resized = Image.fromarray(frame.numpy()).resize((128, 96), Image.Resampling.BILINEAR)
        reference = np.asarray(resized, np.float32)[8:88, 24:104]
        assert np.abs(shown - reference).max() < 1.01  # a rounding to uint8


def test_layout_in_memory_does_not_matter(frames: torch.Tensor) -> None:
    transform = Preprocessing(resize=96, crop=80).test_transform()
    assert torch.equal(transform(frames), transform(frames.contiguous()))


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (40, 50), (113, 167)])
def test_any_size_in(size: tuple[int, int]) -> None:
    frames = torch.zeros(4, 3, *size, dtype=torch.uint8)
    preprocessing = Preprocessing()
    for transform in (preprocessing.train_transform(), preprocessing.test_transform()):
        assert transform(frames).shape == (3, 4, 112, 112)


def test_training_without_chance_is_testing(frames: torch.Tensor) -> None:
    calm = Preprocessing(resize=96, crop=80, flip=0.0, random_crop=False)
    assert torch.equal(calm.train_transform()(frames), calm.test_transform()(frames))
    flipped = replace(calm, flip=1.0).train_transform()(frames)
    assert torch.equal(flipped, calm.test_transform()(frames).flip(-1))


def test_frames_of_a_clip_are_treated_alike() -> None:
    still = torch.randint(0, 256, (1, 3, 120, 160), dtype=torch.uint8).expand(6, -1, -1, -1)
    transform = Preprocessing(resize=96, crop=80).train_transform()
    clips = [transform(still) for _ in range(20)]
    for clip in clips:
        assert torch.equal(clip, clip[:, :1].expand_as(clip))
    assert not any(torch.equal(clips[0], clip) for clip in clips[1:])


def test_random_crops_and_flips() -> None:
    """On a ramp, the values at the border of a crop tell its place, size and direction."""
    ramp = torch.arange(128, dtype=torch.uint8).expand(2, 3, 128, 128)
    preprocessing = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
    transform = preprocessing.train_transform()
    torch.manual_seed(0)
    rows = [transform(ramp)[0, 0, 50] * 255 for _ in range(200)]
    widths = np.array([(row[-1] - row[0]).item() for row in rows])
    assert 70 < (widths < 0).sum() < 130
    sides = np.abs(widths)
    assert sides.min() >= 128 * 0.5**0.5 - 3
    assert sides.max() <= 128
    assert np.ptp(sides) > 20


def test_seeding(h264: Path) -> None:
    preprocessing = Preprocessing(num_frames=8, resize=64, crop=48)

    def load(seed: int, train: bool) -> torch.Tensor:
        torch.manual_seed(seed)
        return preprocessing.load(h264, train=train)

    assert torch.equal(load(1, True), load(1, True))
    assert not torch.equal(load(1, True), load(2, True))
    assert torch.equal(load(1, False), load(2, False))


def test_load_reads_the_uniform_frames(h264: Path) -> None:
    preprocessing = Preprocessing(num_frames=16, resize=120, crop=120)
    clip = preprocessing.load(h264)
    indices = uniform_indices(90, 16)
    frames = torch.from_numpy(VideoReader(h264).read(indices)).permute(0, 3, 1, 2)
    assert torch.equal(clip, preprocessing.test_transform()(frames))
    assert clip.shape == (3, 16, 120, 120)
    long = Preprocessing(num_frames=100, resize=120, crop=112).load(h264)
    assert long.shape == (3, 100, 112, 112)
    assert numbers_of(frames.permute(0, 2, 3, 1).numpy()) == indices.tolist()


@pytest.mark.parametrize("sampling", ["uniform", "dense", "segments"])
def test_load_samples_within_the_segment(h264: Path, sampling: Sampling) -> None:
    preprocessing = Preprocessing(
        num_frames=8, resize=120, crop=112, flip=0.0, random_crop=False, sampling=sampling
    )
    segment = Segment(30, 60, "frame")
    transform = preprocessing.test_transform()
    for train in (False, True):
        torch.manual_seed(5)
        indices = 30 + clip_indices(30, 8, sampling, train=train)[0]
        frames = torch.from_numpy(VideoReader(h264).read(indices)).permute(0, 3, 1, 2)
        torch.manual_seed(5)
        clip = preprocessing.load(h264, train=train, segment=segment)
        assert torch.equal(clip, transform(frames))


@pytest.mark.parametrize("sampling", ["uniform", "dense", "segments"])
def test_views_are_the_clips_and_crops_in_order(h264: Path, sampling: Sampling) -> None:
    preprocessing = Preprocessing(
        num_frames=4, resize=96, crop=80, sampling=sampling, test_clips=3, test_crops=3
    )
    segment = Segment(10, 80, "frame")
    views = preprocessing.load_views(h264, segment)
    assert views.shape == (preprocessing.num_views, 3, 4, 80, 80) == (9, 3, 4, 80, 80)
    indices = 10 + clip_indices(70, 4, sampling, num_clips=3)
    for number, view in enumerate(views):
        clip, crop = divmod(number, 3)
        frames = torch.from_numpy(VideoReader(h264).read(indices[clip])).permute(0, 3, 1, 2)
        small = v2.functional.resize(frames, 96)  # 96 x 128
        left = (0, 24, 48)[crop]
        cut = small[:, :, 8:88, left : left + 80].permute(0, 2, 3, 1).float().numpy()
        assert np.abs(pixels(view, preprocessing) - cut).max() < 1e-3


def test_three_crops_follow_the_longer_side() -> None:
    preprocessing = Preprocessing(num_frames=1, resize=8, crop=6, test_crops=3)
    number = torch.arange(8 * 11, dtype=torch.uint8)
    wide, tall = number.view(8, 11), number.view(11, 8)
    across = [
        cut[0, 0].tolist() for cut in preprocessing._crops(wide.expand(1, 3, 8, 11).contiguous())
    ]
    assert across == [wide[1:7, x : x + 6].tolist() for x in (0, 2, 5)]
    down = [
        cut[0, 0].tolist() for cut in preprocessing._crops(tall.expand(1, 3, 11, 8).contiguous())
    ]
    assert down == [tall[y : y + 6, 1:7].tolist() for y in (0, 2, 5)]


def test_one_view_is_the_clip_of_a_test(h264: Path) -> None:
    for preprocessing in (SMALL, replace(SMALL, sampling="dense", stride=3)):
        views = preprocessing.load_views(h264)
        assert torch.equal(views, preprocessing.load(h264)[None])
    many = replace(SMALL, test_clips=2, test_crops=3)
    assert many.load(h264).shape == SMALL.load(h264).shape


def test_all_views_are_read_at_once(h264: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, asked = VideoReader.read, []

    def count(reader: VideoReader, indices: np.ndarray) -> np.ndarray:
        asked.append(list(indices))
        return read(reader, indices)

    monkeypatch.setattr(VideoReader, "read", count)
    views = replace(SMALL, sampling="dense", test_clips=10, test_crops=3)
    assert len(views.load_views(h264, Segment(0, 12, "frame"))) == 30
    assert asked == [list(range(12))]


def test_a_video_shorter_than_its_views(folder: Path) -> None:
    video = write_video(folder / "three.mp4", 3)
    for sampling in get_args(Sampling):
        many = replace(SMALL, sampling=sampling, test_clips=4)
        assert many.load_views(video).shape == (4, 3, 8, 48, 48)


def test_load_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"nothing\.mp4: no such file"):
        Preprocessing().load(tmp_path / "nothing.mp4")


def test_json_and_pickle() -> None:
    preprocessing = Preprocessing(
        num_frames=64, mean=(0.1, 0.2, 0.3), sampling="dense", stride=2, test_clips=10, test_crops=3
    )
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing
    assert Preprocessing.from_dict({"crop": 64}) == Preprocessing(crop=64)
    assert isinstance(hash(Preprocessing.from_dict({"mean": [0.1, 0.2, 0.3]})), int)
    pickle.loads(pickle.dumps(preprocessing.train_transform()))
    with pytest.raises(FrozenInstanceError):
        preprocessing.crop = 3  # type: ignore[misc]


def test_what_was_stored_before_sampling_was_a_choice_loads_as_before() -> None:
    stored = {
        "num_frames": 16,
        "resize": 48,
        "crop": 48,
        "mean": [0.45, 0.45, 0.45],
        "std": [0.225, 0.225, 0.225],
        "flip": 0.0,
        "random_crop": False,
    }
    loaded = Preprocessing.from_dict(stored)
    assert loaded == Preprocessing(16, 48, 48, flip=0.0, random_crop=False)
    assert (loaded.sampling, loaded.stride, loaded.num_views) == ("uniform", 1, 1)


def test_how_long_a_video_must_be() -> None:
    assert Preprocessing(num_frames=32).min_frames == 32
    assert Preprocessing(num_frames=32, sampling="segments").min_frames == 32
    dense = Preprocessing(num_frames=32, sampling="dense", stride=2)
    assert dense.min_frames == 63
    assert len(set(clip_indices(63, 32, "dense", 2)[0])) == 32
    assert len(set(clip_indices(62, 32, "dense", 2)[0])) == 32  # the last two lie closer
    assert len(set(clip_indices(61, 32, "dense", 2)[0])) == 31


def test_unknown_arguments_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="preprocessing has no centre, size"):
        Preprocessing.from_dict({"size": 3, "crop": 112, "centre": True})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, r"num_frames must be a positive integer \(got 0\)"),
        ({"num_frames": 1.5}, r"num_frames must be a positive integer \(got 1.5\)"),
        ({"crop": True}, r"crop must be a positive integer \(got True\)"),
        ({"resize": -3}, r"resize must be a positive integer \(got -3\)"),
        ({"resize": 100}, r"resize must be at least crop = 112 \(got 100\)"),
        ({"mean": (0.5,)}, r"mean must be 3 numbers \(got \(0.5,\)\)"),
        ({"std": (0.2, 0.0, 0.2)}, r"std must be 3 positive numbers \(got \(0.2, 0.0, 0.2\)\)"),
        ({"sampling": "tsn"}, "sampling must be one of uniform, dense, segments .*'tsn'"),
        ({"stride": 0}, r"stride must be a positive integer \(got 0\)"),
        ({"stride": 2}, r"stride is for sampling dense \(got stride 2 and uniform\)"),
        ({"test_clips": 0}, r"test_clips must be a positive integer \(got 0\)"),
        ({"test_crops": 2}, r"test_crops must be 1 or 3 \(got 2\)"),
        ({"augment_ops": -1}, r"augment_ops must be a whole number from 0 up \(got -1\)"),
        ({"augment_magnitude": 31}, r"augment_magnitude .* from 0 to 30 \(got 31\)"),
        ({"flip": 1.1}, r"flip must be a probability from 0 to 1 \(got 1.1\)"),
    ],
)
def test_arguments_are_checked(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocessing(**arguments)


def odd(folder: Path) -> Path:
    """Frames whose rows are padded in memory, and which are one band."""
    return write_video(folder / "odd.mkv", 24, "ffv1", size=(121, 163))


def turned(folder: Path) -> Path:
    return write_video(
        folder / "turned.mp4", 24, setup=lambda stream: stream.set_display_rotation(90)
    )


@pytest.mark.parametrize("make", [odd, turned])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("resize", [48, 120, 200])
@pytest.mark.parametrize("at_once", [0, READ_AT_ONCE_BYTES])
@pytest.mark.parametrize("band", [0, BAND_BYTES])
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_frames_resized_one_by_one_are_those_of_a_clip(
    tmp_path: Path,
    make: Callable[[Path], Path],
    train: bool,
    resize: int,
    at_once: int,
    band: int,
    interpolation: Interpolation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To the bit."""
    monkeypatch.setattr("taghead.video.preprocessing.READ_AT_ONCE_BYTES", at_once)
    monkeypatch.setattr("taghead.video.rgb.BAND_BYTES", band)
    path = make(tmp_path)
    options = {"augment_ops": 2, "augment_magnitude": 15, "interpolation": interpolation}
    preprocessing = Preprocessing(num_frames=30, resize=resize, crop=40, **options)
    transform = preprocessing.train_transform() if train else preprocessing.test_transform()
    frames = VideoReader(path).read(uniform_indices(24, 30))
    for seed in range(3):
        torch.manual_seed(seed)
        expected = transform(torch.from_numpy(frames).permute(0, 3, 1, 2))
        torch.manual_seed(seed)
        assert torch.equal(preprocessing.load(path, train=train), expected)


def test_frames_that_are_too_large_are_refused(h264: Path) -> None:
    small = Preprocessing(num_frames=4, resize=32, crop=32, limits=Limits(120 * 160 - 1))
    reason = "160x120 have 19,200 pixels, more than limits.max_pixels = 19,199"
    for load in (small.load, small.load_views, partial(VideoReader, limits=Limits(19_199))):
        with pytest.raises(VideoError, match=rf"^{h264}: its frames of {reason}$"):
            load(h264)
    for raised in (120 * 160, 2**62):
        assert replace(small, limits=Limits(raised)).load(h264).shape == (3, 4, 32, 32)


def test_clips_that_are_too_large_are_refused(h264: Path) -> None:
    limits = Limits(max_clip_bytes=4 * 3 * 120 * 160)
    fits = Preprocessing(num_frames=4, resize=32, crop=32, limits=limits)
    assert fits.load(h264).shape == (3, 4, 32, 32)
    over = replace(fits, limits=Limits(max_clip_bytes=4 * 3 * 120 * 160 - 1))
    message = rf"^{h264}: 4 frames of 160x120 take 230,400 bytes, more than limits.* = 230,399$"
    for load in (over.load, over.load_views):
        with pytest.raises(VideoError, match=message):
            load(h264)
    reader = VideoReader(h264, limits=limits)
    assert len(reader.read(range(4))) == 4
    assert len(reader.read(range(16), size=(60, 80))) == 16
    with pytest.raises(VideoError, match=r"5 frames of 160x120 take 288,000 bytes"):
        reader.read(range(5))
    # resized it is 256 times as large
    with pytest.raises(VideoError, match=r"4 frames of 3413x2560 take"):
        replace(fits, resize=2560).load(h264)


def test_limits_are_no_part_of_what_a_clip_is() -> None:
    raised = Preprocessing(limits=Limits(max_pixels=2**30))
    assert raised == Preprocessing()
    assert raised.to_dict() == Preprocessing().to_dict()
    assert "limits" not in raised.to_dict()
    with pytest.raises(ValueError, match=r"preprocessing has no limits"):
        Preprocessing.from_dict({"limits": {"max_pixels": 2**40}})
    for name in ("max_pixels", "max_clip_bytes"):
        for value in (0, True, 1e9):
            with pytest.raises(ValueError, match=rf"limits.{name} must be a positive integer"):
                Limits(**{name: value})


MEASURE = """
import sys
import av
from taghead.video import Limits, Preprocessing

def decode(path):
    with av.open(path) as container:
        for frame in container.decode(video=0):
            del frame

def load(path):
    Preprocessing(num_frames=8, resize=64, crop=64, limits=Limits(2**30, 2**40)).load(path)

def memory(name):
    (line,) = [one for one in open("/proc/self/status") if one.startswith(name)]
    return int(line.split()[1]) // 1024

_, how, small, large = sys.argv
globals()[how](small)
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
globals()[how](large)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_memory_is_that_of_the_decoder_not_of_a_picture(h264: Path, tmp_path: Path) -> None:
    """Of 8 frames of 8192x8192, RGB pictures alone take 1,611 MB, one takes 201 MB."""
    path, options = tmp_path / "large.mp4", {"preset": "ultrafast", "crf": "40"}
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = 8192, 8192, "yuv420p"
        frame = av.VideoFrame(8192, 8192, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([100]) * plane.buffer_size)
        for pts in range(8):
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert path.stat().st_size < 200_000
    found = {}
    for how in ("decode", "load"):
        command = [sys.executable, "-c", MEASURE, how, str(h264), str(path)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        found[how] = int(run.stdout)
    assert 200 < found["decode"] < 400  # two frames of 100 MB, and what the decoder notes of blocks
    assert found["load"] < found["decode"] + 80
    with pytest.raises(VideoError, match="32 frames of 8192x8192 take 6,442,450,944 bytes"):
        Preprocessing().load(path)
    with pytest.raises(VideoError, match=r"8192x8192, and decord holds many at a time\): use pyav"):
        VideoReader(path, backend="decord")
