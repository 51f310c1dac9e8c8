"""Classification losses for balanced and imbalanced classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Literal["cross_entropy", "logit_adjustment", "balanced_softmax"]


class ClassificationLoss(nn.Module):
    r"""Cross-entropy of logits, adjusted by the class frequencies of the training split if asked.

    .. math:: \ell(\mathbf{z}, y) = -\log \frac{e^{z_y + \tau \log \pi_y}}
        {\sum_k e^{z_k + \tau \log \pi_k}}

    with :math:`\pi_k` the fraction of training clips of class k.

    - `cross_entropy`: :math:`\tau = 0`, no adjustment.
    - `balanced_softmax`: :math:`\tau = 1`, `Balanced Meta-Softmax
      <https://arxiv.org/abs/2007.10740>`_, which has clip counts in place of :math:`\pi_k`; the
      constant factor cancels.
    - `logit_adjustment`: the `logit-adjusted loss <https://arxiv.org/abs/2007.07314>`_ for any
      :math:`\tau`; 1 gives balanced softmax.

    The adjustment trains a rare class to reach a higher logit. Tests and predictions use the logits
    without it, which then favour no class for its frequency. Label smoothing is applied to the
    adjusted logits.

    Args:
        num_classes: Number of classes K.
        loss: The loss, one of the three above.
        tau: Strength of `logit_adjustment`.
        label_smoothing: Fraction of a label's weight that is spread over all classes.

    Shapes:
        - **logits** `[B, K]`, **labels** `[B]`, or class probabilities `[B, K]`
        - **output** a scalar, the mean over the batch

    Raises:
        ValueError: If an argument breaks its rule.
    """

    log_prior: Tensor

    def __init__(
        self,
        num_classes: int,
        loss: Loss = "cross_entropy",
        tau: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be one of {', '.join(get_args(Loss))} (got {loss!r})")
        if not 0 <= tau < float("inf"):
            raise ValueError(f"tau must be a number from 0 up (got {tau})")
        if tau != 1 and loss != "logit_adjustment":
            raise ValueError(f"tau is for loss logit_adjustment (got tau {tau} and {loss})")
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be at least 0 and below 1 (got {label_smoothing})"
            )
        self.loss = loss
        self.tau = 0.0 if loss == "cross_entropy" else tau
        self.label_smoothing = label_smoothing
        # of the training split, set at each start of training: not part of the state dict
        self.register_buffer("log_prior", torch.zeros(num_classes), persistent=False)

    def set_class_counts(self, counts: Sequence[int]) -> None:
        """Sets the number of training clips of each class, from which the adjustment follows.

        Raises:
            ValueError: If they are not `num_classes` positive numbers.
        """
        numbers = torch.as_tensor(counts, dtype=torch.float64)
        if numbers.shape != self.log_prior.shape or (numbers <= 0).any():
            raise ValueError(
                f"class counts must be {len(self.log_prior)} positive numbers (got {list(counts)})"
            )
        self.log_prior.copy_((numbers / numbers.sum()).log())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.tau:
            logits = logits + self.tau * self.log_prior
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    def extra_repr(self) -> str:
        return f"{self.loss}, tau={self.tau}, label_smoothing={self.label_smoothing}"
