from math import exp, log

import pytest
import torch
from torch.nn import functional as F

from taghead.training.losses import ClassificationLoss, Loss

COUNTS = [500, 40, 7, 1, 52]
LOSSES: list[tuple[Loss, float]] = [
    ("cross_entropy", 1.0),
    ("balanced_softmax", 1.0),
    ("logit_adjustment", 1.0),
    ("logit_adjustment", 0.3),
]


def prepared(loss: Loss, tau: float = 1.0, label_smoothing: float = 0.0) -> ClassificationLoss:
    module = ClassificationLoss(len(COUNTS), loss, tau, label_smoothing).double()
    module.set_class_counts(COUNTS)
    return module


def by_hand(logits: list[float], weights: list[float], label: int, smoothing: float) -> float:
    """The loss of one clip, of a softmax whose terms are weighted."""
    terms = [w * exp(z) for z, w in zip(logits, weights, strict=True)]
    losses = [-log(term / sum(terms)) for term in terms]
    return (1 - smoothing) * losses[label] + smoothing * sum(losses) / len(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("loss", "tau"), LOSSES)
def test_formula(loss: Loss, tau: float, smoothing: float) -> None:
    logits, labels = 3 * torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 5
    weights = {
        "cross_entropy": [1.0] * 5,
        "balanced_softmax": [float(n) for n in COUNTS],
        "logit_adjustment": [(n / 600) ** tau for n in COUNTS],
    }[loss]
    exact = [
        by_hand(row, weights, y, smoothing)
        for row, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    found = prepared(loss, tau, smoothing)(logits, labels)
    assert found.item() == pytest.approx(sum(exact) / 8, rel=1e-12)


def test_gradient_by_hand() -> None:
    logits = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    prepared("balanced_softmax")(logits, torch.tensor([3])).backward()
    shares = torch.tensor(COUNTS) * logits.detach().exp()
    exact = shares / shares.sum() - F.one_hot(torch.tensor([3]), 5)
    torch.testing.assert_close(logits.grad, exact, rtol=1e-12, atol=1e-12)


def test_cross_entropy_is_torch_s_to_the_bit() -> None:
    logits, labels = torch.randn(8, 5), torch.arange(8) % 5
    loss = ClassificationLoss(5, label_smoothing=0.1)
    loss.set_class_counts(COUNTS)
    assert torch.equal(loss(logits, labels), F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_the_bayes_classifier_of_balanced_classes_is_learned_from_unbalanced_ones() -> None:
    """Two classes, one value x, 950 and 50 clips: the boundary belongs in the middle, at 0."""
    x = torch.cat([torch.randn(950, 1) - 1, torch.randn(50, 1) + 1])
    labels = torch.cat([torch.zeros(950), torch.ones(50)]).long()
    boundary = {}
    for name in ("cross_entropy", "balanced_softmax", "logit_adjustment"):
        loss, layer = ClassificationLoss(2, name), torch.nn.Linear(1, 2)  # type: ignore[arg-type]
        loss.set_class_counts([950, 50])
        optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=100)

        def closure(
            loss: ClassificationLoss = loss,
            layer: torch.nn.Linear = layer,
            optimizer: torch.optim.Optimizer = optimizer,
        ) -> torch.Tensor:
            optimizer.zero_grad()
            value = loss(layer(x), labels)
            value.backward()
            return value

        optimizer.step(closure)
        weight, bias = (p.detach().diff(dim=0).item() for p in layer.parameters())
        boundary[name] = -bias / weight
    assert boundary["cross_entropy"] > 1  # at log(19) / 2 = 1.5
    assert abs(boundary["balanced_softmax"]) < 0.4
    assert boundary["logit_adjustment"] == pytest.approx(boundary["balanced_softmax"], abs=1e-3)


def test_half_precision_logits_are_adjusted_in_single() -> None:
    loss = ClassificationLoss(5, "balanced_softmax")
    loss.set_class_counts(COUNTS)
    assert loss(torch.randn(3, 5, dtype=torch.bfloat16), torch.arange(3)).dtype == torch.float32


def test_the_class_counts_are_no_part_of_the_weights() -> None:
    assert not prepared("balanced_softmax").state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "focal"}, "loss must be one of cross_entropy, logit_adjustment, .*'focal'"),
        ({"loss": "logit_adjustment", "tau": -1}, r"tau must be a number from 0 up \(got -1\)"),
        ({"loss": "logit_adjustment", "tau": float("nan")}, "tau must be a number from 0 up"),
        ({"tau": 2.0}, r"tau is for loss logit_adjustment \(got tau 2.0 and cross_entropy\)"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be at least 0 and below 1 \(got 1.0\)"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassificationLoss(5, **options)


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, 3, 4, 0], [[1, 2, 3, 4, 5]]])
def test_counts_must_fit(counts: list) -> None:
    with pytest.raises(ValueError, match="class counts must be 5 positive numbers"):
        ClassificationLoss(5, "balanced_softmax").set_class_counts(counts)
