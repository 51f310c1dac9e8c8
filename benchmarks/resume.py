"""Does a training that was killed end where an uninterrupted one does, bit for bit?

Kills `taghead fit` with SIGKILL at random moments and runs the same command again with
`--ckpt_path=last`, many times over: `python benchmarks/resume.py --trials=20`. Augmentation,
dropout, mixup and an average of the weights are all on.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from taghead.cli import main as taghead
from taghead.data.synthetic import write_dataset

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "synthgym.yaml"
SPLITS = {"train": 36, "val": 18, "test": 18}
ARGS = [
    "fit",
    f"--config={EXPERIMENT}",
    "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging",
    "--trainer.callbacks.decay=0.9",
    "--trainer.callbacks+=taghead.training.LastCheckpoint",
    "--trainer.callbacks.every_n_steps=2",
    "--trainer.max_epochs=4",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    *(f"--data.num_{split}={number}" for split, number in SPLITS.items()),
    "--data.batch_size=5",
    "--data.preprocessing.num_frames=8",
    "--data.preprocessing.resize=36",
    "--data.preprocessing.crop=32",
    "--data.preprocessing.random_crop=true",
    "--data.preprocessing.augment_ops=1",
    "--model.head.encoder_layers=1",
    "--model.head.encoder_dropout=0.3",
    "--model.head.graph_dropout=0.3",
    "--model.mixup=0.2",
]
STEPS = 4 * 8  # epochs, and the batches of each


class Trial(NamedTuple):
    """What became of a training that was killed.

    `from_steps` are the steps behind the checkpoint that each resumption began with, 0 where
    there was none yet; `num_partial` how many half-written files the kills left.
    """

    from_steps: list[int]
    num_partial: int
    is_equal: bool


def run(args: Sequence[str], folder: str) -> None:
    """`taghead`, in a process of its own."""
    torch.set_num_threads(1)
    os.chdir(folder)
    sys.argv = ["taghead"]
    with open("log.txt", "a") as log, contextlib.redirect_stdout(log):
        os.dup2(log.fileno(), 2)
        taghead(args)


class Runner:
    """Trains, whole or killed, always with the same command.

    Args:
        dataset: The folder of generated clips.
        args: More of the command's arguments.
    """

    def __init__(self, dataset: Path, args: Sequence[str] = ()) -> None:
        self.args = [*ARGS, f"--data.root={dataset}", *args]
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["taghead.training.task", "lightning.pytorch.cli"])

    def start(self, folder: Path, *args: str) -> Any:
        """A training's process, once it is about to take its first step."""
        folder.mkdir(exist_ok=True)
        config = folder / "runs/synthgym/version_0/config.yaml"
        config.unlink(missing_ok=True)
        process = self.context.Process(target=run, args=([*self.args, *args], str(folder)))
        process.start()
        while not config.exists() and process.is_alive():
            time.sleep(0.01)
        return process

    def whole(self, folder: Path, *args: str) -> tuple[dict[str, Any], float]:
        """What a training to its end has made, and the seconds that its steps took."""
        process = self.start(folder, *args)
        begin = time.monotonic()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"the training failed; see {folder / 'log.txt'}")
        (last,), (best,) = folder.rglob("last.ckpt"), folder.rglob("best.ckpt")
        return {"last": trained(last), "best": trained(best)}, time.monotonic() - begin

    def killed(self, folder: Path, delays_sec: Sequence[float], end: dict[str, Any]) -> Trial:
        """A training that is killed after each delay and goes on, to its end.

        Args:
            folder: Where it runs.
            delays_sec: When it is killed, from its first step or the first one after the last kill.
            end: What it should have made then.
        """
        from_steps, num_partial, resume = [], 0, []
        for delay in delays_sec:
            process = self.start(folder, *resume)
            process.join(delay)
            process.kill()
            process.join()
            resume = ["--ckpt_path=last"]
            num_partial += len(list(folder.rglob(".unfinished-*")))
            saved = [torch.load(p, weights_only=True) for p in folder.rglob("last.ckpt")]
            from_steps.append(max((c["global_step"] for c in saved), default=0))
        made, _ = self.whole(folder, *resume)
        (last,) = folder.rglob("last.ckpt")  # a run that was killed before its first has a folder
        if list(last.parent.glob(".unfinished-*")):
            raise RuntimeError(f"{last.parent}: a half-written file was left")
        return Trial(from_steps, num_partial, same(made, end))


def trained(path: Path) -> dict[str, Any]:
    """What training has made, of a checkpoint: weights, their average, optimizer and schedule."""
    checkpoint = torch.load(path, weights_only=True)
    parts = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")
    return {
        part: checkpoint[part]
        for part in (*parts, "lr_schedulers", "global_step", "epoch")
        if part in checkpoint
    }


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def trials(root: Path, runner: Runner, number: int, kills: int, seed: int) -> list[Trial]:
    """Kills that many trainings, each at random moments.

    Args:
        root: Where they run.
        runner: What trains.
        number: How many.
        kills: How often each is killed.
        seed: Seed of the moments.
    """
    draw = random.Random(seed)
    end, duration_sec = runner.whole(root / "whole")
    done = []
    for i in range(number):
        delays = [draw.uniform(0, duration_sec / kills) for _ in range(kills)]
        done.append(runner.killed(root / f"trial_{i}", delays, end))
        trial = done[-1]
        print(
            f"trial {i}: killed {kills} times, went on from step "
            f"{' and '.join(map(str, trial.from_steps))} of {STEPS}, "
            f"{trial.num_partial} half-written files: {'equal' if trial.is_equal else 'DIFFERENT'}",
            flush=True,
        )
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kills", type=int, default=1, help="how often each training is killed")
    parser.add_argument("--workers", type=int, default=0, help="processes that read clips")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_dataset(root / "data", splits=SPLITS, num_workers=1, progress=False)
        runner = Runner(root / "data", [f"--data.num_workers={options.workers}"])
        runner.whole(root / "warm")  # a first process loads files that later ones find in memory
        done = trials(root, runner, options.trials, options.kills, options.seed)
    equal = sum(trial.is_equal for trial in done)
    mid = sum(0 < trial.from_steps[-1] < STEPS for trial in done)
    print(
        f"{equal} of {len(done)} bit-equal, best.ckpt included; "
        f"{mid} of them went on in the middle of training"
    )
    raise SystemExit(equal != len(done))


if __name__ == "__main__":
    main()
