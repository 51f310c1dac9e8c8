import pytest
import torch
from torch.nn import functional as F

from taghead.training.losses import ClassificationLoss
from taghead.training.mixing import Mixing

LABELS = torch.tensor([0, 2, 1, 3])


def clips() -> torch.Tensor:
    """Clips that are their label in every pixel."""
    return LABELS.float().view(4, 1, 1, 1, 1).expand(4, 3, 5, 8, 8).contiguous()


def test_mixup_adds_clips_and_labels_with_the_same_weights() -> None:
    mixed, probabilities = Mixing(4, mixup=1.0)(clips(), LABELS)
    assert type(mixed) is torch.Tensor
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(4))
    mean_label = probabilities @ torch.arange(4.0)
    torch.testing.assert_close(mixed, mean_label.view(4, 1, 1, 1, 1).expand_as(mixed))
    assert not torch.equal(mixed, clips())


def test_cutmix_puts_one_box_into_every_frame() -> None:
    mixing, sizes = Mixing(4, cutmix=1.0), set()
    for _ in range(10):
        mixed, probabilities = mixing(clips(), LABELS)
        assert (mixed == mixed[:, :1, :1]).all()  # alike in every colour and frame
        for clip, expected in zip(mixed, probabilities, strict=True):
            shares = torch.stack([(clip[0, 0] == label).float().mean() for label in range(4)])
            torch.testing.assert_close(shares, expected)
            sizes.add(round(shares.max().item(), 3))
    assert len(sizes) > 3


def test_both_take_turns_and_neither_changes_nothing() -> None:
    both = Mixing(4, mixup=1.0, cutmix=1.0)
    is_box = [bool((both(clips(), LABELS)[0] % 1 == 0).all()) for _ in range(30)]
    assert 5 < sum(is_box) < 25
    untouched, labels = Mixing(4)(clips(), LABELS)
    assert torch.equal(untouched, clips())
    assert labels is LABELS


def test_the_same_seed_mixes_the_same() -> None:
    both = Mixing(4, mixup=1.0, cutmix=1.0)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(both(clips(), LABELS)[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("name", ["cross_entropy", "balanced_softmax"])
def test_the_loss_of_a_mixture_is_the_mixture_of_losses(name: str, smoothing: float) -> None:
    loss = ClassificationLoss(4, name, label_smoothing=smoothing)  # type: ignore[arg-type]
    loss.set_class_counts([7, 1, 2, 4])
    logits = torch.randn(4, 4, dtype=torch.float64)
    one, other = LABELS, LABELS.roll(1)
    mixed = 0.7 * F.one_hot(one, 4).double() + 0.3 * F.one_hot(other, 4).double()
    expected = 0.7 * loss(logits, one) + 0.3 * loss(logits, other)
    torch.testing.assert_close(loss(logits, mixed), expected)
