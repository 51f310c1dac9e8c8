"""Transformers of the Hugging Face library with small random configs, beside the library itself."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from needed import needs
from safetensors.torch import load_file, save_file
from torch import Tensor

from taghead import TAGHead, VideoClassifier
from taghead.backbones import Backbone, build_backbone
from taghead.errors import DataError
from taghead.video import Preprocessing

pytestmark = needs("transformers")

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGES = {**SMALL, "image_size": 32, "patch_size": 8}
CONFIGS: dict[str, dict[str, Any]] = {
    "videomae": {**IMAGES, "intermediate_size": 40, "num_frames": 4},
    "timesformer": {**IMAGES, "intermediate_size": 40, "num_frames": 3},
    "vivit": {**SMALL, "image_size": 32, "tubelet_size": [2, 8, 8], "num_frames": 4},
    "vjepa2": {
        **SMALL,
        "crop_size": 32,
        "patch_size": 8,
        "frames_per_clip": 4,
        "pred_hidden_size": 24,
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1,
    },
    "dinov2": IMAGES,
    "dinov2_with_registers": IMAGES,
}
CLASSES = {
    "videomae": "VideoMAEForVideoClassification",
    "timesformer": "TimesformerForVideoClassification",
    "vivit": "VivitForVideoClassification",
    "vjepa2": "VJEPA2ForVideoClassification",
    "dinov2": "Dinov2ForImageClassification",
    "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
}
each_kind = pytest.mark.parametrize("kind", CONFIGS)


def named(kind: str, **changes: Any) -> str:
    return "hf:" + json.dumps({"model_type": kind, **CONFIGS[kind], **changes})


def library() -> Any:
    import transformers

    return transformers


def clip_of(backbone: Backbone, num_clips: int = 2) -> Tensor:
    clips = backbone.preprocessing
    return torch.randn(num_clips, 3, clips.num_frames, clips.crop, clips.crop)


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> Path:
    """A folder with a classifier, as the library saves it."""
    torch.manual_seed(5)
    config = getattr(library(), f"{CLASSES[kind].partition('For')[0]}Config")(**CONFIGS[kind])
    getattr(library(), CLASSES[kind])(config).save_pretrained(tmp_path)
    return tmp_path


@each_kind
def test_the_grid_is_that_of_the_feature_map(kind: str) -> None:
    backbone = build_backbone(named(kind)).eval()
    clip = clip_of(backbone)
    grid = backbone.grid(clip.size(2), 32)
    with torch.no_grad():
        feature_map = backbone(clip)
    assert feature_map.shape == (2, 24, grid.frames, grid.height, grid.width)
    assert (grid.height, grid.width) == (4, 4)
    assert grid.frames == clip.size(2) // backbone.stride[0]


@each_kind
def test_a_token_is_where_its_pixels_are(kind: str) -> None:
    backbone = build_backbone(named(kind, num_hidden_layers=0)).eval()  # no attention
    clip = clip_of(backbone, 1)
    grid = backbone.grid(clip.size(2), 32)
    step = backbone.stride
    for t, y, x in ((0, 0, 0), (grid.frames - 1, 1, 2), (0, 3, 1)):
        changed = clip.clone()
        changed[:, :, t * step[0] : (t + 1) * step[0], y * 8 : y * 8 + 8, x * 8 : x * 8 + 8] += 1
        with torch.no_grad():
            difference = (backbone(changed) - backbone(clip)).abs().amax((0, 1))
        assert difference.nonzero().tolist() == [[t, y, x]]


@each_kind
def test_the_feature_map_holds_the_last_tokens_of_the_library(kind: str, folder: Path) -> None:
    backbone = build_backbone(f"hf:{folder}", "DEFAULT").eval()
    cls = getattr(library(), CLASSES[kind].partition("For")[0] + "Model")
    model = cls.from_pretrained(folder).eval()
    clip = clip_of(backbone)
    with torch.no_grad():
        feature_map = backbone(clip)
        if "dinov2" in kind:
            output = model(clip[:, :, 1]).last_hidden_state
            num_prefix = 5 if "registers" in kind else 1
            expected = output[:, num_prefix:].transpose(1, 2)
            found = feature_map[:, :, 1].flatten(2)
        elif kind == "vjepa2":
            expected = model(clip.transpose(1, 2), skip_predictor=True).last_hidden_state
            found, expected = feature_map.flatten(2), expected.transpose(1, 2)
        else:
            output = model(clip.transpose(1, 2)).last_hidden_state
            expected = output[:, int(kind != "videomae") :].transpose(1, 2)
            last = (0, 1, 3, 4, 2) if kind == "timesformer" else (0, 1, 2, 3, 4)
            found = feature_map.permute(last).flatten(2)
    torch.testing.assert_close(found, expected)
    assert found.std() > 0
    assert backbone.weights == f"hf:{folder}"


@each_kind
def test_weights_come_from_the_folder_or_a_file(kind: str, folder: Path, tmp_path: Path) -> None:
    saved = load_file(folder / "model.safetensors")
    first = build_backbone(f"hf:{folder}", "DEFAULT")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    again = build_backbone(named(kind), tmp_path / "elsewhere.safetensors")
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    # with the names of the saved file, without the prefix of a classifier's network
    known = {tuple(value.shape): value for value in saved.values()}
    assert all(tuple(v.shape) in known for v in first.state_dict().values())
    assert build_backbone(f"hf:{folder}").weights is None
    with pytest.raises(DataError, match=r"model.safetensors: no such file .*; only safetensors ar"):
        build_backbone(f"hf:{folder}", "DEFAULT")


@each_kind
def test_only_what_the_feature_map_depends_on_is_trained(kind: str) -> None:
    backbone = build_backbone(named(kind)).train()
    backbone(clip_of(backbone)).square().sum().backward()
    without = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


@each_kind
def test_a_saved_model_holds_the_architecture(kind: str, folder: Path, tmp_path: Path) -> None:
    backbone = build_backbone(f"hf:{folder}", "DEFAULT")
    clip = clip_of(backbone, 1)
    head = TAGHead(24, 3, backbone.grid(clip.size(2), 32), encoder_layers=0, mode="none")
    one = VideoClassifier(backbone, head).eval()
    one.save_pretrained(tmp_path / "saved")
    (folder / "config.json").unlink()  # which is not asked for
    other = VideoClassifier.from_pretrained(tmp_path / "saved")
    assert torch.equal(one(clip), other(clip))
    assert str(other.backbone) == f"hf:{kind}"
    assert other.backbone.to_config() == backbone.to_config()
    assert backbone.to_config().startswith('hf:{"model_type":"')
    assert str(folder) not in (tmp_path / "saved/config.json").read_text()


@pytest.mark.parametrize("size", [40, 45])
def test_image_networks_take_any_size(size: int) -> None:
    backbone = build_backbone(named("dinov2")).eval()
    with torch.no_grad():
        feature_map = backbone(torch.randn(1, 3, 5, size, size))
    assert feature_map.shape == (1, 24, 5, 5, 5)
    assert backbone.grid(5, size).num_positions == 25


def test_v_jepa_takes_any_number_of_frames_of_one_size() -> None:
    backbone = build_backbone(named("vjepa2")).eval()
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 10, 32, 32)).shape == (1, 24, 5, 4, 4)
    assert backbone.grid(7, 32).frames == 3
    with pytest.raises(ValueError, match=r"^hf:vjepa2: clips must be Tx32x32 .*; got 4x40x40\)"):
        backbone.grid(4, 40)


@pytest.mark.parametrize("kind", ["videomae", "timesformer", "vivit"])
def test_positions_are_of_one_size(kind: str) -> None:
    backbone = build_backbone(named(kind))
    with pytest.raises(ValueError, match=rf"^hf:{kind}: clips must be \dx32x32 .*got 8x32x32"):
        backbone(torch.randn(1, 3, 8, 32, 32))


class TestPreprocessing:
    """What a folder states, beside the library's own processors."""

    @pytest.mark.parametrize(
        ("kind", "processor", "options"),
        [
            ("videomae", "VideoMAEImageProcessor", {}),
            ("vivit", "VivitImageProcessor", {}),
            ("dinov2", "BitImageProcessor", {"resample": 3}),
        ],
    )
    def test_a_clip_is_the_librarys(
        self, kind: str, processor: str, options: dict[str, Any], folder: Path
    ) -> None:
        sizes = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
        ours = getattr(library(), processor)(**sizes, **options)
        ours.save_pretrained(folder)
        clips = build_backbone(f"hf:{folder}").preprocessing
        frames = np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), dtype=np.uint8)
        is_video = kind != "dinov2"
        expected = ours(list(frames), return_tensors="pt")["pixel_values"]
        expected = (expected[0] if is_video else expected).transpose(0, 1)
        found = clips.test_view(frames)
        assert found.shape == expected.shape == (3, 4, 32, 32)
        assert (found - expected).abs().max() < 0.02  # rounded to whole numbers, or not
        assert clips.interpolation == ("bilinear" if is_video else "bicubic")

    @pytest.mark.parametrize("kind", ["vjepa2"])
    def test_a_processor_of_videos(self, folder: Path) -> None:
        stated = {
            "size": {"shortest_edge": 36},
            "crop_size": {"height": 32, "width": 32},
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.4, 0.5, 0.6],
        }
        (folder / "video_preprocessor_config.json").write_text(json.dumps(stated))
        clips = build_backbone(f"hf:{folder}").preprocessing
        assert clips == Preprocessing(4, 36, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))

    @each_kind
    def test_without_a_file_it_is_that_of_the_authors(self, kind: str, folder: Path) -> None:
        clips = build_backbone(f"hf:{folder}").preprocessing
        assert (clips.resize, clips.crop) == (32, 32)
        assert clips.mean[0] == {"timesformer": 0.45, "vivit": 0.5}.get(kind, 0.485)

    @pytest.mark.parametrize("kind", ["dinov2"])
    @pytest.mark.parametrize("content", ['{"size": [1]}', '{"image_std": [0, 1, 1]}', "[]", "{"])
    def test_a_damaged_file(self, folder: Path, content: str) -> None:
        (folder / "preprocessor_config.json").write_text(content)
        with pytest.raises(DataError, match=r"preprocessor_config.json: (not a|must hold an obj)"):
            build_backbone(f"hf:{folder}")


