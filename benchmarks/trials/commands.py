"""The seven commands under trial: small inputs, arguments, and how two results are compared."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pandas as pd
import torch
import yaml

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "synthgym.yaml"
SPLITS = {"train": 36, "val": 18, "test": 18}
FRAMES = {"num_frames": 8, "resize": 36, "crop": 32}
TIMEOUT_SEC = 20  # for a batch of a stopped reader process


@dataclass(frozen=True)
class Inputs:
    """What the commands read: made once, in a folder that no trial writes to."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def model(self) -> Path:
        return self.root / "model.ckpt"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def sweep(self) -> Path:
        return self.root / "sweep.yaml"

    def clips(self, split: str, number: int) -> list[str]:
        return list(map(str, sorted(self.data.glob(f"videos/*/{split}_*.mp4"))[:number]))


@dataclass(frozen=True)
class Command:
    """A command of `taghead` and what it makes.

    Args:
        name: Its name.
        args: Its arguments, from the inputs.
        content: What a folder holds of its results, which is equal in every run: by name.
        has_readers: Whether it has worker processes that a trial can kill.
        can_starve: Whether a worker process that is stopped must end it in bounded time.
    """

    name: str
    args: Callable[[Inputs], list[str]]
    content: Callable[[Path], dict[str, Any]]
    has_readers: bool = True
    can_starve: bool = False


def prepare(inputs: Inputs) -> None:
    """Writes config and sweep file; the other inputs are made by the commands themselves."""
    config = yaml.safe_load(EXPERIMENT.read_text())
    config["trainer"] |= {
        "max_epochs": 3,
        "accelerator": "cpu",
        "default_root_dir": "runs",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    config["trainer"]["callbacks"][1]["init_args"]["every_n_steps"] = 2
    config["model"]["head"]["init_args"] |= {"graph_dropout": 0.3}
    preprocessing = {**FRAMES, "random_crop": True, "flip": 0.5}
    config["data"] = {
        "class_path": "taghead.data.VideoDataModule",
        "init_args": {
            "root": str(inputs.data / "videos"),
            **{split: str(inputs.data / f"{split}.csv") for split in SPLITS},
            "batch_size": 6,
            "num_workers": 1,
            "timeout_sec": TIMEOUT_SEC,
            "preprocessing": preprocessing,
        },
    }
    inputs.config.write_text(yaml.safe_dump(config))
    base = {
        "seed_everything": 0,
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "log_every_n_steps": 1},
        "model": config["model"],
        "data": {
            "class_path": "taghead.features.FeatureDataModule",
            "init_args": {"root": str(inputs.cache), "batch_size": 9},
        },
    }
    (inputs.root / "base.yaml").write_text(yaml.safe_dump(base))
    operators = {name: {"model.head.conv": f"torch_geometric.nn.{name}"} for name in OPERATORS}
    content = {"name": "tiny", "base": "base.yaml", "seeds": [0]}
    factors = {"operator": operators}
    inputs.sweep.write_text(yaml.safe_dump({**content, "factors": factors}, sort_keys=False))


OPERATORS = ("SAGEConv", "GraphConv")


def _generate(inputs: Inputs) -> list[str]:
    splits = json.dumps({"train": 24, "val": 6})
    return ["generate", "out", f"--splits={splits}", "--num_workers=2", "--seed=5"]


def _index(inputs: Inputs) -> list[str]:
    lists = [f"--{split}={inputs.data / split}.csv" for split in SPLITS]
    return ["index", str(inputs.data / "videos"), *lists, "--output=out", "--num_workers=2"]


def _extract(inputs: Inputs) -> list[str]:
    return [
        *("extract", "out", f"--config={inputs.config}", f"--model={inputs.model}"),
        *("--data.batch_size=4", "--num_views=4", "--shard_size=1", "--device=cpu"),
    ]


def _fit(inputs: Inputs) -> list[str]:
    return ["fit", f"--config={inputs.config}", "--ckpt_path=last"]


def _sweep(inputs: Inputs) -> list[str]:
    return ["sweep", str(inputs.sweep), "--workers=1", "--output=out"]


def _predict(inputs: Inputs) -> list[str]:
    clips = inputs.clips("train", 36) + inputs.clips("val", 18) + inputs.clips("test", 18)
    model = [f"--model={inputs.model}", "--device=cpu"]
    return ["predict", *clips, *model, "--format=jsonl", "--output=out/predictions.jsonl"]


