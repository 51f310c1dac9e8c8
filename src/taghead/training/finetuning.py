"""Staged unfreezing of a backbone, and the mode of its batch norms."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from taghead.errors import DataError
from taghead.training.optim import depth_stages


class StagedUnfreezing(Callback):
    """Gradual unfreezing: trains the head first, then the backbone's stages, the last one first.

    A frozen stage has no gradients, so the optimizer does not change it, not even by weight decay,
    and its batch norms use their running statistics. All stages are in the optimizer from the
    start, so an unfrozen stage has the learning rate that the schedule has reached. What is frozen
    depends on the epoch alone, so a resumed training needs no state. On several ranks it needs the
    trainer's strategy `ddp_find_unused_parameters_true`.

    Follows `Universal Language Model Fine-tuning for Text Classification
    <https://arxiv.org/abs/1801.06146>`_. Lightning's own `BaseFinetuning` adds a stage's parameters
    to the optimizer when they are unfrozen, as groups that a learning-rate schedule does not cover.

    Args:
        first_epoch: The epoch in which the last stage is unfrozen, from 0.
        epochs_per_stage: Epochs from one stage to the one before it; 0 unfreezes all at once.

    Raises:
        ValueError: If an argument is negative.
        DataError: From training, if the task itself freezes the backbone.
    """

    def __init__(self, first_epoch: int = 1, epochs_per_stage: int = 1) -> None:
        for name, number in {
            "first_epoch": first_epoch,
            "epochs_per_stage": epochs_per_stage,
        }.items():
            if number < 0:
                raise ValueError(f"{name} must not be negative (got {number})")
        self.first_epoch = first_epoch
        self.epochs_per_stage = epochs_per_stage

    def num_trained(self, epoch: int, num_stages: int) -> int:
        """Number of stages that are trained in an epoch."""
        if epoch < self.first_epoch:
            return 0
        if self.epochs_per_stage == 0:
            return num_stages
        return min(num_stages, 1 + (epoch - self.first_epoch) // self.epochs_per_stage)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and getattr(pl_module, "is_frozen", False):
            raise DataError("StagedUnfreezing needs a backbone that is trained (got a frozen one)")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply(trainer, pl_module)  # for a training resumed within an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply(trainer, pl_module)

    def _apply(self, trainer: Trainer, pl_module: LightningModule) -> None:
        backbone: Any = pl_module.model.backbone  # type: ignore[union-attr]
        stages = depth_stages(backbone)
        num_frozen = len(stages) - self.num_trained(trainer.current_epoch, len(stages))
        always_frozen = self._always_frozen(pl_module, backbone)
        for i, stage in enumerate(stages):
            for _, parameter in stage:
                parameter.requires_grad_(i >= num_frozen and id(parameter) not in always_frozen)
        set_norms(backbone)

    @staticmethod
    def _always_frozen(pl_module: LightningModule, backbone: nn.Module) -> set[int]:
        """Ids of the parameters of batch norms, if the task freezes those."""
        if not getattr(pl_module, "has_frozen_norms", False):
            return set()
        return {id(p) for norm in batch_norms(backbone) for p in norm.parameters()}


def set_norms(network: nn.Module) -> None:
    """Sets batch norms with frozen parameters to evaluation, others to the network's mode."""
    for norm in batch_norms(network):
        parameters = list(norm.parameters())
        is_trained = not parameters or any(p.requires_grad for p in parameters)
        norm.train(network.training and is_trained)


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The batch norms of a network, including synchronised ones."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]
