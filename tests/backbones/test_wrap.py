import copy
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from taghead import TAGHead, VideoClassifier
from taghead.backbones import WrappedBackbone, build_backbone, wrap_backbone
from taghead.class_paths import allow_modules
from taghead.video import Preprocessing

CLIPS = Preprocessing(num_frames=8, resize=32, crop=32)


class Network(nn.Module):
    """A network of somebody else: stages, a pooling, and a classifier for one size of clip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 4, 3, (1, 2, 2), 1), nn.BatchNorm3d(4), nn.ReLU())
        self.layer4 = nn.ModuleDict({"conv": nn.Conv3d(4, 6, 3, (2, 4, 4), 1)})
        self.spare = nn.Linear(2, 2)
        self.fc = nn.Linear(6 * 4 * 4 * 4, 10)
        self.runs_of_fc = 0

    def forward(self, clip: Tensor) -> Tensor:
        x = self.layer4["conv"](self.stem(clip))
        self.runs_of_fc += 1
        return self.fc(x.flatten(1))


def classifier(backbone: WrappedBackbone) -> VideoClassifier:
    head = TAGHead(backbone.channels, 3, backbone.grid(8, 32), encoder_layers=0, mode="none")
    return VideoClassifier(backbone, head)


def test_width_and_stride_are_found() -> None:
    network = Network()
    backbone = wrap_backbone(network, "layer4.conv", preprocessing=CLIPS)
    assert (backbone.channels, backbone.stride) == (6, (2, 8, 8))
    clip = torch.randn(2, 3, 8, 32, 32)
    backbone.eval()
    expected = network.layer4["conv"](network.stem(clip))
    assert torch.equal(backbone(clip), expected)
    for num_frames, size in ((8, 32), (5, 50), (1, 7)):  # the classifier would take but the first
        grid = backbone.grid(num_frames, size)
        feature_map = backbone(torch.randn(1, 3, num_frames, size, size))
        assert feature_map.shape == (1, 6, grid.frames, grid.height, grid.width)


def test_what_follows_the_layer_is_not_run_and_gets_no_gradient() -> None:
    network = Network()
    model = classifier(wrap_backbone(network, "layer4.conv", preprocessing=CLIPS)).train()
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {"spare.weight", "spare.bias", "fc.weight", "fc.bias"}
    model(torch.randn(2, 3, 8, 32, 32)).sum().backward()
    assert network.runs_of_fc == 0
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {f"backbone.features.module.{name}" for name in frozen}
    assert network(torch.randn(1, 3, 8, 32, 32)).shape == (1, 10)  # it still works by itself
    assert network.runs_of_fc == 1


def test_looking_at_a_network_does_not_change_it() -> None:
    network = Network().train()
    network.stem[1].eval()  # as in training with frozen statistics
    before = copy.deepcopy(network.state_dict())
    backbone = wrap_backbone(network, "layer4.conv", preprocessing=CLIPS)
    backbone.grid(4, 16)
    assert network.training
    assert not network.stem[1].training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_a_frozen_network_stays_frozen() -> None:
    backbone = wrap_backbone(Network().requires_grad_(False), "layer4.conv", preprocessing=CLIPS)
    assert not any(p.requires_grad for p in backbone.parameters())


def test_it_can_be_copied_and_compiled() -> None:
    model = classifier(wrap_backbone(Network(), "layer4.conv", preprocessing=CLIPS)).eval()
    clip = torch.randn(1, 3, 8, 32, 32)
    logits = model(clip)
    assert torch.equal(copy.deepcopy(model)(clip), logits)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(clip), logits)


class Tokens(nn.Module):
    """Tokens of 2x8x8 pixels, with a class token in front."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.embed = nn.Conv3d(3, 5, (2, 8, 8), (2, 8, 8))
        self.token = nn.Parameter(torch.randn(1, 1, 5))
        self.norm = nn.LayerNorm(5)
        self.layout = layout

    def forward(self, clip: Tensor) -> Tensor:
        x = self.embed(clip)
        if self.layout == "channels last":
            return self.norm(x.permute(0, 2, 3, 4, 1)).sum()
        x = x.flatten(2).transpose(1, 2)
        return self.norm(torch.cat([self.token.expand(len(x), -1, -1), x], dim=1))[:, 0]


