"""Metrics of fine-grained recognition that torchmetrics computes differently or not at all."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy


class MeanClassAccuracy(Metric):
    """Mean class accuracy (MCA): the mean, over the classes present in the labels, of Top-1.

    A class that no label names does not count, even where it was predicted; torchmetrics' macro
    accuracy counts it as 0.

    Args:
        num_classes: Number of classes K.

    Shapes:
        - **logits** `[B, K]`, **labels** `[B]`
    """

    higher_is_better = True
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_classes, dtype=torch.long)
        self.add_state("correct", zeros, dist_reduce_fx="sum")
        self.add_state("total", zeros.clone(), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        hits = labels[logits.argmax(dim=1) == labels]
        self.correct += hits.bincount(minlength=len(self.correct))
        self.total += labels.bincount(minlength=len(self.total))

    def compute(self) -> Tensor:
        present = self.total > 0
        return (self.correct[present] / self.total[present]).mean()


def video_metrics(num_classes: int, prefix: str) -> MetricCollection:
    """Top-1, Top-5 and MCA; with fewer than five classes, Top-5 counts as many as there are."""
    return MetricCollection(
        {
            "top1": MulticlassAccuracy(num_classes, average="micro"),
            "top5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
            "mca": MeanClassAccuracy(num_classes),
        },
        prefix=prefix,
    )
