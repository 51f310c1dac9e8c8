"""The command `taghead demo`: generates clips, trains, tests and predicts, in a few minutes."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from taghead.data import SynthGym
from taghead.errors import check_counts
from taghead.files import json_text
from taghead.inference.predictor import predict_videos, print_table
from taghead.nn.head import TAGHead
from taghead.training.report import TestReport
from taghead.training.task import ClassificationTask
from taghead.video.preprocessing import Preprocessing


def demo(
    root: str = "data/synthgym",
    output: str = "runs/demo",
    epochs: int = 12,
    num_train: int = 1440,
    num_val: int = 90,
    num_test: int = 270,
    seed: int = 0,
    num_workers: int = 1,
    num_threads: int = 1,
) -> None:
    """Generates clips of a gymnast, trains and tests a small model on them, and predicts a clip.

    Args:
        root: The folder of the clips; existing clips are reused.
        output: The folder of the checkpoint, metrics and pictures.
        epochs: Training epochs.
        num_train: Training clips.
        num_val: Validation clips, used after each epoch.
        num_test: Test clips.
        seed: Seed of the weights and of the order of the clips.
        num_workers: Processes that read clips.
        num_threads: Threads of the training process; the results depend on it by rounding.
    """
    check_counts(epochs=epochs, num_train=num_train, num_test=num_test)
    start = time.monotonic()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(num_threads)
    seed_everything(seed, workers=True, verbose=False)
    data = SynthGym(
        root,
        num_train=num_train,
        num_val=num_val,
        num_test=num_test,
        preprocessing=Preprocessing(num_frames=16, resize=48, crop=48, flip=0.0, random_crop=False),
        num_workers=num_workers,
    )
    head = partial(TAGHead, positions="factorised", channels=64, graph_dropout=0.0)
    task = ClassificationTask(
        data.class_names,
        data.preprocessing,
        backbone="r2plus1d_tiny",
        head=head,
        learning_rate=5e-4,
        warmup=0.3,
    )
    folder = Path(output)
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
        gradient_clip_val=1.0,
        deterministic=True,
        logger=[CSVLogger(folder, "", ""), TensorBoardLogger(folder, "", "")],
        callbacks=[TestReport(str(folder)), TQDMProgressBar(refresh_rate=5)],
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    trainer.fit(task, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    settings = {"seed": seed, "epochs": epochs, "num_train": num_train, **task.model.config()}
    (folder / "config.json").write_text(
        json_text(settings, folder / "config.json", indent=2) + "\n"
    )
    trainer.test(task, data, verbose=False)
    clip = data.clips["test"][0]
    print(f"\nOne clip of the test split; its class is {clip.class_name}:")
    print_table(list(predict_videos(task.model, [clip.path], top=3)))
    print(
        f"{time.monotonic() - start:.0f} s in all. In {folder}: model.ckpt, config.json, "
        f"metrics.json, predictions.csv, per_class.csv, confusion_matrix.png, contact_sheet.png"
    )
