"""Validation and test of a task: every clip counted once, on any number of processes."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F

from taghead.data.datamodule import VideoDataModule
from taghead.metrics import ClipMean, CollectedPredictions, accuracies
from taghead.model.classifier import mean_probabilities

Batch = tuple[Tensor, Tensor, Tensor]
"""Clips, labels `[B]`, indices of the clips in their split `[B]`.

Clips are `[B, 3, T, H, W]`, in a test with V views of each `[B, V, 3, T, H, W]`. On a feature
cache, feature maps `[B, C, T, H, W]` or `[B, V, C, T, H, W]` stand in their place.
"""


class EvaluatedTask(LightningModule):
    """What a task measures on the validation and the test split; its `forward` gives logits."""

    def __init__(self) -> None:
        super().__init__()
        self.val_predictions = CollectedPredictions()
        self.val_loss = ClipMean()
        self.test_predictions = CollectedPredictions()

    def on_validation_epoch_start(self) -> None:
        self.val_predictions.reset()
        self.val_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        clip, label, index = batch
        logits = self(clip)
        self.val_predictions.update(index, label, logits.softmax(dim=1, dtype=torch.float32))
        self.val_loss.update(index, F.cross_entropy(logits.float(), label, reduction="none"))

    def on_validation_epoch_end(self) -> None:
        # it is the same number in every process already
        self.log("val/loss", self.val_loss.compute(), sync_dist=True)
        self._log_accuracies("val", self.val_predictions)

    def on_test_epoch_start(self) -> None:
        self.test_predictions.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        clip, label, index = batch
        self.test_predictions.update(index, label, mean_probabilities(self, clip))

    def on_test_epoch_end(self) -> None:
        self._log_accuracies("test", self.test_predictions)

    def _log_accuracies(
        self, split: Literal["val", "test"], collected: CollectedPredictions
    ) -> None:
        """Logs accuracies, of how many clips they are, and of how many listed ones."""
        predictions = collected.compute()
        found = accuracies(predictions.outcomes())
        # every process has collected the same: their mean, by sync_dist, changes nothing
        self.log_dict(
            {f"{split}/{name}": float(value) for name, value in found.items()},
            prog_bar=split == "val",
            sync_dist=True,
        )
        counts = {f"{split}/num_clips": float(len(predictions.clip_index))}
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, VideoDataModule):
            counts[f"{split}/num_listed"] = float(data.counts(split)[1])
        self.log_dict(counts, sync_dist=True)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return mean_probabilities(self, batch)
