from pathlib import Path

import pytest
import torch

from taghead.backbones import BACKBONES, build_backbone, r2plus1d_34
from taghead.errors import DataError


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_gives_what_it_states(name: str) -> None:
    backbone = build_backbone(name).eval()
    for num_frames, size in ((8, 32), (9, 50)):  # 9 and 50 divide by no stride
        with torch.no_grad():
            feature_map = backbone(torch.randn(1, 3, num_frames, size, size))
        grid = backbone.grid(num_frames, size)
        expected = (1, backbone.channels, grid.frames, grid.height, grid.width)
        assert feature_map.shape == expected
    assert len(backbone.mean) == len(backbone.std) == 3
    grid = backbone.grid(backbone.num_frames, backbone.size)
    assert backbone.num_frames == grid.frames * backbone.stride[0]


def test_the_small_one_is_small() -> None:
    parameters = sum(p.numel() for p in build_backbone("r2plus1d_tiny").parameters())
    assert 0.3e6 < parameters < 0.5e6


def test_r2plus1d_34_is_the_one_of_the_ig65m_weights() -> None:
    backbone = build_backbone("r2plus1d_34")
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2) == 63.49
    features = backbone.features
    assert [len(stage) for stage in features[1:]] == [3, 4, 6, 3]
    widths = [stage[0].conv2[0][0].out_channels for stage in features[2:]]
    assert widths == [288, 576, 1152]
    norms = [m for m in features.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.9)}
    state = features.state_dict()
    assert {"0.0.weight", "1.0.conv1.0.0.weight"} <= state.keys()
    grid = backbone.grid(64, 112)
    assert (grid.frames, grid.height, grid.width) == (8, 7, 7)
    assert backbone.grid(32, 112).frames == 4


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    model = r2plus1d_34()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("r2plus1d_34", tmp_path / "weights.pth")
    assert torch.equal(backbone.features[0][0].weight, model.stem[0].weight)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(r2plus1d_34().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights.pth: not weights of r3d_18: .* keys differ"):
        build_backbone("r3d_18", tmp_path / "weights.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(DataError, match=r"text.pth: not a readable state dict"):
        build_backbone("r3d_18", tmp_path / "text.pth")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"r2plus1d_tiny, .* \(got 'resnet'\)"):
        build_backbone("resnet")
    with pytest.raises(
        ValueError, match="weights of r3d_18: no file and no published weights NOPE"
    ):
        build_backbone("r3d_18", "NOPE")
    with pytest.raises(
        ValueError, match="weights of r2plus1d_tiny: no file and no published weights NOPE"
    ):
        build_backbone("r2plus1d_tiny", "NOPE")
