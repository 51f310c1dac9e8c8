import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from taghead import backbones
from taghead.backbones import (
    BACKBONES,
    Backbone,
    build_backbone,
)
from taghead.backbones.build import collect_specs
from taghead.class_paths import allow_modules
from taghead.model.classifier import VideoClassifier
from taghead.nn.head import TAGHead
from taghead.video import Preprocessing

NEW_MODULE = """
from torch import nn

from taghead.backbones import BackboneSpec
from taghead.video import Preprocessing

SPECS = {
    "patches": BackboneSpec(
        build=lambda: nn.Sequential(nn.Conv3d(3, 8, 4, stride=4), nn.Flatten(), nn.LazyLinear(5)),
        features=lambda network: network[0],
        channels=8,
        stride=(4, 4, 4),
        preprocessing=Preprocessing(num_frames=8, resize=16, crop=16),
    )
}
"""


def test_a_new_module_is_all_that_a_new_backbone_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "patches.py").write_text(NEW_MODULE)
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path)])
    specs = collect_specs()
    monkeypatch.delitem(sys.modules, "taghead.backbones.patches")
    assert specs.keys() - BACKBONES.keys() == {"patches"}
    monkeypatch.setitem(BACKBONES, "patches", specs["patches"])
    backbone = build_backbone("patches")
    grid = backbone.grid(8, 16)
    feature_map = backbone(torch.randn(2, 3, 8, 16, 16))
    assert feature_map.shape == (2, 8, grid.frames, grid.height, grid.width)
    assert backbone.to_config() == "patches"


def test_a_name_that_two_modules_give_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twin.py").write_text(NEW_MODULE.replace('"patches"', '"r3d_18"'))
    monkeypatch.setattr(backbones, "__path__", [*backbones.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match=r"r3d_18 is in SPECS of taghead.backbones.\w+ and .*twin"):
        collect_specs()
    monkeypatch.delitem(sys.modules, "taghead.backbones.twin")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"r2plus1d_tiny, .* \(got 'resnet'\)"):
        build_backbone("resnet")
    message = "weights of r3d_18: no file and no published weights NOPE .published: KINETICS400_V1"
    with pytest.raises(ValueError, match=message):
        build_backbone("r3d_18", "NOPE")
    for name in ("NOPE", "DEFAULT"):
        message = f"weights of r2plus1d_tiny: no file and no published weights {name} .*: none"
        with pytest.raises(ValueError, match=message):
            build_backbone("r2plus1d_tiny", name)


class TestAClassOfOnesOwn:
    @pytest.fixture(autouse=True)
    def module(self, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
        class Mine(Backbone):
            def __init__(self, width: int = 8, weights: str | None = None) -> None:
                features = nn.Conv3d(3, width, 4, stride=4)
                super().__init__(features, width, (4, 4, 4), Preprocessing(), weights=weights)

        class Needy(Backbone):
            def __init__(self, width: int) -> None:
                super().__init__(nn.Conv3d(3, width, 4), width, (4, 4, 4), Preprocessing())

        module = types.ModuleType("my_networks")
        for cls in (Mine, Needy):
            cls.__module__, cls.__qualname__ = "my_networks", cls.__name__
            setattr(module, cls.__name__, cls)
        monkeypatch.setitem(sys.modules, "my_networks", module)
        allow_modules(["my_networks"])
        return module

    def test_its_path_names_it(self) -> None:
        backbone = build_backbone("my_networks.Mine")
        assert backbone.channels == 8
        assert backbone.to_config() == "my_networks.Mine"
        assert build_backbone("my_networks.Mine", "some.pth").weights == "some.pth"

    def test_it_can_be_saved_and_loaded(self, tmp_path: Path) -> None:
        head = TAGHead(8, 3, (2, 2, 2), encoder_layers=0, mode="none")
        one = VideoClassifier(build_backbone("my_networks.Mine"), head).eval()
        one.save_pretrained(tmp_path)
        other = VideoClassifier.from_pretrained(tmp_path)
        clip = torch.randn(1, 3, 8, 8, 8)
        assert torch.equal(one(clip), other(clip))

    def test_what_cannot_be_built_again_cannot_be_written(self, module: types.ModuleType) -> None:
        with pytest.raises(
            ValueError, match="cannot be written to a file: its class takes 'width'"
        ):
            module.Needy(4).to_config()
        with pytest.raises(ValueError, match=r"Needy cannot be built with no arguments: missing"):
            build_backbone("my_networks.Needy")
        plain = Backbone(nn.Identity(), 3, (1, 1, 1), Preprocessing())
        message = "a class of its own, a subclass of Backbone in a module"
        with pytest.raises(ValueError, match=message):
            plain.to_config()

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("my_networks.Yours", "there is no class my_networks.Yours"),
            (
                "no_such_module.Mine",
                "is not allowed: .*--modules=no_such_module",
            ),
            ("my_networks.nn.Linear", r"there is no class my_networks.nn.Linear"),
            ("taghead.TAGHead", r"taghead.TAGHead must be a subclass of Backbone"),
            ("torch.nn.Linear", r"torch.nn.Linear is not allowed: classes come from taghead and"),
            ("torch.utils.model_dump.__main__.x", r"must be a class path"),
            ("os.abort", r"os.abort is not allowed: classes come from taghead and modules of your"),
        ],
    )
    def test_other_paths_are_refused(self, path: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            build_backbone(path)
