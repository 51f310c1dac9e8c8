"""An average of the weights: what validation measures is what is saved, loaded and resumed."""

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch_geometric.nn import SAGEConv

from taghead import TAGHead, VideoClassifier
from taghead.data import ClipDataset, SynthGym
from taghead.inference.predictor import predict_videos
from taghead.training.task import ClassificationTask
from taghead.video import Preprocessing

SMALL = Preprocessing(num_frames=8, resize=32, crop=32, flip=0.0, random_crop=False)
DECAY = 0.8


def task() -> ClassificationTask:
    torch.manual_seed(7)
    head = partial(TAGHead, encoder_layers=0, conv=SAGEConv, graph_dropout=0.0)
    names = [f"class {i}" for i in range(18)]
    return ClassificationTask(names, SMALL, "r2plus1d_tiny", head=head, learning_rate=5e-3)


def fit(
    folder: Path, module: SynthGym, ckpt: Path | None = None
) -> tuple[Trainer, ClassificationTask]:
    model = task()
    keep = ModelCheckpoint(dirpath=folder, save_top_k=-1, filename="{epoch}")
    trainer = Trainer(
        callbacks=[EMAWeightAveraging(decay=DECAY), keep],
        max_epochs=2,
        limit_train_batches=4,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        num_sanity_val_steps=0,
    )
    train = DataLoader(ClipDataset(module.clips["train"], SMALL), batch_size=9)
    val = DataLoader(ClipDataset(module.clips["val"], SMALL), batch_size=9)
    trainer.fit(model, train, val, ckpt_path=ckpt, weights_only=True)
    return trainer, model


@pytest.fixture
def module(dataset: Path) -> SynthGym:
    data = SynthGym(str(dataset), num_train=36, num_val=18, num_test=18, preprocessing=SMALL)
    data.setup("fit")
    return data


def test_a_checkpoint_holds_the_weights_that_were_measured(
    module: SynthGym, tmp_path: Path
) -> None:
    trainer, task = fit(tmp_path, module)
    loaded = VideoClassifier.from_checkpoint(tmp_path / "epoch=1.ckpt")
    clips = [SMALL.load(clip.path) for clip in module.clips["val"]]
    labels = torch.tensor([clip.label for clip in module.clips["val"]])
    with torch.no_grad():
        logits = loaded(torch.stack(clips))
    measured = trainer.callback_metrics
    torch.testing.assert_close(F.cross_entropy(logits, labels), measured["val/loss"])
    top1 = (logits.argmax(dim=1) == labels).float().mean().item()
    assert measured["val/top1"].item() == pytest.approx(top1)
    # after training the task is the averaged model as well
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, task.model.state_dict()[key]), key
    saved = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    trained = saved["current_model_state"]
    assert any(not torch.equal(trained[key], value) for key, value in saved["state_dict"].items())
    (prediction,) = predict_videos(loaded, [module.clips["val"][0].path], top=1)
    best = logits[0].softmax(dim=0).max().item()
    assert prediction.classes[0][1] == pytest.approx(best, abs=1e-5)


def test_a_resumed_average_goes_on(module: SynthGym, tmp_path: Path) -> None:
    fit(tmp_path / "whole", module)
    fit(tmp_path / "resumed", module, ckpt=tmp_path / "whole" / "epoch=0.ckpt")
    whole, resumed = (
        torch.load(tmp_path / name / "epoch=1.ckpt", weights_only=True)
        for name in ("whole", "resumed")
    )
    for part in ("state_dict", "current_model_state"):
        for key, value in whole[part].items():
            assert torch.equal(resumed[part][key], value), (part, key)
