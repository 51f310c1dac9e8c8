import torch
from torchmetrics.classification import MulticlassAccuracy

from taghead.metrics import MeanClassAccuracy, video_metrics


def logits_of(predicted: list[int], num_classes: int) -> torch.Tensor:
    return torch.eye(num_classes)[predicted]


def test_mca_is_the_mean_over_the_classes_present() -> None:
    metric = MeanClassAccuracy(4)
    metric.update(logits_of([0, 0, 1], 4), torch.tensor([0, 0, 0]))
    metric.update(logits_of([1, 3], 4), torch.tensor([1, 1]))
    # class 0: 2 of 3, class 1: 1 of 2, classes 2 and 3 are absent
    assert torch.isclose(metric.compute(), torch.tensor((2 / 3 + 1 / 2) / 2))


def test_a_class_that_is_only_predicted_does_not_count() -> None:
    logits, labels = logits_of([0, 3], 4), torch.tensor([0, 0])
    metric = MeanClassAccuracy(4)
    macro = MulticlassAccuracy(4, average="macro")
    assert metric(logits, labels) == 0.5
    assert macro(logits, labels) == 0.25  # the class 3 counts as 0: not the paper's number


def test_the_three_metrics_over_batches() -> None:
    logits, labels = torch.randn(50, 7), torch.randint(7, (50,))
    metrics = video_metrics(7, "test/")
    for batch, label in zip(logits.split(8), labels.split(8), strict=True):
        metrics.update(batch, label)
    values = metrics.compute()
    ranks = (logits.argsort(dim=1, descending=True) == labels[:, None]).int().argmax(dim=1)
    assert torch.isclose(values["test/top1"], (ranks < 1).float().mean())
    assert torch.isclose(values["test/top5"], (ranks < 5).float().mean())


def test_top5_of_three_classes_is_all() -> None:
    metrics = video_metrics(3, "")
    metrics.update(torch.randn(9, 3), torch.randint(3, (9,)))
    assert metrics.compute()["top5"] == 1
