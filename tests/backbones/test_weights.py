import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from authors import Bomb
from torch import Tensor, nn
from torchvision.models import video

from taghead.backbones import (
    BACKBONES,
    PublishedWeights,
    build_backbone,
    r2plus1d_tiny,
)
from taghead.backbones.weights import SHA256
from taghead.errors import DataError
from taghead.video import Preprocessing

IG65M = {"IG65M_CLIP32", "IG65M_CLIP8", "IG65M_KINETICS400_CLIP32", "IG65M_KINETICS400_CLIP8"}


def test_published_weights_are_known_by_name() -> None:
    specs = {name: spec for name, spec in BACKBONES.items() if name != "r2plus1d_tiny"}
    assert all(spec.weights for spec in specs.values())
    weights = BACKBONES["r2plus1d_34"].weights
    assert weights.keys() == IG65M
    prefixes = {"449a7af9", "9bae36ae", "ade133f1", "0aa0550b"}
    assert {torch.hub.HASH_REGEX.search(w.url)[1] for w in weights.values()} == prefixes  # type: ignore[index]
    assert [w.preprocessing.num_frames for w in weights.values()] == [32, 8, 32, 8]
    assert weights["IG65M_CLIP32"].preprocessing.mean == (0.43216, 0.394666, 0.37645)
    assert BACKBONES["swin3d_b"].weights.keys() == {
        "KINETICS400_V1",
        "KINETICS400_IMAGENET22K_V1",
    }
    assert BACKBONES["swin3d_t"].preprocessing == Preprocessing(
        32, 256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    model = video.mc3_18(num_classes=7)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("mc3_18", tmp_path / "weights.pth")
    stages = nn.Sequential(model.stem, model.layer1, model.layer2, model.layer3, model.layer4)
    for name, tensor in stages.state_dict().items():
        assert torch.equal(backbone.features.state_dict()[name], tensor), name
    assert backbone.weights == str(tmp_path / "weights.pth")
    assert build_backbone("r2plus1d_tiny").weights is None


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """Publishes weights of r2plus1d_tiny with a classifier, as a file that urllib can open."""

    def publish(
        content: Callable[[dict[str, Tensor]], Any], digits: str | None = None
    ) -> nn.Module:
        class Tiny(nn.Sequential):
            def __init__(self) -> None:
                super().__init__()
                self.body, self.fc = r2plus1d_tiny(), nn.Linear(128, 400)

        spec = replace(BACKBONES["r2plus1d_tiny"], build=Tiny, features=lambda model: model.body)
        network = Tiny()
        network.fc = nn.Linear(128, 359)  # IG-65M's files are of 359 classes, Kinetics' of 400
        torch.save(content(network.state_dict()), tmp_path / "file")
        digits = digits or hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()[:8]
        file = (tmp_path / "file").rename(tmp_path / f"tiny-{digits}.pth")
        clips = Preprocessing(8, 64, 64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        weights = {"FIRST": PublishedWeights(file.as_uri(), clips)}
        monkeypatch.setitem(BACKBONES, "r2plus1d_tiny", replace(spec, weights=weights))
        return network.body

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return publish


@pytest.mark.parametrize("nested", [False, True])
def test_published_weights_are_downloaded_once(
    published: Callable[..., nn.Module],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nested: bool,
) -> None:
    body = published(lambda state: {"model_state": state, "epoch": 3} if nested else state)
    first = build_backbone("r2plus1d_tiny", "DEFAULT")
    assert capsys.readouterr().out == ""  # where results go
    (cached,) = (tmp_path / "cache/hub/checkpoints").iterdir()
    next(tmp_path.glob("tiny-*.pth")).unlink()
    again = build_backbone("r2plus1d_tiny", "FIRST")
    for backbone in (first, again):
        assert backbone.weights == "FIRST"
        assert backbone.preprocessing.mean == (0.1, 0.2, 0.3)
        for name, tensor in body.state_dict().items():
            assert torch.equal(backbone.features.state_dict()[name], tensor), name
    cached.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"tiny-.*pth: cannot be downloaded into .* and read"):
        build_backbone("r2plus1d_tiny", "FIRST")
    assert not cached.exists()


def test_a_download_that_was_damaged_is_downloaded_again(
    published: Callable[..., nn.Module], tmp_path: Path
) -> None:
    body = published(lambda state: state)
    build_backbone("r2plus1d_tiny", "FIRST")
    (cached,) = (tmp_path / "cache/hub/checkpoints").iterdir()
    whole = cached.read_bytes()
    state = {name: tensor + 1 for name, tensor in torch.load(cached, weights_only=True).items()}
    torch.save(state, cached)  # readable, with other numbers
    backbone = build_backbone("r2plus1d_tiny", "FIRST")
    assert cached.read_bytes() == whole
    for name, tensor in body.state_dict().items():
        assert torch.equal(backbone.features.state_dict()[name], tensor), name


def test_a_download_without_a_hash_that_cannot_be_read_is_named(
    published: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(lambda state: state)
    spec = BACKBONES["r2plus1d_tiny"]
    (tmp_path / "tiny.pth").write_bytes(b"damaged")
    entry = replace(spec.weights["FIRST"], url=(tmp_path / "tiny.pth").as_uri())
    monkeypatch.setitem(BACKBONES, "r2plus1d_tiny", replace(spec, weights={"FIRST": entry}))
    kept = tmp_path / "cache/hub/checkpoints/tiny.pth"
    with pytest.raises(DataError, match=rf"\(to download it again, remove {kept}\)$"):
        build_backbone("r2plus1d_tiny", "FIRST")


def test_a_download_whose_hash_differs_is_refused(
    published: Callable[..., nn.Module], tmp_path: Path
) -> None:
    published(lambda state: state, digits="0123abcd")
    with pytest.raises(DataError, match=r'invalid hash value \(expected "0123abcd"'):
        build_backbone("r2plus1d_tiny", "FIRST")
    assert not any((tmp_path / "cache/hub/checkpoints").iterdir())


def test_a_known_checksum_is_compared_as_a_whole(
    published: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(lambda state: state)
    (file,) = tmp_path.glob("tiny-*.pth")
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    wrong = right[:8] + "0" * 56  # the digits of the name are right
    monkeypatch.setitem(SHA256, file.name, wrong)
    with pytest.raises(DataError, match=rf'invalid hash value \(expected "{wrong}"'):
        build_backbone("r2plus1d_tiny", "FIRST")
    monkeypatch.setitem(SHA256, file.name, right)
    build_backbone("r2plus1d_tiny", "FIRST")
    assert all(len(d) == 64 and f"-{d[:8]}." in name for name, d in SHA256.items())


def test_a_download_that_fails_says_where_from(
    published: Callable[..., nn.Module], tmp_path: Path
) -> None:
    published(lambda state: state)
    next(tmp_path.glob("tiny-*.pth")).unlink()
    with pytest.raises(DataError, match=r"^file:.*tiny-.*: cannot be downloaded .*No such file"):
        build_backbone("r2plus1d_tiny", "FIRST")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(r2plus1d_tiny().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights.pth: not weights of r3d_18: .* keys differ"):
        build_backbone("r3d_18", tmp_path / "weights.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(DataError, match=r"text.pth: not a readable state dict"):
        build_backbone("r3d_18", tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match=r"list.pth: not a state dict: it must map names"):
        build_backbone("r3d_18", tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.0.weight"), "1 keys differ, the first: 0.0.weight is missing"),
        (lambda s: s.update(more=torch.zeros(1)), "1 keys differ, the first: more is unknown"),
        (
            lambda s: s.update({"0.1.bias": torch.zeros(2)}),
            r"1 keys differ, the first: 0.1.bias is \[2\] instead of \[16\]",
        ),
    ],
)
def test_a_key_that_differs_is_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    state = r2plus1d_tiny().state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=f"weights.pth: not weights of r2plus1d_tiny: {message}"):
        build_backbone("r2plus1d_tiny", tmp_path / "weights.pth")


def test_a_file_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    state = {**r2plus1d_tiny().state_dict(), "bomb": Bomb(tmp_path / "crater")}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights.pth: not a readable state dict"):
        build_backbone("r2plus1d_tiny", tmp_path / "weights.pth")
    assert not (tmp_path / "crater").exists()
    torch.load(tmp_path / "weights.pth", weights_only=False)  # the bomb is a live one
    assert (tmp_path / "crater").exists()


def test_a_download_with_code_is_refused_and_not_run(
    published: Callable[..., nn.Module], tmp_path: Path
) -> None:
    published(lambda state: {**state, "bomb": Bomb(tmp_path / "crater")})
    with pytest.raises(DataError, match=r"tiny-.*pth: cannot be downloaded into .* and read"):
        build_backbone("r2plus1d_tiny", "FIRST")
    assert not (tmp_path / "crater").exists()
    (cached,) = (tmp_path / "cache/hub/checkpoints").iterdir()
    torch.load(cached, weights_only=False)  # the bomb is a live one
    assert (tmp_path / "crater").exists()
