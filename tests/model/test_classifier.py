import json
import shutil
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub.hub_mixin
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from torch_geometric.nn import GATv2Conv

from taghead import TAGHead, VideoClassifier
from taghead.backbones import BACKBONES, build_backbone, r2plus1d_tiny
from taghead.errors import DataError
from taghead.model.classifier import mean_probabilities
from taghead.video import Preprocessing

NAMES = ["blowing kisses", "007", "none"]


def model(**options: object) -> VideoClassifier:
    backbone = build_backbone("r2plus1d_tiny")
    head = TAGHead(
        backbone.channels,
        3,
        backbone.grid(8, 32),
        encoder_heads=4,
        encoder_channels=32,
        conv=partial(GATv2Conv, heads=2, concat=False),
    )
    defaults = {"class_names": NAMES, "preprocessing": Preprocessing(8, 32, 32)}
    return VideoClassifier(backbone, head, **{**defaults, **options}).eval()  # type: ignore[arg-type]


def test_there_and_back(tmp_path: Path) -> None:
    one = model()
    one.save_pretrained(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    other = VideoClassifier.from_pretrained(tmp_path / "model")
    clip = torch.randn(2, 3, 8, 32, 32)
    assert torch.equal(one(clip), other(clip))
    assert other.class_names == one.class_names
    assert other.preprocessing == one.preprocessing
    assert not other.training


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config.json: not a model's config"):
        VideoClassifier.from_pretrained(tmp_path)
    model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match=r"model.safetensors: not this model's weights"):
        VideoClassifier.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["head"]["num_clases"] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config.json: not a model's config: .*num_clases"):
        VideoClassifier.from_pretrained(tmp_path)


