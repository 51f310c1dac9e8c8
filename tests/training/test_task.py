from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset
from torch_geometric.nn import SAGEConv

from taghead import TAGHead, VideoClassifier
from taghead.data import ClipDataset, SynthGym
from taghead.errors import DataError
from taghead.inference.predictor import predict_videos
from taghead.training.checkpoints import LastCheckpoint
from taghead.training.optim import warmup_cosine
from taghead.training.report import TestReport
from taghead.training.resume import ExactResume
from taghead.training.task import ClassificationTask
from taghead.video import Preprocessing

SMALL = Preprocessing(num_frames=8, resize=32, crop=32, flip=0.0, random_crop=False)


def task(**options: Any) -> ClassificationTask:
    head = partial(TAGHead, encoder_layers=0, conv=SAGEConv, graph_dropout=0.0)
    names = [f"class {i}" for i in range(18)]
    return ClassificationTask(names, SMALL, "r2plus1d_tiny", head=head, **options)


def data(dataset: Path, **options: Any) -> SynthGym:
    defaults = {"preprocessing": SMALL, "batch_size": 9, "num_workers": 0}
    return SynthGym(str(dataset), num_train=36, num_val=18, num_test=18, **{**defaults, **options})


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


def test_a_test_averages_probabilities_over_views(dataset: Path, tmp_path: Path) -> None:
    views = replace(SMALL, resize=40, sampling="segments", test_clips=2, test_crops=3)
    model, module = task(), data(dataset, preprocessing=views)
    model.model.preprocessing = views
    run = trainer(tmp_path)
    (logged,) = run.test(model, module, verbose=False)
    found = model.test_predictions.compute()
    assert found.clip_index.tolist() == list(range(18))
    assert logged["test/num_clips"] == logged["test/num_listed"] == 18
    assert logged["test/top1"] == pytest.approx((found.rank() == 1).mean())
    assert logged["test/top5"] == pytest.approx((found.rank() <= 5).mean())
    paths = [clip.path for clip in module.clips["test"][:3]]
    with torch.no_grad():
        for row, path in zip(found.probabilities, paths, strict=False):
            clips = views.load_views(path)
            assert clips.shape == (6, 3, 8, 32, 32)
            exact = model.eval()(clips).softmax(dim=1).mean(dim=0)
            torch.testing.assert_close(torch.from_numpy(row), exact)
    for row, prediction in zip(
        found.probabilities, predict_videos(model.model, paths, top=18), strict=False
    ):
        told = [dict(prediction.classes)[name] for name in model.model.class_names or []]
        assert told == pytest.approx(row.tolist(), abs=1e-5)


def test_validation_has_one_view(dataset: Path, tmp_path: Path) -> None:
    many = replace(SMALL, sampling="dense", test_clips=3)
    model = task()
    found = []
    for preprocessing in (many, replace(many, test_clips=1)):
        module = data(dataset, preprocessing=preprocessing)
        trainer(tmp_path).validate(model, module, verbose=False)
        found.append(model.val_predictions.compute().probabilities)
    assert (found[0] == found[1]).all()


def test_the_loss_takes_the_class_counts_of_the_clips_in_use(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, module = task(loss="balanced_softmax"), data(dataset)
    module.setup("fit")
    module.clips["train"] += 5 * module.clips["train"][:1]
    counts = [2] * 18
    counts[module.clips["train"][0].label] += 5
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=1)
    run.fit(model, module)
    assert model.class_counts == module.class_counts() == counts
    prior = torch.tensor(counts) / sum(counts)
    torch.testing.assert_close(model.loss.log_prior, prior.log())
    logits, labels = torch.randn(4, 18), torch.arange(4)
    exact = torch.nn.functional.cross_entropy(logits + torch.tensor(counts).log(), labels)
    torch.testing.assert_close(model.loss(logits, labels), exact)
    assert "both favour" not in caplog.text

    run.save_checkpoint(tmp_path / "model.ckpt")
    other = task(loss="balanced_softmax")  # a test needs no training data to know them
    trainer(tmp_path).test(
        other, data(dataset), ckpt_path=tmp_path / "model.ckpt", weights_only=True, verbose=False
    )
    assert other.class_counts == counts


def test_a_checkpoint_from_before_class_counts_is_tested(dataset: Path, tmp_path: Path) -> None:
    model, module = task(), data(dataset)
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    run.fit(model, module)
    run.save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = torch.load(tmp_path / "new.ckpt", weights_only=True)
    del checkpoint["class_counts"]
    for name in ("sampling", "stride", "test_clips", "test_crops"):
        del checkpoint["video_classifier"]["preprocessing"][name]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    report = TestReport(str(tmp_path / "report"))
    trainer(tmp_path, callbacks=[report]).test(
        task(), module, ckpt_path=tmp_path / "old.ckpt", weights_only=True, verbose=False
    )
    table = pd.read_csv(tmp_path / "report" / "per_class.csv")
    assert table["num_train"].tolist() == [2] * 18  # as listed
    assert VideoClassifier.from_checkpoint(tmp_path / "old.ckpt").preprocessing == SMALL