class TestHub:
    @pytest.fixture
    def kind(self) -> str:
        return "videomae"

    @pytest.fixture
    def asked(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """What is asked of a hub that has the folder under every name."""
        found: list[dict[str, Any]] = []

        def download(repo: str, **options: Any) -> str:
            found.append({"repo": repo, **options})
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        return found

    def test_a_model_and_its_revision(
        self, asked: list[dict[str, Any]], folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        backbone = build_backbone("hf:me/mine", "DEFAULT")
        assert str(backbone) == "hf:me/mine"
        commit = folder.name
        assert f"me/mine: commit {commit} of the hub; me/mine@{commit} pins it" in caplog.text
        caplog.clear()
        build_backbone(f"hf:me/mine@{commit}")
        assert not caplog.text
        assert [(each["repo"], each["revision"]) for each in asked] == [
            ("me/mine", None),
            ("me/mine", commit),
        ]
        files = [each["allow_patterns"] for each in asked]
        assert "*.safetensors" in files[0]
        assert files[1] == [
            "config.json",
            "preprocessor_config.json",
            "video_preprocessor_config.json",
        ]

    def test_a_hub_without_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: Any, **options: Any) -> str:
            raise OSError("404\nnot there")

        monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
        message = r"^me/mine: no such folder, and no such model on the hub: 404$"
        with pytest.raises(DataError, match=message):
            build_backbone("hf:me/mine")

    @pytest.mark.parametrize(
        "name", ["./mine", "/no/such/folder", "a/b/c", "https://hub/me/mine", ""]
    )
    def test_what_is_no_name(self, name: str) -> None:
        with pytest.raises(DataError, match="no such folder, and no name of a model on the hub"):
            build_backbone(f"hf:{name}")


class TestFaults:
    @pytest.mark.parametrize("kind", ["videomae"])
    def test_weights_of_another_network(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"not weights of TimesformerModel: \d+ keys are missin"
        ):
            build_backbone(named("timesformer"), folder / "model.safetensors")
        with pytest.raises(DataError, match=r"model.safetensors: not weights of VideoMAEModel: "):
            build_backbone(named("videomae", hidden_size=32), folder / "model.safetensors")
        with pytest.raises(
            ValueError, match=r"no file and no .* weights nope \(published: DEFAULT"
        ):
            build_backbone(f"hf:{folder}", "nope")
        with pytest.raises(
            ValueError, match=r"weights of hf:{.* weights DEFAULT \(published: none"
        ):
            build_backbone(named("videomae"), "DEFAULT")

    @pytest.mark.parametrize("kind", ["dinov2"])
    def test_several_files_of_weights(self, folder: Path) -> None:
        whole = build_backbone(f"hf:{folder}", "DEFAULT").state_dict()
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(state)
        table = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(names)}
        for part in set(table.values()):
            save_file({n: state[n] for n in names if table[n] == part}, folder / part)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": table}))
        parts = build_backbone(f"hf:{folder}", "DEFAULT").state_dict()
        assert all(torch.equal(parts[name], value) for name, value in whole.items())
        index.write_text(json.dumps({"weight_map": {names[0]: "../part-0.safetensors"}}))
        with pytest.raises(
            DataError, match=r"part-0.safetensors: no such file in the model's fold"
        ):
            build_backbone(f"hf:{folder}", "DEFAULT")
        (folder / "part-0.safetensors").write_bytes(b"damaged")
        index.write_text(json.dumps({"weight_map": table}))
        with pytest.raises(DataError, match=r"part-0.safetensors: not a file of safetensors"):
            build_backbone(f"hf:{folder}", "DEFAULT")

    @pytest.mark.parametrize("kind", ["dinov2"])
    def test_a_pickle_is_not_read(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
        with pytest.raises(DataError, match="only safetensors are read"):
            build_backbone(f"hf:{folder}", "DEFAULT")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model_type": "bert"}, r"model_type must be one of videomae, .* \(got 'bert'\)"),
            ({"model_type": ["videomae"]}, r"model_type must be one of .*\(got \['videomae'\]\)"),
            ({"hiden_size": 8}, "backbone hf:videomae: VideoMAEConfig has no 'hiden_size'"),
            ({"hidden_size": {"a": 1}}, r"hidden_size must be a plain value \(got {'a': 1}\)"),
            ({"hidden_size": "big"}, "not a config of videomae"),
            ({"hidden_act": "nope"}, "backbone hf:{.*: not a network: .*nope"),
            ({"num_attention_heads": 5}, "not a network: The hidden size"),
        ],
    )
    def test_configs_that_do_not_serve(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message) as raised:
            build_backbone(named("videomae", **changes))
        assert len(str(raised.value).splitlines()) == 1

    def test_a_config_that_is_no_json(self) -> None:
        with pytest.raises(ValueError, match="must be a config as JSON"):
            build_backbone("hf:{videomae}")
        with pytest.raises(ValueError, match="attention_type must not be space_only"):
            build_backbone(named("timesformer", attention_type="space_only"))

    def test_missing_transformers_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        message = r"hf:videomae needs transformers: pip install 'taghead\[hf\]'"
        with pytest.raises(ValueError, match=message):
            build_backbone(named("videomae"))