def _explain(inputs: Inputs) -> list[str]:
    options = ["--output=out", "--draws=0", "--formats=[png]", "--device=cpu"]
    return ["explain", *inputs.clips("test", 2), f"--model={inputs.model}", *options]


def digests(folder: Path) -> dict[str, Any]:
    """The files of a folder, by name, but those that a lock or a log leaves."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock") and "logs" not in path.parts
    }


def trained(path: Path) -> dict[str, Any]:
    """What training has made, of a checkpoint: weights, optimizer, schedule, progress."""
    checkpoint = torch.load(path, weights_only=True)
    names = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch")
    return {name: checkpoint[name] for name in names}


def fit_content(folder: Path) -> dict[str, Any]:
    """The only finished run: its weights and every logged number, once."""
    found: dict[str, Any] = {}
    runs = sorted(path.parent.parent for path in folder.rglob("last.ckpt"))
    found["runs with weights"] = len(runs)
    for run in runs:
        found |= {f"{name}.ckpt": trained(run / "checkpoints" / f"{name}.ckpt") for name in BOTH}
        with (run / "metrics.csv").open(newline="") as file:
            rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
        found["metrics.csv"] = rows
        found["config.yaml"] = len((run / "config.yaml").read_text()) > 0
    return found


BOTH = ("last", "best")


def index_content(folder: Path) -> dict[str, Any]:
    """All rows of the manifest, and the other files byte for byte."""
    found = digests(folder / "out")
    found.pop("manifest.parquet", None)
    table = pd.read_parquet(folder / "out/manifest.parquet")
    found["manifest.parquet"] = table.to_dict("records")
    return found


def sweep_content(folder: Path) -> dict[str, Any]:
    """The measurements of each run that are no times, and its predictions."""
    runs = pd.read_csv(folder / "out/runs.csv").sort_values("run")
    times = ("head_latency_ms", "train_sec", "started")
    predictions = pd.read_parquet(folder / "out/predictions.parquet")
    return {
        "runs.csv": runs.drop(columns=list(times)).fillna("").to_dict("records"),
        "predictions.parquet": predictions.sort_values(["run", "clip"]).to_dict("records"),
        "files": sorted(path.name for path in (folder / "out").iterdir() if path.is_file()),
    }


def predict_content(folder: Path) -> dict[str, Any]:
    """The lines, each clip once and in order; what stopped commands left are the first of them."""
    text = (folder / "out/predictions.jsonl").read_text()
    partial = list(folder.glob("out/predictions.jsonl.partial-*"))
    strange = [path.name for path in partial if not text.startswith(path.read_text())]
    files = sorted(path.name for path in (folder / "out").iterdir() if path not in partial)
    return {"lines": text.splitlines(), "files": files, "strange": strange}


def out_content(folder: Path) -> dict[str, Any]:
    """All files, byte for byte."""
    return digests(folder / "out")


def explain_content(folder: Path) -> dict[str, Any]:
    """All files, byte for byte; of videos, whose encoder rounds as it likes, the frames."""
    return digests(folder / "out") | {
        str(path.relative_to(folder / "out")): num_frames(path)
        for path in folder.rglob("out/*/*.mp4")
    }


def num_frames(path: Path) -> int:
    """Frames of a video that is whole."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


COMMANDS = {
    command.name: command
    for command in (
        Command("fit", _fit, fit_content, can_starve=True),
        Command("extract", _extract, out_content, can_starve=True),
        Command("index", _index, index_content),
        Command("sweep", _sweep, sweep_content),
        Command("predict", _predict, predict_content),
        Command("generate", _generate, out_content),
        Command("explain", _explain, explain_content, has_readers=False),
    )
}


def differences(made: Any, wanted: Any, name: str = "") -> list[str]:
    """Where two results differ, bit for bit; empty if nowhere."""
    if isinstance(wanted, dict) and isinstance(made, dict):
        keys = {**wanted, **made}
        return [
            text
            for key in keys
            for text in differences(made.get(key), wanted.get(key), f"{name}/{key}".lstrip("/"))
        ]
    if isinstance(wanted, torch.Tensor) and isinstance(made, torch.Tensor):
        return [] if torch.equal(made, wanted) else [name]
    if isinstance(wanted, list | tuple) and isinstance(made, list | tuple):
        if len(made) != len(wanted):
            return [f"{name} has {len(made)} in place of {len(wanted)}"]
        pairs = enumerate(zip(made, wanted, strict=True))
        return [text for i, pair in pairs for text in differences(*pair, f"{name}/{i}")]
    return [] if made == wanted or (made != made and wanted != wanted) else [name]
