from pathlib import Path

import numpy as np
import pytest
import torch
from numbered import number_of, write_video

from taghead.errors import VideoError
from taghead.explain import load_view
from taghead.video import Preprocessing


@pytest.mark.parametrize("size", [(120, 160), (160, 120), (112, 300)])
@pytest.mark.parametrize("crops", [1, 3])
def test_pictures_show_what_the_model_sees(
    tmp_path: Path, size: tuple[int, int], crops: int
) -> None:
    path = write_video(tmp_path / "clip.mp4", 12, size=size)
    preprocessing = Preprocessing(num_frames=8, resize=64, crop=48, test_crops=crops)
    views = preprocessing.load_views(path)
    for view in range(crops):
        seen = load_view(path, preprocessing, view)
        assert torch.equal(seen.tensor, views[view])
        side = seen.pictures.shape[1]
        assert side == round(48 / 64 * min(size) / 2) * 2
        small = torch.from_numpy(seen.pictures.copy()).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(small, size=48, mode="area")
        model_sees = (seen.tensor * 0.225 + 0.45).transpose(0, 1) * 255
        assert (small - model_sees).abs().mean() < 8
        moved = model_sees.roll(3, dims=3)  # three pixels off would be seen
        assert (small - model_sees).abs().mean() < 0.7 * (small - moved).abs().mean()


def test_views_in_time_have_their_own_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 24)
    whole = Preprocessing(num_frames=4, resize=120, crop=120, test_clips=3)
    for view in range(3):
        seen = load_view(path, whole, view)
        assert seen.indices.tolist() == np.linspace(0, 23, 12).astype(int)[view::3].tolist()
    wide = load_view(write_video(tmp_path / "square.mp4", 9, size=(120, 120)), whole, 1)
    assert [number_of(picture) for picture in wide.pictures] == wide.indices.tolist()


def test_a_video_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(VideoError, match=r"text\.mp4: cannot be opened as a video"):
        load_view(tmp_path / "text.mp4", Preprocessing())