def test_balanced_draws_and_an_adjusted_loss_together_are_warned_of(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, module = task(loss="logit_adjustment", tau=0.5), data(dataset, class_balance=0.5)
    run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    run.fit(model, module)
    assert "loss logit_adjustment and class_balance both favour rare classes" in caplog.text


def test_an_adjusted_loss_needs_clips_of_every_class(dataset: Path, tmp_path: Path) -> None:
    def fit(loader: DataLoader) -> None:
        run = trainer(tmp_path, max_epochs=1, limit_train_batches=1, limit_val_batches=0)
        run.fit(task(loss="balanced_softmax"), loader)

    module = data(dataset)
    module.setup("fit")
    few = [clip for clip in module.clips["train"] if clip.label != 4]
    with pytest.raises(DataError, match="balanced_softmax: class 'class 4' has no clip to train"):
        fit(DataLoader(ClipDataset(few, SMALL), batch_size=2))
    tensors = TensorDataset(torch.zeros(4, 3, 8, 32, 32), torch.arange(4), torch.arange(4))
    with pytest.raises(DataError, match=r"loss balanced_softmax needs training data .*labels"):
        fit(DataLoader(tensors, batch_size=2))


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
        ({"loss": "focal"}, "loss must be one of cross_entropy, .*'focal'"),
        ({"layer_decay": 0.0}, r"layer_decay must be above 0 and at most 1 \(got 0.0\)"),
        ({"mixup": -1.0}, r"mixup must be a number from 0 up \(got -1.0\)"),
        ({"tau": 2.0}, "tau is for loss logit_adjustment"),
        ({"label_smoothing": 2.0}, r"label_smoothing must be at least 0 and below 1 \(got 2.0\)"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**options)


def test_warmup_is_a_part() -> None:
    with pytest.raises(ValueError, match=r"warmup must be at least 0 and below 1 \(got 1.5\)"):
        task(warmup=1.5)


class Poison(Callback):
    """Makes the weights of the backbone useless before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *batch: Any) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.model.backbone.parameters()).fill_(float("nan"))


def test_a_loss_that_is_no_number_stops_at_once(dataset: Path, tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", save_last=True)
    model, module = task(), data(dataset)
    fit = trainer(tmp_path, max_epochs=3, callbacks=[keep, Poison(6)])
    with pytest.raises(DataError, match="train/loss is nan in step 6 of epoch 1: ") as error:
        fit.fit(model, module)
    assert fit.global_step == 6  # 4 steps an epoch
    named = [clip.id for clip in module.clips["train"] if f"{clip.id}" in str(error.value)]
    assert len(named) == 9
    assert str(error.value).endswith(f"The last checkpoint: {tmp_path / 'kept' / 'last.ckpt'}")
    saved = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


class PoisonLater(Callback):
    """Makes weights infinite after a step whose loss was finite."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *batch: Any) -> None:
        with torch.no_grad():
            next(pl_module.model.head.parameters()).fill_(float("inf"))


def test_weights_that_are_not_finite_stop_the_training(dataset: Path, tmp_path: Path) -> None:
    keep = LastCheckpoint(every_n_steps=1, dirpath=str(tmp_path / "kept"))
    fit = trainer(tmp_path, max_epochs=1, callbacks=[ExactResume(), PoisonLater(), keep])
    with pytest.raises(DataError, match=r"^weights are not finite after step 1, the first of 1: "):
        fit.fit(task(), data(dataset))
    assert not (tmp_path / "kept/last.ckpt").exists()


def test_a_task_of_a_checkpoint_is_that_of_its_arguments(tmp_path: Path) -> None:
    """Lightning would take what is not given from the file's hyper-parameters."""
    saved = task()
    evil = {"class_path": "timeit.timeit", "init_args": {"stmt": "open('PWNED', 'w')"}}
    hyper = {"learning_rate": 1e9, "weight_decay": 0.7, "head": evil}
    content = {"state_dict": saved.state_dict(), "hyper_parameters": hyper}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, tmp_path / "a.ckpt")
    found = ClassificationTask.load_from_checkpoint(
        tmp_path / "a.ckpt",
        class_names=saved.model.class_names,
        preprocessing=SMALL,
        backbone="r2plus1d_tiny",
        head=partial(TAGHead, encoder_layers=0, conv=SAGEConv, graph_dropout=0.0),
    )
    assert found.learning_rates == saved.learning_rates
    assert found.weight_decay == saved.weight_decay
    for name, value in saved.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
