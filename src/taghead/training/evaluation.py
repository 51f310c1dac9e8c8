"""Validation and test steps of a task: every clip counts once, on any number of ranks."""

from __future__ import annotations

from typing import Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.nn import functional as F

from taghead.data.datamodule import VideoDataModule
from taghead.metrics import ClipMean, CollectedPredictions, accuracies
from taghead.model.classifier import mean_probabilities, nan_if_not_finite
from taghead.training.finite import check_predictions_finite

Batch = tuple[Tensor, Tensor, Tensor]
"""Clips, labels `[B]` and clip indices in the split `[B]`.

Clips are `[B, 3, T, H, W]`, or `[B, V, 3, T, H, W]` in a test with V views. From a feature cache
they are feature maps `[B, C, T, H, W]` or `[B, V, C, T, H, W]`.
"""


class EvaluationModule(LightningModule):
    """Validation, test and predict steps of a module whose `forward` gives logits.

    It logs loss and accuracies of the validation split, accuracies of the test split, and the
    number of clips of both.
    """

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
        logits = nan_if_not_finite(self(clip))
        self.val_predictions.update(index, label, logits.softmax(dim=1, dtype=torch.float32))
        self.val_loss.update(index, F.cross_entropy(logits.float(), label, reduction="none"))

    def on_validation_epoch_end(self) -> None:
        self._log_accuracies("val", self.val_predictions)
        # already the same on all ranks
        self.log("val/loss", self.val_loss.compute(), sync_dist=True)

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
        """Logs accuracies, the number of their clips, and the number of listed clips."""
        predictions = collected.compute()
        check_predictions_finite(predictions, getattr(self._datamodule(), "clips", {}).get(split))
        found = accuracies(predictions.outcomes())
        # already the same on all ranks: the mean over them, by sync_dist, changes nothing
        self.log_dict(
            {f"{split}/{name}": float(value) for name, value in found.items()},
            prog_bar=split == "val",
            sync_dist=True,
        )
        counts = {f"{split}/num_clips": float(len(predictions.clip_index))}
        data = self._datamodule()
        if data is not None:
            counts[f"{split}/num_listed"] = float(data.counts(split)[1])
        self.log_dict(counts, sync_dist=True)

    def _datamodule(self) -> VideoDataModule | None:
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, VideoDataModule) else None

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return mean_probabilities(self, batch)
