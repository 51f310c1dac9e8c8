from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader
from torch_geometric.nn import SAGEConv

from taghead import TAGHead, VideoClassifier
from taghead.data import ClipDataset, SynthGym
from taghead.errors import DataError
from taghead.training import ClassificationTask, warmup_cosine
from taghead.video import Preprocessing

SMALL = Preprocessing(num_frames=8, resize=32, crop=32, flip=0.0, random_crop=False)


def task(**options: Any) -> ClassificationTask:
    head = partial(TAGHead, encoder_layers=0, conv=SAGEConv, graph_dropout=0.0)
    names = [f"class {i}" for i in range(18)]
    return ClassificationTask(names, SMALL, "r2plus1d_tiny", head=head, **options)


def data(dataset: Path) -> SynthGym:
    return SynthGym(
        str(dataset),
        num_train=36,
        num_val=18,
        num_test=18,
        preprocessing=SMALL,
        batch_size=9,
        num_workers=0,
    )


def trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **options,
    )


def test_a_batch_can_be_learned_by_heart() -> None:
    model = task(learning_rate=3e-3, weight_decay=0.0)
    clip, label = torch.randn(6, 3, 8, 32, 32), torch.arange(6)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(30):
        loss = model.training_step((clip, label, label), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < 1.5 < losses[0]


class StopAfter(Callback):
    """Ends training after an epoch, as an interruption would, with the schedule unchanged."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epochs


def test_training_resumed_ends_where_training_at_once_does(dataset: Path, tmp_path: Path) -> None:
    def fit(name: str, stop: int, ckpt: Path | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(7)
        model, module = task(warmup=0.2), data(dataset)
        module.setup("fit")
        in_order = DataLoader(ClipDataset(module.clips["train"], SMALL), batch_size=9)
        run = trainer(tmp_path, max_epochs=2, callbacks=[StopAfter(stop)], limit_val_batches=0)
        run.fit(model, in_order, ckpt_path=ckpt, weights_only=True)
        run.save_checkpoint(tmp_path / name)
        return torch.load(tmp_path / name, weights_only=True)["state_dict"]

    whole = fit("whole.ckpt", stop=2)
    half = fit("half.ckpt", stop=1)
    resumed = fit("resumed.ckpt", stop=2, ckpt=tmp_path / "half.ckpt")
    assert any(not torch.equal(half[key], whole[key]) for key in whole)
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


def test_a_checkpoint_is_a_model_with_its_classes_and_preprocessing(
    dataset: Path, tmp_path: Path
) -> None:
    model, module = task(), data(dataset)
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    run.fit(model, module)
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = VideoClassifier.from_checkpoint(tmp_path / "model.ckpt")
    assert loaded.class_names == [f"class {i}" for i in range(18)]
    assert loaded.preprocessing == SMALL
    clip = torch.randn(1, 3, 8, 32, 32)
    torch.testing.assert_close(loaded(clip), model.eval().model(clip))


def test_learning_rates_and_decay_of_backbone_and_head_are_apart(
    dataset: Path, tmp_path: Path
) -> None:
    model = task(backbone_learning_rate=1e-4, learning_rate=1e-3, weight_decay=0.1, warmup=0.0)
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    run.fit(model, data(dataset))
    groups = run.optimizers[0].param_groups
    assert [group["initial_lr"] for group in groups] == [1e-4, 1e-4, 1e-3, 1e-3]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1, 0.0]
    assert all(p.dim() > 1 for p in groups[0]["params"] + groups[2]["params"])
    held = sum(len(group["params"]) for group in groups)
    assert held == len(list(model.parameters()))


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_the_learning_rate_rises_and_falls_to_zero(warmup: float) -> None:
    rates = [warmup_cosine(warmup, 100, step) for step in range(101)]
    top = rates.index(max(rates))
    assert top == round(100 * warmup)
    assert max(rates) == pytest.approx(1)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0)
    middle = top + (100 - top) / 2
    assert warmup_cosine(warmup, 100, int(middle)) == pytest.approx(0.5, abs=0.02)


def test_label_smoothing_reaches_the_loss() -> None:
    torch.manual_seed(3)
    plain = task()
    torch.manual_seed(3)
    smooth = task(label_smoothing=0.2)
    clip, label = torch.randn(2, 3, 8, 32, 32), torch.tensor([0, 1])
    logits = plain.eval()(clip)
    batch = (clip, label, label)
    expected = torch.nn.functional.cross_entropy(logits, label, label_smoothing=0.2)
    torch.testing.assert_close(smooth.eval().training_step(batch, 0), expected)
    assert not torch.isclose(plain.training_step(batch, 0), expected)


def test_a_backbone_learning_rate_of_zero_freezes_the_backbone(
    dataset: Path, tmp_path: Path
) -> None:
    model = task(backbone_learning_rate=0.0)
    before = {name: p.clone() for name, p in model.model.named_parameters()}
    trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(model, data(dataset))
    for name, parameter in model.model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("backbone"), name


def test_an_operator_given_as_a_function_trains_and_keeps_its_weights(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    head = partial(TAGHead, encoder_layers=0, conv=lambda i, o: SAGEConv(i, o))
    model = ClassificationTask([str(i) for i in range(18)], SMALL, "r2plus1d_tiny", head=head)
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    run.fit(model, data(dataset))
    run.save_checkpoint(tmp_path / "model.ckpt")
    assert "no config to load it from" in caplog.text
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"]
    with pytest.raises(DataError, match=r"model.ckpt: not a checkpoint of this package"):
        VideoClassifier.from_checkpoint(tmp_path / "model.ckpt")


def test_a_checkpoint_of_other_classes_is_refused(dataset: Path, tmp_path: Path) -> None:
    model, module = task(), data(dataset)
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    run.fit(model, module)
    run.save_checkpoint(tmp_path / "model.ckpt")
    names = [f"class {i}" for i in (1, 0, *range(2, 18))]
    head = partial(TAGHead, encoder_layers=0, conv=SAGEConv, graph_dropout=0.0)
    other = ClassificationTask(names, SMALL, "r2plus1d_tiny", head=head)
    with pytest.raises(DataError, match="classes are not those of the data"):
        trainer(tmp_path).test(
            other, module, ckpt_path=tmp_path / "model.ckpt", weights_only=True, verbose=False
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, r"learning_rate must not be negative \(got -1.0\)"),
        ({"backbone_learning_rate": -1.0}, "backbone_learning_rate must not be negative"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"label_smoothing": 2.0}, r"label_smoothing must be at least 0 and below 1 \(got 2.0\)"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**options)


def test_warmup_is_a_part() -> None:
    with pytest.raises(ValueError, match=r"warmup must be at least 0 and below 1 \(got 1.5\)"):
        task(warmup=1.5)
