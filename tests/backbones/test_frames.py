"""Image networks on clips: the frames of all clips are one batch."""

import pytest
import torch
from torch import Tensor, nn

from taghead.backbones import Backbone, FrameByFrame
from taghead.video import Preprocessing


class Counting(nn.Module):
    """A convolution that counts the frames of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.calls: list[int] = []
        self.channels_last: list[bool] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.calls.append(len(frames))
        self.channels_last.append(frames.is_contiguous(memory_format=torch.channels_last))
        return self.conv(frames)


def test_each_frame_is_computed_by_itself() -> None:
    network = Counting()
    clip = torch.randn(2, 3, 4, 8, 6)
    feature_map = FrameByFrame(network)(clip)
    assert network.calls == [8]
    assert feature_map.shape == (2, 5, 4, 4, 3)
    for b in range(2):
        for t in range(4):
            torch.testing.assert_close(feature_map[b, :, t], network.conv(clip[b, :, t]))


@pytest.mark.parametrize(
    ("mode", "needs_gradient", "calls"),
    [
        ("eval", False, [3, 3, 2]),
        ("eval", True, [8]),  # activations are stored all the same
        ("train", False, [8]),  # statistics of batch norms are those of the batch
    ],
)
def test_frames_are_computed_in_parts_where_memory_is_saved(
    mode: str, needs_gradient: bool, calls: list[int]
) -> None:
    network = Counting().requires_grad_(needs_gradient)
    frames = FrameByFrame(network, max_frames=3).train(mode == "train")
    clip = torch.randn(2, 3, 4, 8, 6)
    parts = frames(clip)
    assert network.calls == calls
    torch.testing.assert_close(parts, FrameByFrame(network, max_frames=64)(clip))


def test_a_clip_with_gradients_is_computed_at_once() -> None:
    network = Counting().requires_grad_(False)
    clip = torch.randn(2, 3, 4, 8, 6, requires_grad=True)
    FrameByFrame(network, max_frames=3).eval()(clip).sum().backward()
    assert network.calls == [8]
    assert clip.grad is not None


def test_channels_last_needs_no_copy() -> None:
    network = Counting()
    backbone = Backbone(FrameByFrame(network), 5, (1, 2, 2), Preprocessing())
    before = backbone(clip := torch.randn(2, 3, 4, 8, 6))
    assert backbone.to(memory_format=torch.channels_last_3d) is backbone
    assert network.conv.weight.is_contiguous(memory_format=torch.channels_last)
    last = clip.contiguous(memory_format=torch.channels_last_3d)
    frames = last.transpose(1, 2).flatten(0, 1)
    assert frames.data_ptr() == last.data_ptr()
    after = backbone(last)
    assert network.channels_last == [False, True]
    assert after.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(after, before)
    assert backbone.to(torch.float64, memory_format=torch.channels_last_3d)(
        clip.double()
    ).dtype == (torch.float64)


def test_parts_can_be_compiled() -> None:
    frames = FrameByFrame(Counting().conv, max_frames=3).eval()
    clip = torch.randn(2, 3, 4, 8, 6)
    with torch.no_grad():
        compiled = torch.compile(frames, backend="eager", fullgraph=True)(clip)
        torch.testing.assert_close(compiled, frames(clip))
