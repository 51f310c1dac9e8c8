"""What the notebooks share: generated clips, a small backbone trained on them, its feature maps.

The notebook that runs first makes them, in `../data/notebooks`; the others find them there.
"""

from __future__ import annotations

import logging
import warnings
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from taghead import TAGHead
from taghead.backbones import build_backbone
from taghead.data import VideoDataModule
from taghead.data.synthetic import ClipSpec, class_names, write_clip
from taghead.features import FeatureDataModule
from taghead.features.extract import write_features
from taghead.graph import RELATIONS
from taghead.training.optim import warmup_cosine
from taghead.video import Preprocessing

ROOT = Path("../data/notebooks")
CLIPS = Preprocessing(num_frames=16, resize=48, crop=48, flip=0.0, random_crop=False)
GRID = (4, 6, 6)  # of the feature maps
CLASSES = [
    f"{direction}_straight_{twists}"
    for direction in ("forward", "backward")
    for twists in ("0_half_twists", "1_half_twist", "2_half_twists")
]
LOOKS = {"train": range(48), "test": range(48, 64)}
EPOCHS, LEARNING_RATE = 12, 2e-3


def quiet() -> None:
    """Leaves out what libraries tell at every start, and sets the number of threads."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)  # sums, and with them the numbers, depend on it


def clips() -> VideoDataModule:
    """Straight somersaults: two directions, and no, one or two half twists.

    They come in sets of six that differ in nothing but the class: the same gymnast, camera and
    timing. So what sets the classes apart is all that there is to learn.
    """
    for split, looks in LOOKS.items():
        for look, name in product(looks, CLASSES):
            file = clip_file(split, look, name)
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                label = class_names("somersault").index(name)
                write_clip(ClipSpec((5, look), label, level=0.1), file)
    folder = str(ROOT / "somersaults")
    return VideoDataModule(folder, format="folders", preprocessing=CLIPS, num_workers=0)


def clip_file(split: str, look: int, name: str) -> Path:
    """The file of one clip: `<root>/<split>/<class>/<file>`."""
    return ROOT / "somersaults" / split / name / f"{look:02d}.mp4"


def backbone_weights() -> Path:
    """A small backbone trained with a linear classifier on the mean of its feature map.

    No graph had a part in it, so its features favour no operator. A batch has two sets of clips.
    """
    file = ROOT / "backbone.safetensors"
    if file.exists():
        return file
    clips()
    files = [clip_file("train", look, name) for look, name in product(LOOKS["train"], CLASSES)]
    x = torch.stack([CLIPS.load(file).half() for file in files])
    x = x.unflatten(0, (-1, len(CLASSES)))  # [sets, classes, 3, 16, 48, 48]
    labels = torch.arange(len(CLASSES)).repeat(2)
    torch.manual_seed(0)
    backbone = build_backbone("r2plus1d_tiny").to(memory_format=torch.channels_last_3d)
    width = backbone.channels
    mean = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.LayerNorm(width)]
    model = nn.Sequential(backbone, *mean, nn.Linear(width, len(CLASSES))).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.02)
    steps = EPOCHS * len(x) // 2
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(warmup_cosine, 0.1, steps))
    for _ in range(EPOCHS):
        for sets in torch.randperm(len(x)).split(2):
            batch = x[sets].flatten(0, 1).float()
            logits = model(batch.contiguous(memory_format=torch.channels_last_3d))
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    state = backbone.features.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, file)
    return file


def features() -> FeatureDataModule:
    """The backbone's feature maps of all clips, written once."""
    folder = ROOT / "features"
    if not (folder / "manifest.json").exists():
        backbone = build_backbone("r2plus1d_tiny", backbone_weights())
        write_features(folder, backbone, clips())
    return FeatureDataModule(str(folder))


def tensors(data: FeatureDataModule, split: str) -> tuple[Tensor, Tensor]:
    """All feature maps of a split `[M, 128, 4, 6, 6]`, and their labels `[M]`."""
    part = data.features.splits[split]
    maps = torch.stack([part.views(i)[0] for i in range(len(part))]).float()
    return maps, torch.tensor([clip.label for clip in part.clips])


def small_head(**options: object) -> partial[TAGHead]:
    """A head of 64 channels on the paper's relations, no Transformer; `options` change it."""
    defaults = {
        "channels": 64,
        "positions": "factorised",
        "encoder_layers": 0,
        "encoder_heads": 4,
        "encoder_channels": 128,
        "encoder_dropout": 0.0,
        "graph_dropout": 0.0,
        "conv": partial(GATv2Conv, heads=4, concat=False, add_self_loops=False),
        "relations": RELATIONS,
    }
    return partial(TAGHead, **{**defaults, **options})


def train_head(
    head: TAGHead, maps: Tensor, labels: Tensor, seed: int = 0, epochs: int = 5
) -> TAGHead:
    """Trains a head on feature maps; the seed gives the order of the clips."""
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=0.02)
    steps = epochs * -(-len(labels) // 16)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    order = torch.Generator().manual_seed(seed)
    head.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels), generator=order).split(16):
            loss = F.cross_entropy(head(maps[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.eval()
