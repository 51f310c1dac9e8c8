"""An epoch of training a head on cached features, beside one through the video.

The backbone is the same and frozen both ways. Prints a Markdown table, and with --output adds it to
RESULTS.md in a folder.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from measure import circumstances, number, publish, ratio, table
from torch_geometric.nn import GATv2Conv

from taghead import TAGHead
from taghead.backbones import Backbone, build_backbone
from taghead.data import SynthGym, VideoDataModule
from taghead.features import FeatureDataModule
from taghead.features.extract import write_features
from taghead.graph import RELATIONS
from taghead.training.task import ClassificationTask
from taghead.video import Preprocessing

CACHE, VIDEO = "cache", "video"
SIZES = {  # frames of a clip, its height and width
    "r2plus1d_tiny": (16, 48),
    "r2plus1d_18": (16, 112),
    "r2plus1d_34": (32, 112),
}


class EpochClock(Callback):
    """CPU seconds of the process from the start of a training epoch to its end."""

    seconds = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = time.process_time() - self.seconds


def clips(root: str, backbone: str, num_clips: int, quick: bool) -> SynthGym:
    """Generated clips as the backbone takes them."""
    frames, size = (4, 32) if quick else SIZES[backbone]
    return SynthGym(
        root,
        num_train=num_clips,
        num_val=18,
        num_test=18,
        preprocessing=Preprocessing(frames, resize=round(size * 8 / 7), crop=size),
        batch_size=min(8, num_clips),
        num_workers=0,  # in one process, whose CPU time is measured
    )


def frozen_task(data: VideoDataModule, backbone: Backbone) -> ClassificationTask:
    """A head on the frozen backbone."""
    conv = partial(GATv2Conv, heads=4, concat=False, add_self_loops=False)
    head = partial(TAGHead, encoder_layers=1, conv=conv, relations=RELATIONS)
    task = ClassificationTask(
        data.class_names,
        data.preprocessing,
        backbone.name,
        head=head,
        freeze_backbone=True,
        features=data.features,
    )
    task.model.backbone.load_state_dict(backbone.state_dict())
    return task


def seconds_of_epoch(task: ClassificationTask, data: VideoDataModule) -> float:
    clock = EpochClock()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_val_batches=0,
        callbacks=[clock],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(task, data)
    return clock.seconds


def largest_difference(
    video: tuple[ClassificationTask, VideoDataModule],
    cache: tuple[ClassificationTask, VideoDataModule],
) -> float:
    """Between the logits of the test clips both ways, in parts of the largest logit."""
    both = []
    cache[0].model.head.load_state_dict(video[0].model.head.state_dict())
    for task, data in (video, cache):
        data.setup("test")
        with torch.no_grad():
            both.append(torch.cat([task.eval()(x) for x, _, _ in data.test_dataloader()]))
    return float((both[0] - both[1]).abs().max() / both[0].abs().max())


def row(name: str, data: SynthGym, folder: Path, rounds: int) -> list[str]:
    """One row: seconds of an epoch both ways, their ratio, and how far the logits are apart."""
    torch.manual_seed(0)
    backbone = build_backbone(name)
    write_features(folder, backbone, data)
    cached = FeatureDataModule(str(folder), batch_size=data.batch_size)
    ways = {
        VIDEO: (frozen_task(data, backbone), data),
        CACHE: (frozen_task(cached, backbone), cached),
    }
    difference = largest_difference(ways[VIDEO], ways[CACHE])
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (task, module) in ways.items():
            times[way].append(seconds_of_epoch(task, module))
    num_clips = data.counts("train")[0]
    size = f"{data.preprocessing.num_frames}x{data.preprocessing.crop}x{data.preprocessing.crop}"
    cells = [number(1e3 * median(times[way]) / num_clips) for way in ways]
    return [name, size, *cells, number(ratio(times, VIDEO, CACHE)), f"{difference:.0e}"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=32, help="training clips")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tiny size: shows that it works")
    parser.add_argument("--output", type=Path, help="folder for RESULTS.md")
    args = parser.parse_args()
    if args.quick:
        args.clips, args.rounds = 18, 1
    return args


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name in ["r2plus1d_tiny"] if args.quick else SIZES:
            data = clips(f"{folder}/clips", name, args.clips, args.quick)
            data.prepare_data()
            found.append(row(name, data, Path(folder, name), args.rounds))
    header = ["backbone", "clip", "video: ms a clip", "cache: ms a clip", "ratio", "logits apart"]
    parts = [
        "## A head on cached features",
        circumstances(torch.device("cpu")),
        f"An epoch of {args.clips} clips with the backbone frozen: through the video, and on its "
        "features in 16 bits. The head has a Transformer layer and GATv2 on both relations. Logits "
        "of unseen clips differ by the parts of the largest that the last column says.",
        table(header, found),
    ]
    publish(args.output, "features", "\n\n".join(parts))


if __name__ == "__main__":
    main()
