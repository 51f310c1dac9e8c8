import pytest
import torch

from taghead.video import Preprocessing
from taghead.video.augmentation import ClipAugment

GREY = (115, 115, 115)
OPERATIONS = sorted(ClipAugment._AUGMENTATION_SPACE)


def picture() -> torch.Tensor:
    """A smooth picture `[3, 48, 48]`, brightest at the upper left, of float."""
    ramp = torch.linspace(1, 0, 48)
    return ((ramp[:, None] + 2 * ramp) / 3).expand(3, 48, 48).contiguous()


def only(name: str, magnitude: int) -> ClipAugment:
    augment = ClipAugment(1, magnitude, GREY)
    augment._AUGMENTATION_SPACE = {name: ClipAugment._AUGMENTATION_SPACE[name]}
    return augment


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_frame_is_changed_alike(dtype: torch.dtype) -> None:
    frame = (picture() * 255).to(dtype) if dtype == torch.uint8 else picture()
    frames = frame.expand(6, 3, 48, 48).contiguous()
    augment = ClipAugment(2, 15, GREY if dtype == torch.uint8 else (0.45,) * 3)
    changed = 0
    for _ in range(40):
        found = augment(frames)
        assert found.dtype == dtype
        assert found.shape == frames.shape
        assert (found == found[:1]).all()
        changed += not torch.equal(found, frames)
    assert changed > 20


def test_a_frame_is_changed_as_it_would_be_alone() -> None:
    frames = (torch.rand(4, 3, 48, 48) * 255).to(torch.uint8)
    for seed in range(30):
        found = []
        for part in (frames, frames[2:3]):
            torch.manual_seed(seed)
            found.append(ClipAugment(2, 15, GREY)(part))
        assert torch.equal(found[0][2:3], found[1]), seed


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_mirrors(name: str) -> None:
    frame = (picture() * 255).to(torch.uint8).expand(2, 3, 48, 48).contiguous()
    marked = frame.float() - frame.float().mean()
    for _ in range(4):
        found = only(name, 9)(frame).float()
        found -= found.mean()
        agrees = (found * marked).mean()
        for axis in (2, 3):
            assert agrees > (found * marked.flip(axis)).mean(), (name, axis)


def test_operations_of_their_own_range_of_colours_are_left_out() -> None:
    assert {"AutoContrast", "Equalize", "Invert"}.isdisjoint(OPERATIONS)
    assert {"Rotate", "ShearX", "TranslateY", "Brightness", "Color"} <= set(OPERATIONS)


def test_training_clips_are_augmented_by_seed_and_tests_never() -> None:
    options = {"resize": 48, "crop": 32, "flip": 0.0, "random_crop": False}
    plain = Preprocessing(**options)  # type: ignore[arg-type]
    strong = Preprocessing(**options, augment_ops=2, augment_magnitude=15)  # type: ignore[arg-type]
    frames = (torch.rand(4, 3, 48, 60) * 255).to(torch.uint8)
    drawn = []
    for seed in (1, 1, 2, 3):
        torch.manual_seed(seed)
        drawn.append(strong.train_transform()(frames))
    assert drawn[0].shape == (3, 4, 32, 32)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2]) or not torch.equal(drawn[0], drawn[3])
    assert torch.equal(strong.test_transform()(frames), plain.test_transform()(frames))
    assert torch.equal(plain.train_transform()(frames), plain.test_transform()(frames))
