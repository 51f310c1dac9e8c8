"""Loading a model by its path, checkpoints of a model, and devices."""

from pathlib import Path

import pytest
import torch

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.errors import DataError
from taghead.model.pretrained import as_device, load_model, save_checkpoint
from taghead.video import Preprocessing

CLIPS = Preprocessing(8, 32, 32)


def model(preprocessing: Preprocessing | None = CLIPS) -> VideoClassifier:
    backbone = build_backbone("r2plus1d_tiny")
    head = TAGHead(backbone.channels, 3, backbone.grid(8, 32), encoder_layers=0, mode="none")
    return VideoClassifier(backbone, head, ["a", "b", "c"], preprocessing).eval()


@pytest.mark.parametrize("name", ["folder", "model.ckpt"])
def test_a_saved_model_is_loaded_by_its_path(tmp_path: Path, name: str) -> None:
    one, path = model(), tmp_path / name
    if path.suffix:
        save_checkpoint(one, path)
    else:
        one.save_pretrained(path)
    other = load_model(path)
    clip = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(one(clip), other(clip))
    assert (other.class_names, other.preprocessing) == (one.class_names, one.preprocessing)
    assert not other.training


def test_a_checkpoint_replaces_another_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, path = model(), tmp_path / "model.ckpt"
    save_checkpoint(one, path)

    def fail(content: object, file: Path) -> None:
        file.write_bytes(b"half of")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(model(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.ckpt"]
    clip = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(load_model(path)(clip), one(clip))


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such model"):
        load_model("nowhere")
    model(preprocessing=None).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="the model has no preprocessing"):
        load_model(tmp_path)


def test_a_device_must_be_there() -> None:
    assert as_device("cpu") == "cpu"
    assert as_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match=r"device must be one of this machine \(got 'foo'\)") as e:
        as_device("foo")
    assert "\n" not in str(e.value)
