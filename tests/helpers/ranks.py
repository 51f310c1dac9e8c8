"""Runs a function on two ranks of one training, with gloo on the CPU."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch_geometric.nn import SAGEConv

from taghead import TAGHead
from taghead.data import VideoDataModule
from taghead.training.task import ClassificationTask
from taghead.video import Preprocessing

SMALL = Preprocessing(num_frames=4, resize=32, crop=32, flip=0.0, random_crop=False)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _start(function: Callable, rank: int, port: int, args: tuple, results: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        LOCAL_RANK=str(rank), NODE_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    results.send_bytes(pickle.dumps(function(*args)))  # whole: with the tensors' memory


def on_two(function: Callable, *args: Any) -> list[Any]:
    """What a function returns on each of two ranks; it must be defined at the top of a module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["taghead.training.task", "lightning.pytorch.cli"])
    port, started = free_port(), []
    for rank in range(2):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_start, args=(function, rank, port, args, send))
        process.start()
        send.close()
        started.append((process, receive))
    try:
        return [
            pickle.loads(receive.recv_bytes()) if receive.poll(300) else None
            for _, receive in started
        ]
    finally:
        for process, _ in started:
            process.join(5)
            process.kill()


def task(**options: Any) -> ClassificationTask:
    torch.manual_seed(7)
    head = partial(TAGHead, encoder_layers=0, conv=SAGEConv, graph_dropout=0.0)
    names = [str(i) for i in range(18)]
    return ClassificationTask(names, SMALL, "r2plus1d_tiny", head=head, **options)


def data(root: Path, **options: Any) -> VideoDataModule:
    given = {"preprocessing": SMALL, "batch_size": 8, "num_workers": 0, "format": "reference"}
    files = {split: f"{root}/{split}.csv" for split in ("train", "val", "test")}
    return VideoDataModule(f"{root}/videos", **files, **{**given, **options})


def trainer(devices: int, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=devices,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"strategy": "ddp" if devices > 1 else "auto", **options},
    )
