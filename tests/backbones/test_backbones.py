import hashlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video.mvit import MSBlockConfig

from taghead.backbones import (
    BACKBONES,
    Backbone,
    PublishedWeights,
    build_backbone,
    r2plus1d_tiny,
)
from taghead.backbones.slowfast import SLOWFAST
from taghead.errors import DataError
from taghead.model.classifier import VideoClassifier
from taghead.nn.head import TAGHead
from taghead.video import Preprocessing

HAS_PYTORCHVIDEO = importlib.util.find_spec("pytorchvideo") is not None
NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name in SLOWFAST and not HAS_PYTORCHVIDEO, reason="pytorchvideo is not installed"
        ),
    )
    for name in BACKBONES
]
IG65M = {"IG65M_CLIP32", "IG65M_CLIP8", "IG65M_KINETICS400_CLIP32", "IG65M_KINETICS400_CLIP8"}


def only(*names: str) -> list[Any]:
    return [name for name in NAMES if name.values[0] in names]


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_gives_what_it_states(name: str) -> None:
    with torch.device("meta"):  # real forwards, whose tensors have sizes and no numbers
        backbone = build_backbone(name).eval()
        made_for = (backbone.preprocessing.num_frames, backbone.preprocessing.crop)
        sizes = [made_for, (16, 64), (9, 50), (13, 47), (30, 100)]  # most divide by no stride
        for num_frames, size in [made_for] if backbone.clip_size else sizes:
            with torch.no_grad():
                feature_map = backbone(torch.randn(2, 3, num_frames, size, size))
            grid = backbone.grid(num_frames, size)
            expected = (2, backbone.channels, grid.frames, grid.height, grid.width)
            assert feature_map.shape == expected
            if (num_frames, size) in (made_for, (16, 64)) and num_frames % backbone.stride[0] == 0:
                steps = (num_frames // grid.frames, -(-size // grid.height), -(-size // grid.width))
                assert steps[0] == backbone.stride[0]
                assert size % backbone.stride[1] or steps == backbone.stride


@pytest.mark.parametrize("name", only("r2plus1d_tiny", "r2plus1d_18", "slowfast_r50", "c2d_r50"))
def test_clips_of_one_frame_or_of_an_odd_number(name: str) -> None:
    backbone = build_backbone(name).eval()
    for num_frames in (2, 7) if name == "c2d_r50" else (1, 7):
        feature_map = backbone(torch.randn(1, 3, num_frames, 32, 32))
        assert feature_map.shape[2] == backbone.grid(num_frames, 32).frames
        assert feature_map.isfinite().all()


def test_a_clip_of_which_nothing_is_left() -> None:
    with pytest.raises(ValueError, match="s3d: a clip of 2x224x224 leaves no tokens"):
        build_backbone("s3d").grid(2, 224)


def mean_then(*layers: str) -> Callable[[nn.Module, Tensor], Tensor]:
    """The network's own classifier on the feature map's mean."""

    def classify(model: nn.Module, feature_map: Tensor) -> Tensor:
        x = feature_map.mean((2, 3, 4))
        for layer in layers:
            x = model.get_submodule(layer)(x)
        return x

    return classify


def x3d_head(model: nn.Module, feature_map: Tensor) -> Tensor:
    pool = model.blocks[-1].pool  # type: ignore[union-attr,index]
    x = pool.post_act(pool.post_conv(feature_map.mean((2, 3, 4), keepdim=True)))  # type: ignore[operator,union-attr]
    return model.blocks[-1].proj(x.flatten(1)).softmax(1)  # type: ignore[union-attr,index,operator]


CLASSIFIERS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "r3d_18": mean_then("fc"),
    "swin3d_t": mean_then("head"),
    "s3d": lambda model, x: model.classifier(model.avgpool(x)).mean((2, 3, 4)),
    "slow_r50": mean_then("blocks.5.proj"),
    "i3d_r50": mean_then("blocks.6.proj"),
    "slowfast_r50": mean_then("blocks.6.proj"),
    "x3d_s": x3d_head,
    "csn_r101": mean_then("blocks.5.proj"),
}


