"""A model as a folder and on the hub, with its card; the hub is a folder here."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub.hub_mixin
import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from torch_geometric.nn import GATv2Conv

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.errors import DataError
from taghead.video import Preprocessing

NAMES = ["blowing kisses", "007", "a|b"]


def model(**options: Any) -> VideoClassifier:
    backbone = build_backbone("r2plus1d_tiny")
    conv = partial(GATv2Conv, heads=2, concat=False, add_self_loops=False)
    head = TAGHead(backbone.channels, 3, backbone.grid(8, 32), encoder_layers=1, conv=conv)
    clips = Preprocessing(8, 32, 32)
    return VideoClassifier(backbone, head, NAMES, clips, {"top1": 0.875}, **options).eval()


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
    assert (other.class_names, other.preprocessing) == (NAMES, Preprocessing(8, 32, 32))
    with pytest.raises(DataError, match=r"^user/other: no such folder, and no such .* at v1$"):
        VideoClassifier.from_pretrained("user/other", revision="v1")


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


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.library_name == "taghead"
    assert card.data.pipeline_tag == "video-classification"
    for part in (
        "# Video classifier of 3 classes",
        "VideoClassifier.from_pretrained(",
        "| backbone | r2plus1d_tiny |",
        "GATv2Conv(heads=2, concat=False, add_self_loops=False",
        "| crop | 32 |",
        "| top1 | 0.875 |",
        "0 blowing kisses\n1 007\n2 a|b",
    ):
        assert part in text, part


def test_a_card_of_ones_own_stays(tmp_path: Path) -> None:
    one = model()
    one.save_pretrained(tmp_path)
    one.metrics = {"top1": 0.9}
    one.save_pretrained(tmp_path)
    assert "| top1 | 0.9 |" in (tmp_path / "README.md").read_text()  # it was the generated one
    (tmp_path / "README.md").write_text("# Mine\n")
    one.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine\n"
