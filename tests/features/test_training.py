"""Training on a cache trains the head of the whole model, and nothing else."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch_geometric.nn import SAGEConv

from taghead import TAGHead, VideoClassifier
from taghead.backbones import Backbone, build_backbone
from taghead.data import SynthGym
from taghead.errors import DataError
from taghead.features import FeatureCache, FeatureDataModule
from taghead.training.report import TestReport
from taghead.training.task import ClassificationTask
from taghead.video import Limits, VideoReader

DataOf = Callable[..., SynthGym]


def task(data: SynthGym | FeatureDataModule, **options: Any) -> ClassificationTask:
    torch.manual_seed(5)
    head = partial(TAGHead, channels=32, encoder_layers=1, encoder_heads=2, conv=SAGEConv)
    options = {"head": head, "features": data.features, **options}
    return ClassificationTask(data.class_names, data.preprocessing, "r2plus1d_tiny", **options)


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
        **options,
    )


@pytest.fixture
def features(stored: FeatureCache) -> FeatureDataModule:
    return FeatureDataModule(str(stored.root), batch_size=9)


def logits_of(model: ClassificationTask, data: SynthGym | FeatureDataModule) -> torch.Tensor:
    data.setup("test")
    with torch.no_grad():
        return torch.cat([model(clip) for clip, _, _ in data.test_dataloader()])


def test_the_same_logits_as_through_the_video(
    features: FeatureDataModule, backbone: Backbone, data_of: DataOf, tmp_path: Path
) -> None:
    torch.save(backbone.features.state_dict(), tmp_path / "weights.pt")
    cached = task(features).eval()
    through_video = task(data_of(), backbone_weights=str(tmp_path / "weights.pt")).eval()
    expected = logits_of(through_video, data_of())
    found = logits_of(cached, features)
    assert expected.std(dim=0).mean() > 0.01  # clips differ by far more than the rounding
    torch.testing.assert_close(found, expected, rtol=0, atol=2**-10)
    # what differs is the rounding of the feature maps, and nothing else
    through_video.model.backbone.register_forward_hook(lambda *call: call[2].half().float())
    torch.testing.assert_close(logits_of(through_video, data_of()), found, rtol=0, atol=2**-14)


def test_only_the_head_is_trained_and_the_checkpoint_is_a_whole_model(
    features: FeatureDataModule, backbone: Backbone, stored: FeatureCache, tmp_path: Path
) -> None:
    model = task(features, learning_rate=3e-3)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    run = trainer(tmp_path, max_epochs=2)
    run.fit(model, features)
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("backbone"), name
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = VideoClassifier.from_checkpoint(tmp_path / "model.ckpt")
    clip = stored.splits["test"].clips[2]
    assert loaded.preprocessing is not None
    video = loaded.preprocessing.load(clip.path).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(video)[0], logits_of(model.eval(), features)[2], rtol=0, atol=2**-9
        )


def test_a_head_learns_the_cached_clips_by_heart(
    features: FeatureDataModule, tmp_path: Path
) -> None:
    head = partial(TAGHead, encoder_layers=0, mode="none")
    model = task(features, head=head, learning_rate=3e-2, warmup=0.1)
    run = trainer(tmp_path, max_epochs=40, limit_val_batches=0)
    run.fit(model, features)
    assert run.callback_metrics["train/loss"] < 0.7  # it began at log(18) = 2.9


def test_another_backbone_is_refused(
    features: FeatureDataModule, stored: FeatureCache, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"backbone must be r2plus1d_tiny.*got 'r3d_18'"):
        ClassificationTask(
            features.class_names, features.preprocessing, "r3d_18", features=features.features
        )
    torch.save(build_backbone("r2plus1d_tiny").features.state_dict(), tmp_path / "other.pt")
    with pytest.raises(DataError, match=r"other.pt: not the backbone that made the features in"):
        task(features, backbone_weights=str(tmp_path / "other.pt"))


def test_a_checkpoint_of_another_backbone_is_refused(
    features: FeatureDataModule, data_of: DataOf, tmp_path: Path
) -> None:
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    run.fit(task(data_of()), data_of())
    run.save_checkpoint(tmp_path / "video.ckpt")
    with pytest.raises(DataError, match=r"not the backbone that made the features in"):
        trainer(tmp_path).test(
            task(features), features, ckpt_path=tmp_path / "video.ckpt", weights_only=True
        )


def test_weights_that_changed_on_disk_are_refused(
    stored: FeatureCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray((stored.root / "backbone.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "backbone.safetensors").write_bytes(data)
    monkeypatch.setattr(stored, "root", tmp_path)
    with pytest.raises(DataError, match=r"backbone.safetensors: not the backbone that made"):
        stored.backbone()
    (tmp_path / "backbone.safetensors").write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"backbone.safetensors: not the weights of r2plus1d_tiny"):
        stored.backbone()


def test_a_frozen_backbone_keeps_weights_and_statistics(data_of: DataOf, tmp_path: Path) -> None:
    model = task(data_of(), freeze_backbone=True)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    trainer(tmp_path, max_epochs=1, limit_val_batches=1).fit(model, data_of())
    for name, value in model.model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("backbone"), name
    assert not any(module.training for module in model.model.backbone.modules())
    assert model.model.head.training


def test_limits_reach_the_contact_sheet(
    stored: FeatureCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pictures are read from the videos: a cache of others says nothing about their sizes."""
    with VideoReader(stored.splits["test"].clips[0].path) as reader:
        pixels = reader.height * reader.width
    reason = f"more than limits.max_pixels = {pixels - 1:,}"
    for limits in (Limits(max_pixels=pixels - 1), Limits(max_pixels=pixels)):
        caplog.clear()
        data = FeatureDataModule(str(stored.root), batch_size=9, limits=limits)
        report = TestReport(str(tmp_path / str(limits.max_pixels)))
        trainer(tmp_path, callbacks=[report]).test(task(data), data, verbose=False)
        lacking = [line for line in caplog.messages if "the contact sheet lacks a clip" in line]
        assert bool(lacking) == (limits.max_pixels < pixels)
        assert all(line.endswith(reason) for line in lacking)
