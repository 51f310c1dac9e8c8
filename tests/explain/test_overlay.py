from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from tiny import GRID, make_model

from taghead.explain import explain_clip, load_view
from taghead.explain.overlay import write_overlay
from taghead.video import Preprocessing


def test_the_video_plays_anywhere(explained: Any) -> None:
    with av.open(explained.folder / "overlay.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == stream.height % 2 == 0
        frames = list(container.decode(stream))
    assert len(frames) == 32
    length = explained.numbers["frames"]["seconds"][-1]
    assert float(frames[-1].pts * stream.time_base) == pytest.approx(length, rel=0.02)


@pytest.mark.parametrize("heat", ["rollout", "saliency"])
def test_heat_lies_on_its_token_in_the_video(clip: Path, tmp_path: Path, heat: str) -> None:
    """The rollout's; where there is none, that of the saliency, of either sign."""
    model = make_model(readout="mean" if heat == "rollout" else "temporal_conv")
    found = explain_clip(model, load_view(clip, Preprocessing()), draws=0)
    values = torch.zeros(GRID.frames, GRID.height, GRID.width)
    values[2, 1, 5] = 1.0 if heat == "rollout" else -1.0
    grey = np.full_like(found.clip.pictures, 128)
    still = replace(found.clip, pictures=grey)
    bare = (
        replace(found, rollout=values, clip=still)
        if heat == "rollout"
        else replace(found, saliency=values, clip=still)
    )
    write_overlay(bare, tmp_path / "overlay.mp4")
    with av.open(tmp_path / "overlay.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number, frame in enumerate(frames):
        side = frame.shape[1] // 2
        changed = np.abs(frame[: side - 8, side:].astype(int) - 128).max(-1)
        if number // 8 != 2:
            assert changed.max() < 12
            continue
        rows, columns = np.nonzero(changed > 0.8 * changed.max())
        assert (int(7 * rows.mean() / side), int(7 * columns.mean() / side)) == (1, 5)