def test_tokens_become_a_feature_map_without_the_class_token() -> None:
    network = Tokens("sequence")
    backbone = wrap_backbone(network, "norm", patch=(2, 8, 8), preprocessing=CLIPS)
    assert (backbone.channels, backbone.stride) == (5, (2, 8, 8))
    clip = torch.randn(2, 3, 8, 32, 24)
    expected = network.norm(network.embed(clip).movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(backbone(clip), expected)


def test_channels_may_come_last() -> None:
    network = Tokens("channels last")
    backbone = wrap_backbone(network, "norm", channels_last=True, preprocessing=CLIPS)
    assert (backbone.channels, backbone.stride) == (5, (2, 8, 8))
    assert backbone(torch.randn(1, 3, 8, 32, 32)).shape == (1, 5, 4, 4, 4)


class ImageNetwork(nn.Module):
    """An image network of somebody else, with maps and with tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 4, 1)
        self.layer4 = nn.Conv2d(4, 6, 3, 2, 1)
        self.last = nn.LayerNorm(6)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.norm = nn.LayerNorm(6)
        self.fc = nn.Linear(6, 10)

    def forward(self, frames: Tensor) -> Tensor:
        assert frames.dim() == 4
        x = self.layer4(self.stem(frames))
        x = self.last(x.permute(0, 2, 3, 1)).flatten(1, 2)
        x = self.norm(torch.cat([self.token.expand(len(x), -1, -1), x], dim=1))
        return self.fc(x[:, 0])


@pytest.mark.parametrize(
    ("feature", "options"),
    [("layer4", {}), ("last", {"channels_last": True}), ("norm", {"patch": (1, 8, 8)})],
)
def test_an_image_network_takes_every_frame(feature: str, options: dict[str, object]) -> None:
    network = ImageNetwork()
    backbone = wrap_backbone(network, feature, preprocessing=CLIPS, frame_by_frame=True, **options)  # type: ignore[arg-type]
    assert (backbone.channels, backbone.stride) == (6, (1, 8, 8))
    for num_frames, size in ((8, 32), (3, 40)):
        clip = torch.randn(2, 3, num_frames, size, size)
        grid = backbone.grid(num_frames, size)
        feature_map = backbone.eval()(clip)
        assert feature_map.shape == (2, 6, grid.frames, grid.height, grid.width)
        assert grid.frames == num_frames
        maps = network.layer4(network.stem(clip[:, :, 1])).movedim(1, -1)
        if feature != "layer4":
            maps = network.last(maps)
        if feature == "norm":
            maps = network.norm(maps)
        torch.testing.assert_close(feature_map[:, :, 1], maps.movedim(-1, 1))
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert {"fc.weight", "fc.bias"} <= frozen
    model = classifier(backbone).train()
    model(torch.randn(2, 3, 8, 32, 32)).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_an_image_network_is_recognised() -> None:
    class Plain(nn.Sequential):
        pass

    network = Plain(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3))
    message = r"^Plain does not take clips; an image network needs frame_by_frame=True \(Expected"
    with pytest.raises(ValueError, match=message):
        wrap_backbone(network, "1", preprocessing=CLIPS)
    video = Plain(nn.Conv3d(4, 5, 3))
    with pytest.raises(RuntimeError, match="to have 4 channels"):
        wrap_backbone(video, "0", preprocessing=CLIPS)
    with pytest.raises(ValueError, match=r"'fc' must give a tensor \[M, C, H, W\] \(got \[1, 10"):
        wrap_backbone(ImageNetwork(), "fc", preprocessing=CLIPS, frame_by_frame=True)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("layer5", r"a layer of Network: stem, layer4, spare, fc \(got 'layer5'\)"),
        ("layer4.bn", r"a layer of Network: layer4.conv \(got 'layer4.bn'\)"),
        ("stem.0.x", r"a layer of Network: stem, layer4, spare, fc \(got 'stem.0.x'\)"),
        ("", r"a layer of Network: stem, .* \(got ''\)"),
        ("spare", "feature 'spare': the forward of Network does not reach this layer"),
        ("fc", r"feature 'fc' must give a tensor \[B, C, T, H, W\] \(got \[1, 10\]; for tokens"),
    ],
)
def test_layers_that_do_not_serve(feature: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrap_backbone(Network(), feature, preprocessing=CLIPS)


def test_patches_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"must give 128 tokens or more .* \(got \[1, 65, 5\]\)"):
        wrap_backbone(Tokens("sequence"), "norm", patch=(1, 8, 8), preprocessing=CLIPS)
    with pytest.raises(ValueError, match=r"'stem' must give a tensor \[B, N, C\] \(got \[1, 4, 8"):
        wrap_backbone(Network(), "stem", patch=(1, 8, 8), preprocessing=CLIPS)
    network = Tokens("sequence")
    network.norm = nn.RNN(5, 5)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"'norm' must give a tensor .* \(got tuple"):
        wrap_backbone(network, "norm", preprocessing=CLIPS)


def test_only_statistics_that_were_stated_are_compared() -> None:
    other = Preprocessing(8, 32, 32, mean=(0.5, 0.5, 0.5))
    head = TAGHead(6, 3, (4, 4, 4), encoder_layers=0, mode="none")
    stated = wrap_backbone(Network(), "layer4.conv", preprocessing=CLIPS)
    with pytest.warns(UserWarning, match="the weights of Network of WrappedBackbone were trained"):
        VideoClassifier(stated, head, preprocessing=other)
    unstated = Preprocessing(num_frames=32, resize=128, crop=112)
    assert wrap_backbone(Network(), "layer4.conv").preprocessing == unstated
    assert wrap_backbone(Network(), "layer4.conv").weights is None


class TestSaving:
    @pytest.fixture
    def mine(self, monkeypatch: pytest.MonkeyPatch) -> str:
        class Mine(WrappedBackbone):
            def __init__(self) -> None:
                super().__init__(Network(), "layer4.conv", preprocessing=CLIPS)

        Mine.__module__, Mine.__qualname__ = "my_networks", "Mine"
        module = types.ModuleType("my_networks")
        module.Mine = Mine  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "my_networks", module)
        allow_modules(["my_networks"])
        return "my_networks.Mine"

    def test_a_class_of_ones_own_is_saved_by_its_path(self, mine: str, tmp_path: Path) -> None:
        backbone = build_backbone(mine)
        assert isinstance(backbone, WrappedBackbone)
        one = classifier(backbone).eval()
        one.save_pretrained(tmp_path)
        clip = torch.randn(1, 3, 8, 32, 32)
        assert torch.equal(VideoClassifier.from_pretrained(tmp_path)(clip), one(clip))

    def test_one_made_in_a_script_says_how_it_could_be_saved(self, tmp_path: Path) -> None:
        model = classifier(wrap_backbone(Network(), "layer4.conv", preprocessing=CLIPS))
        with pytest.raises(ValueError, match=r"WrappedBackbone cannot be written .* subclass of W"):
            model.save_pretrained(tmp_path)
        assert not any(tmp_path.iterdir())
