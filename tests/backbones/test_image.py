"""timm's networks, beside timm itself."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from needed import needs
from safetensors.torch import save_file
from torch import nn

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.backbones.backbone import Backbone
from taghead.errors import DataError

pytestmark = needs("timm")

# channels first; channels last; tokens with a class token, with none, and with registers
SMALL = ["test_resnet", "test_mambaout", "test_vit", "test_vit_relpos", "test_vit4"]


def timm() -> Any:
    import timm

    return timm


def network_of(backbone: Backbone) -> Any:
    return backbone.features.network.network  # type: ignore[union-attr]


@pytest.mark.parametrize("name", SMALL)
def test_the_feature_map_is_what_timms_own_classifier_sees(name: str) -> None:
    theirs = timm().create_model(name).eval()
    backbone = build_backbone(f"image:{name}").eval()
    own = theirs.state_dict()
    state = {key: own[key] for key in network_of(backbone).state_dict()}
    network_of(backbone).load_state_dict(state)
    size = backbone.preprocessing.crop
    clip = torch.randn(2, 3, 3, size, size)
    with torch.no_grad():
        feature_map = backbone(clip)
        frames = clip.transpose(1, 2).flatten(0, 1)
        # timm's own conversion to maps
        expected = theirs.forward_intermediates(
            frames, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )[-1]
    grid = backbone.grid(3, size)
    assert feature_map.shape == (2, backbone.channels, 3, grid.height, grid.width)
    maps = feature_map.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)
    assert maps.std() > 0


@pytest.mark.parametrize("name", SMALL)
def test_grids_of_other_sizes(name: str) -> None:
    backbone = build_backbone(f"image:{name}").eval()
    for num_frames, size in ((1, 96), (5, 128)):
        if name == "test_vit_relpos":
            with pytest.raises(ValueError, match=rf"^image:{name}: frames of {size}x{size} pixels"):
                backbone.grid(num_frames, size)
            continue
        with torch.no_grad():
            feature_map = backbone(torch.randn(1, 3, num_frames, size, size))
        grid = backbone.grid(num_frames, size)
        assert feature_map.shape[2:] == (grid.frames, grid.height, grid.width)


def test_rows_and_columns_of_tokens() -> None:
    backbone = build_backbone("image:test_vit").eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 2, 64, 96)).shape == (1, backbone.channels, 2, 4, 6)


@pytest.mark.parametrize("name", [*SMALL, "mobilenetv3_small_050"])
def test_only_what_the_feature_map_depends_on_is_trained(name: str) -> None:
    backbone = build_backbone(f"image:{name}").train()
    size = backbone.preprocessing.crop
    backbone(torch.randn(2, 3, 1, size, size)).square().sum().backward()
    without = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    frozen = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    if name == "mobilenetv3_small_050":  # timm counts a convolution after the pooling to its head
        assert frozen == [
            f"features.network.network.conv_head.{kind}" for kind in ("weight", "bias")
        ]


def test_preprocessing_is_timms() -> None:
    stated = timm().data.resolve_model_data_config(timm().create_model("test_vit"))
    clips = build_backbone("image:test_vit").preprocessing
    assert (clips.crop, clips.interpolation) == (stated["input_size"][1], stated["interpolation"])
    assert (clips.mean, clips.std) == (stated["mean"], stated["std"])
    frames = torch.randint(256, (1, 240, 320, 3), dtype=torch.uint8)
    transform = timm().data.create_transform(**stated)
    from PIL import Image

    expected = transform(Image.fromarray(frames[0].numpy()))
    ours = clips.test_view(frames.numpy())[:, 0]
    assert ours.shape == expected.shape
    # Pillow and torch round the weights of an antialiased resizing differently
    assert (ours - expected).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "image:resnet81",
            r"must name a network of timm .*got 'image:resnet81'.*; did you mean image:resn",
        ),
        ("image:", "must name a network of timm"),
        ("image:hf-hub:user/model", "must name a network of timm"),
        ("image:local-dir:/data/model", "must name a network of timm"),
        ("image:test_vit.nope", r"image:test_vit: no tag 'nope' \(timm has: r160_in1k\)"),
        ("image:pit_b_224", r"image:pit_b_224: frames of 224x224 pixels: its features must be tok"),
        ("image:crossvit_9_240", r"its features must be a map or tokens \(got <class 'list'>\)"),
    ],
)
def test_names_that_do_not_serve(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        build_backbone(name)
    assert len(str(raised.value).splitlines()) == 1


def test_a_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in ("image:test_vit", "efficientnet_lite0"):
        with pytest.raises(ValueError, match=rf"{name} needs timm: pip install 'taghead\[image\]'"):
            build_backbone(name)


class TestWeights:
    @pytest.fixture
    def trained(self) -> nn.Module:
        torch.manual_seed(3)
        return timm().create_model("test_vit", num_classes=7)

    def loaded(self, backbone: Backbone, network: nn.Module) -> bool:
        state = network.state_dict()
        own = network_of(backbone).state_dict()
        assert "head.weight" not in own
        return all(torch.equal(value, state[key]) for key, value in own.items())

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_a_file(self, trained: nn.Module, tmp_path: Path, suffix: str) -> None:
        file = tmp_path / f"weights.{suffix}"
        write: Callable[..., object] = save_file if suffix == "safetensors" else torch.save
        write(trained.state_dict(), file)
        backbone = build_backbone("image:test_vit", file)
        assert self.loaded(backbone, trained)
        assert backbone.weights == str(file)
        with pytest.raises(
            DataError, match=r"weights.*: not weights of image:test_resnet: .* keys"
        ):
            build_backbone("image:test_resnet", file)

    @pytest.mark.parametrize(
        ("name", "weights"),
        [
            ("image:test_vit", "DEFAULT"),
            ("image:test_vit.r160_in1k", "DEFAULT"),
            ("image:test_vit", "r160_in1k"),
        ],
    )
    def test_published_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str
    ) -> None:
        torch.manual_seed(4)
        published = timm().create_model("test_vit")
        save_file(published.state_dict(), tmp_path / "model.safetensors")
        asked: list[str] = []

        def download(repo_id: str, filename: str, **options: Any) -> str:
            asked.append(f"{repo_id} {filename}")
            return str(tmp_path / "model.safetensors")

        monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
        backbone = build_backbone(name, weights)
        assert asked == ["timm/test_vit.r160_in1k model.safetensors"]
        assert self.loaded(backbone, published)
        assert backbone.weights == "test_vit.r160_in1k"

    def test_without_weights_nothing_is_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **options: Any) -> str:
            raise AssertionError("fetched")

        monkeypatch.setattr("timm.models._hub.hf_hub_download", refuse)
        assert build_backbone("image:test_vit.r160_in1k").weights is None

    def test_a_hub_that_cannot_be_reached(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **options: Any) -> str:
            raise OSError("no route\nto the hub")

        monkeypatch.setattr("timm.models._hub.hf_hub_download", fail)
        message = r"^image:test_vit: timm cannot load the weights test_vit.r160_in1k: no route$"
        with pytest.raises(DataError, match=message):
            build_backbone("image:test_vit", "DEFAULT")

    def test_unknown_ones(self) -> None:
        message = r"weights of image:test_vit: no file and .* weights nope \(published: r160_in1k\)"
        with pytest.raises(ValueError, match=message):
            build_backbone("image:test_vit", "nope")


def test_a_model_is_saved_and_loaded(tmp_path: Path) -> None:
    backbone = build_backbone("image:test_vit")
    assert backbone.to_config() == "image:test_vit"
    head = TAGHead(64, 3, backbone.grid(2, 96), encoder_layers=0, mode="none")
    one = VideoClassifier(backbone, head).eval()
    one.save_pretrained(tmp_path)
    other = VideoClassifier.from_pretrained(tmp_path)
    clip = torch.randn(1, 3, 2, 96, 96)
    assert torch.equal(one(clip), other(clip))