@pytest.mark.parametrize("name", only(*CLASSIFIERS))
def test_the_feature_map_is_what_the_networks_own_classifier_sees(name: str) -> None:
    spec = BACKBONES[name]
    model = spec.build().eval()
    num_frames = spec.preprocessing.num_frames if name in SLOWFAST else 16
    clip = torch.randn(1, 3, num_frames, 64, 64)
    for pool in model.modules():  # the last pooling is of the size that they were made for
        if isinstance(pool, nn.AvgPool3d):
            pool.kernel_size = (pool.kernel_size[0], 2, 2)  # type: ignore[index,assignment]
    with torch.no_grad():
        theirs = model([clip[:, :, ::4], clip] if name == "slowfast_r50" else clip)
        ours = CLASSIFIERS[name](model, spec.features(model)(clip))
    assert theirs.std() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_mvit_gives_its_tokens_without_the_class_token() -> None:
    blocks = [
        MSBlockConfig(1, 96, 192, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 4, 4]),
        MSBlockConfig(2, 192, 192, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
    ]
    model = video.MViT((64, 64), 6, blocks, True, False, True, True).eval()
    features = BACKBONES["mvit_v2_s"].features(model)
    tokens = []
    model.norm.register_forward_hook(lambda *call: tokens.append(call[2]))
    clip = torch.randn(1, 3, 6, 64, 64)
    with torch.no_grad():
        feature_map = features(clip)
        model(clip)
    assert feature_map.shape == (1, 192, 3, 8, 8)
    assert tokens[1].shape == (1, 1 + 3 * 8 * 8, 192)
    assert torch.equal(feature_map.flatten(2).transpose(1, 2), tokens[1][:, 1:])


def test_clips_must_fit_positions_that_are_bound_to_a_size() -> None:
    with torch.device("meta"):
        backbone = build_backbone("mvit_v1_b")
        message = r"mvit_v1_b: clips must be 16x224x224 \(frames, height, width; got 32x112x112\)"
        with pytest.raises(ValueError, match=message):
            backbone.grid(32, 112)
        with pytest.raises(ValueError, match=message):
            backbone(torch.randn(1, 3, 32, 112, 112))


@pytest.mark.parametrize("name", only("slowfast_r50"))
def test_slowfast_joins_its_pathways_frame_by_frame(name: str) -> None:
    backbone = build_backbone(name).eval()
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


def test_the_small_one_is_small() -> None:
    parameters = sum(p.numel() for p in build_backbone("r2plus1d_tiny").parameters())
    assert 0.3e6 < parameters < 0.5e6


def test_r2plus1d_34_is_the_one_of_the_ig65m_weights() -> None:
    with torch.device("meta"):
        backbone = build_backbone("r2plus1d_34")
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2) == 63.49
    features: Any = backbone.features
    assert [len(stage) for stage in features[1:]] == [3, 4, 6, 3]
    widths = [stage[0].conv2[0][0].out_channels for stage in features[2:]]
    assert widths == [288, 576, 1152]
    norms = [m for m in features.modules() if isinstance(m, nn.BatchNorm3d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.9)}
    state = features.state_dict()
    assert {"0.0.weight", "1.0.conv1.0.0.weight"} <= state.keys()
    grid = backbone.grid(64, 112)
    assert (grid.frames, grid.height, grid.width) == (8, 7, 7)
    assert backbone.grid(32, 112).frames == 4


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


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "boom")


def test_a_file_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    state = {**r2plus1d_tiny().state_dict(), "bomb": Bomb(tmp_path / "crater")}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(DataError, match=r"weights.pth: not a readable state dict"):
        build_backbone("r2plus1d_tiny", tmp_path / "weights.pth")
    assert not (tmp_path / "crater").exists()
    torch.load(tmp_path / "weights.pth", weights_only=False)  # the bomb is a live one
    assert (tmp_path / "crater").exists()


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


def test_other_statistics_than_the_weights_were_trained_on_are_warned_about(
    tmp_path: Path,
) -> None:
    torch.save(r2plus1d_tiny().state_dict(), tmp_path / "weights.pth")
    clips = BACKBONES["r2plus1d_tiny"].preprocessing

    def classifier(weights: Path | None, preprocessing: Preprocessing) -> VideoClassifier:
        backbone = build_backbone("r2plus1d_tiny", weights)
        head = TAGHead(128, 3, (2, 4, 4), encoder_layers=0, mode="none")
        return VideoClassifier(backbone, head, preprocessing=preprocessing)

    other = replace(clips, mean=(0.43216, 0.394666, 0.37645))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier(tmp_path / "weights.pth", replace(clips, num_frames=8, resize=64))
        classifier(None, other)
    message = r"weights.pth of r2plus1d_tiny .* mean \(0.43216, .*\) instead of \(0.45, 0.45, 0.45"
    with pytest.warns(UserWarning, match=message):
        classifier(tmp_path / "weights.pth", other)


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
            ("no_such_module.Mine", "there is no class no_such_module.Mine"),
            ("torch.nn.Linear", r"torch.nn.Linear must be a subclass of Backbone"),
            ("os.abort", r"os.abort must be a subclass of Backbone"),
        ],
    )
    def test_other_paths_are_refused(self, path: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            build_backbone(path)