def test_a_config_starts_no_code_but_operators(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["head"]["conv"] = {"class_path": "subprocess.Popen", "init_args": {"args": "true"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"conv: subprocess.Popen is not allowed"):
        VideoClassifier.from_pretrained(tmp_path)


def test_a_failed_save_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = model()
    one.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("taghead.model.classifier.save_file", fail)
    other = model()
    other.metrics = {"top1": 0.9}
    with pytest.raises(OSError, match="no space left"):
        other.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    clip = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(VideoClassifier.from_pretrained(tmp_path)(clip), one(clip))


def test_the_parts_must_fit() -> None:
    backbone = build_backbone("r2plus1d_tiny")
    with pytest.raises(ValueError, match=r"in_channels must be the backbone's 128 \(got 8\)"):
        VideoClassifier(backbone, TAGHead(8, 3, (1, 2, 2)))
    with pytest.raises(ValueError, match=r"class_names must have 3 names \(got 1\)"):
        model(class_names=["one"])


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04K\x01."])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model.ckpt: not a checkpoint of this package") as error:
        VideoClassifier.from_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_config_imports_no_module_that_was_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stranger.py").write_text("raise SystemExit('this code must not run')")
    monkeypatch.syspath_prepend(tmp_path)
    model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["head"]["conv"] = {"class_path": "stranger.Conv"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"stranger.Conv is not allowed: .*--modules=stranger"):
        VideoClassifier.from_pretrained(tmp_path)


def test_a_head_of_its_own_class_is_not_saved_as_another(tmp_path: Path) -> None:
    class MyHead(TAGHead):
        pass

    backbone = build_backbone("r2plus1d_tiny")
    classifier = VideoClassifier(backbone, MyHead(backbone.channels, 3, (2, 4, 4)))
    with pytest.raises(ValueError, match="head: a MyHead cannot be written to a file"):
        classifier.save_pretrained(tmp_path)


def test_probabilities_are_averaged_over_views() -> None:
    one = model()
    views = torch.randn(2, 5, 3, 8, 32, 32)
    with torch.no_grad():
        exact = torch.stack([one(clip).softmax(dim=1).mean(dim=0) for clip in views])
        torch.testing.assert_close(one.probabilities(views), exact)
        assert torch.equal(one.probabilities(views[:, 0]), one(views[:, 0]).softmax(dim=1))
        assert torch.equal(one.probabilities(views[:, :1]), one(views[:, 0]).softmax(dim=1))
    half = mean_probabilities(lambda clip: one(clip).bfloat16(), views)
    assert half.dtype == torch.float32  # in half precision, many classes would share a place


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the hub."""
    place = tmp_path / "hub"

    class Api:
        def __init__(self, **options: Any) -> None: ...

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            (place / repo_id).mkdir(parents=True, exist_ok=True)
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, repo_id: str, folder_path: Path, **options: Any) -> str:
            shutil.copytree(folder_path, place / repo_id, dirs_exist_ok=True)
            return f"https://hub/{repo_id}"

    def snapshot(name: str, allow_patterns: list[str], revision: str = "main") -> str:
        if not (place / name).is_dir():
            raise LocalEntryNotFoundError(f"no {name} at {revision}\nand more lines")
        return str(place / name)

    monkeypatch.setattr(huggingface_hub.hub_mixin, "HfApi", Api)
    monkeypatch.setattr("taghead.model.classifier.snapshot_download", snapshot)
    return place


def test_an_upload_is_one_call_and_comes_back(hub: Path) -> None:
    one = model()
    assert one.push_to_hub("user/name") == "https://hub/user/name"
    files = sorted(path.name for path in (hub / "user/name").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    other = VideoClassifier.from_pretrained("user/name", revision="v1")
    clip = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(one(clip), other(clip))
    assert (other.class_names, other.preprocessing) == (one.class_names, one.preprocessing)
    with pytest.raises(DataError, match=r"^user/other: no such folder, and no such .* at v1$"):
        VideoClassifier.from_pretrained("user/other", revision="v1")


def test_the_commit_of_a_download_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    model().save_pretrained(tmp_path / commit)
    asked = []

    def snapshot(name: str, revision: str | None, **options: Any) -> str:
        asked.append(revision)
        return str(tmp_path / commit)

    monkeypatch.setattr("taghead.model.classifier.snapshot_download", snapshot)
    VideoClassifier.from_pretrained("user/name")
    assert caplog.messages == [
        f"user/name: commit {commit} of the hub; revision='{commit}' pins it"
    ]
    caplog.clear()
    VideoClassifier.from_pretrained("user/name", revision=commit)
    assert asked == [None, commit]
    assert caplog.messages == []


def test_saving_may_upload_as_well(hub: Path, tmp_path: Path) -> None:
    where = model().save_pretrained(tmp_path / "gym", push_to_hub=True, private=True)
    assert where == "https://hub/gym"
    assert (tmp_path / "gym/config.json").read_bytes() == (hub / "gym/config.json").read_bytes()


def test_a_folder_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model().save_pretrained(tmp_path / "gym")

    def offline(*args: Any, **options: Any) -> None:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr("taghead.model.classifier.snapshot_download", offline)
    assert VideoClassifier.from_pretrained(tmp_path / "gym").class_names == NAMES
    with pytest.raises(DataError, match="gim: no such folder, and no such model on the hub: off"):
        VideoClassifier.from_pretrained("gim")


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("num_views", [1, 2])
def test_a_clip_with_a_logit_that_is_not_finite_has_no_probabilities(
    value: float, num_views: int
) -> None:
    def classify(clip: torch.Tensor) -> torch.Tensor:
        return clip.flatten(1)[:, :3]

    clip = torch.ones(2, num_views, 3, 2, 4, 4)
    clip[1, -1, 0, 0, 0, 0] = value  # in the last view alone; softmax of -inf is 0
    found = mean_probabilities(classify, clip)
    assert torch.equal(found[0], torch.full((3,), 1 / 3))
    assert found[1].isnan().all()


def test_metrics_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    classifier = model()
    classifier.metrics = {"top1": float("nan")}
    with pytest.raises(DataError, match=r"config\.json: metrics\.top1 is nan"):
        classifier.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved/config.json").exists()
