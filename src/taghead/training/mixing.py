"""Mixup and CutMix of clips and labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class Mixing:
    """Mixup or CutMix of each clip of a batch with another one, by torchvision.

    `Mixup <https://arxiv.org/abs/1710.09412>`_ is a weighted mean of two clips; `CutMix
    <https://arxiv.org/abs/1905.04899>`_ replaces a box of one clip by that of another, the same box
    in every frame. Labels are mixed with the same weights, which are drawn from a Beta distribution
    for each batch. If both are on, one of them is chosen at random for each batch. Random numbers
    come from torch's global generator. On feature maps, mixup is `Manifold Mixup
    <https://arxiv.org/abs/1806.05236>`_, and CutMix replaces the tokens of a box.

    Args:
        num_classes: Number of classes K.
        mixup: Both parameters of mixup's Beta distribution; 0 turns it off.
        cutmix: Both parameters of CutMix's Beta distribution; 0 turns it off.

    Shapes:
        - **clip** `[B, 3, T, H, W]`, **labels** `[B]`
        - **output** clips `[B, 3, T, H, W]` and class probabilities `[B, K]`; clips and labels
          unchanged if neither is on

    Raises:
        ValueError: If a parameter is negative.
    """

    def __init__(self, num_classes: int, mixup: float = 0.0, cutmix: float = 0.0) -> None:
        for name, alpha in {"mixup": mixup, "cutmix": cutmix}.items():
            if not 0 <= alpha < float("inf"):
                raise ValueError(f"{name} must be a number from 0 up (got {alpha})")
        self.transforms: list[v2.Transform] = []
        if mixup:
            self.transforms.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
        if cutmix:
            self.transforms.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))

    def __call__(self, clip: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.transforms:
            return clip, labels
        transform = self.transforms[int(torch.randint(len(self.transforms), ()))]
        # torchvision accepts five dimensions only from a video, in any order
        mixed, probabilities = transform(tv_tensors.Video(clip), labels)
        return mixed.as_subclass(Tensor), probabilities
