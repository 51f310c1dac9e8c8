"""Training and evaluation of a video classifier with Lightning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from taghead.backbones import build_backbone
from taghead.grid import Grid
from taghead.head import TAGHead
from taghead.metrics import video_metrics
from taghead.model import VideoClassifier
from taghead.video import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    HeadFactory = Callable[[int, int, Grid], TAGHead]
else:

    class HeadFactory(Protocol):
        """Makes a head for (in_channels, num_classes, grid).

        The command line reads this signature: a head's other arguments are its options.
        """

        def __call__(self, in_channels: int, num_classes: int, grid: Grid) -> TAGHead: ...


Batch = tuple[Tensor, Tensor, Tensor]
"""Clips `[B, 3, T, H, W]`, labels `[B]`, indices of the clips in their split `[B]`."""


class ClassificationTask(LightningModule):
    """Trains a backbone and a head, end to end.

    Args:
        class_names: The classes, by number.
        preprocessing: How videos become clips; it says the size of the head's grid.
        backbone: The backbone's name.
        backbone_weights: A file with the backbone's weights, or a name that torchvision publishes.
        head: The head's class and options.
        optimizer: `adam`, whose weight decay is an L2 penalty, or `adamw`.
        learning_rate: Highest learning rate of the head.
        backbone_learning_rate: Highest learning rate of the backbone; the head's when not given.
        weight_decay: Weight decay; biases, norms and positions have none.
        warmup: Part of all steps, 0 to 1, in which the learning rates rise; after it they fall to
            0 along a cosine.
        label_smoothing: Part of a label's weight that is spread over all classes.
        channels_last: Whether clips and convolutions are laid out channels-last, faster on most
            hardware.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        backbone: str = "r2plus1d_18",
        backbone_weights: str | None = None,
        head: HeadFactory = TAGHead,
        optimizer: Literal["adam", "adamw"] = "adamw",
        learning_rate: float = 1e-3,
        backbone_learning_rate: float | None = None,
        weight_decay: float = 0.02,
        warmup: float = 0.1,
        label_smoothing: float = 0.0,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be at least 0 and below 1 (got {warmup})")
        network = build_backbone(backbone, backbone_weights)
        grid = network.grid(preprocessing.num_frames, preprocessing.crop)
        self.model = VideoClassifier(
            network,
            head(network.channels, len(class_names), grid),
            class_names,
            preprocessing,
        )
        if channels_last:
            self.model.backbone.to(memory_format=torch.channels_last_3d)
        self.optimizer = optimizer
        self.learning_rates = {
            "backbone": backbone_learning_rate or learning_rate,
            "head": learning_rate,
        }
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.label_smoothing = label_smoothing
        self.channels_last = channels_last
        self.val_metrics = video_metrics(len(class_names), "val/")
        self.test_metrics = video_metrics(len(class_names), "test/")

    def forward(self, clip: Tensor) -> Tensor:
        if self.channels_last:
            clip = clip.contiguous(memory_format=torch.channels_last_3d)
        return self.model(clip)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        clip, label, _ = batch
        loss = F.cross_entropy(self(clip), label, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(clip))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        clip, label, _ = batch
        logits = self(clip)
        self.val_metrics.update(logits, label)
        self.log("val/loss", F.cross_entropy(logits, label), batch_size=len(clip))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.compute(), prog_bar=True)
        self.val_metrics.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        clip, label, index = batch
        logits = self(clip)
        self.test_metrics.update(logits, label)
        return {"probabilities": logits.softmax(dim=1), "label": label, "index": index}

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.compute())
        self.test_metrics.reset()

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self(batch).softmax(dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = [
            group
            for part, rate in self.learning_rates.items()
            for group in _parameter_groups(getattr(self.model, part), rate, self.weight_decay)
        ]
        cls = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        optimizer = cls(groups)
        num_steps = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, partial(warmup_cosine, self.warmup, num_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["video_classifier"] = self.model.config()


def warmup_cosine(warmup: float, num_steps: int, step: int) -> float:
    """The learning rate at a step, as a part of the highest: up a line, down a cosine to 0.

    Args:
        warmup: Part of all steps that rise.
        num_steps: Steps in all.
        step: The step, from 0.
    """
    rising = warmup * num_steps
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = min(1.0, (step - rising) / max(1.0, num_steps - rising))
    return (1 + math.cos(math.pi * progress)) / 2


def _parameter_groups(module: nn.Module, rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels with weight decay; biases, norms and positions without."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.dim() < 2 or name.startswith("positions")
            (plain if is_plain else decayed).append(parameter)
    return [
        {"params": decayed, "lr": rate, "weight_decay": weight_decay},
        {"params": plain, "lr": rate, "weight_decay": 0.0},
    ]
