"""Clips of a batch mixed with one another, and their labels with them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class Mixing:
    """Mixes each clip of a batch with another one, by `mixup` or `CutMix`.

    `mixup <https://arxiv.org/abs/1710.09412>`_ adds the two clips with weights that sum to 1;
    `CutMix <https://arxiv.org/abs/1905.04899>`_ puts a box of one into the other, the same box in
    every frame. Labels mix with the same weights. How much is drawn for each batch, from a Beta
    distribution; where both are on, each batch has one of them at random. Random numbers come from
    torch's global generator. On feature maps, mixup mixes features, as
    `Manifold Mixup <https://arxiv.org/abs/1806.05236>`_ does, and CutMix the tokens of a box.

    Args:
        num_classes: Number of classes K.
        mixup: Both parameters of mixup's Beta distribution; 0 leaves it out.
        cutmix: Both parameters of CutMix's Beta distribution; 0 leaves it out.

    Shapes:
        - **clip** `[B, 3, T, H, W]`, **labels** `[B]`
        - **output** clips `[B, 3, T, H, W]`, and probabilities of the classes `[B, K]`, or the
          labels as they were where neither is on

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
        # torchvision takes five dimensions for a video only, whatever their order
        mixed, probabilities = transform(tv_tensors.Video(clip), labels)
        return mixed.as_subclass(Tensor), probabilities
