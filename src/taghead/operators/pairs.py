"""Functions of every pair of tokens of a frame that are more than an inner product.

Written out they need a tensor `[B, T, P, P, C]`. In eager mode the functions here do without; a
compiler fuses the written-out form, so that is what it gets.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from taghead.operators.parts import FramePart, Part


def leaky_scores(
    part: Part, targets: Tensor, sources: Tensor, att: Tensor, slope: float
) -> Tensor:
    r"""GATv2's scores :math:`\sum_c a_c \, \mathrm{LeakyReLU}(z_c)`, `z` a target plus a source.

    As LeakyReLU is a multiple of z plus a multiple of its absolute value, they are a sum of inner
    products and of two L1 distances, between the features scaled by the positive and by the
    negative part of a.

    Shapes:
        - **targets**, **sources** `[B, T, H, P, C]`
        - **att** `[H, 1, C]`
        - **output** `[B, T, H, P, K]`
    """
    if not isinstance(part, FramePart):
        z = F.leaky_relu(targets + part.source(sources), slope)
        return (z * att).sum(-1, keepdim=True)
    if torch.compiler.is_compiling():
        z = F.leaky_relu(targets.unsqueeze(-2) + sources.unsqueeze(-3), slope)
        return (z * att.unsqueeze(-2)).sum(-1)
    linear = part.add((targets * att).sum(-1), (sources * att).sum(-1))
    positive, negative = att.relu(), (-att).relu()
    distance = torch.cdist(targets * positive, -sources * positive, p=1.0)
    distance = distance - torch.cdist(targets * negative, -sources * negative, p=1.0)
    return (1 + slope) / 2 * linear + (1 - slope) / 2 * distance
