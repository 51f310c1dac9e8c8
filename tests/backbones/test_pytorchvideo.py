import importlib.util
import sys

import pytest
import torch
from torch import Tensor

from taghead.backbones import (
    build_backbone,
)


@pytest.mark.skipif(
    importlib.util.find_spec("pytorchvideo") is None, reason="pytorchvideo is not installed"
)
def test_slowfast_joins_its_pathways_frame_by_frame() -> None:
    backbone = build_backbone("slowfast_r50").eval()
    seen: list[list[Tensor]] = []
    stem, last = backbone.features.blocks[0], backbone.features.blocks[-1]  # type: ignore[union-attr,index]
    stem.register_forward_pre_hook(lambda _, inputs: seen.append(list(inputs[0])))
    last.register_forward_hook(lambda *call: seen.append(list(call[2])))
    clip = torch.randn(1, 3, 16, 64, 64)
    with torch.no_grad():
        feature_map = backbone(clip)
    (slow_clip, fast_clip), (slow, fast) = seen
    assert torch.equal(slow_clip, clip[:, :, [0, 4, 8, 12]])
    assert torch.equal(fast_clip, clip)
    assert (slow.shape[1:3], fast.shape[1:3]) == ((2048, 4), (256, 16))
    assert torch.equal(feature_map[:, :2048], slow)
    third = fast[:, :, 8:12].mean(2)
    torch.testing.assert_close(feature_map[:, 2048:, 2], third)


def test_a_missing_pytorchvideo_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorchvideo.models.hub", None)
    with pytest.raises(ValueError, match=r"x3d_m needs pytorchvideo: pip install 'taghead\[slow"):
        build_backbone("x3d_m")
