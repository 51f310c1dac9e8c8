"""The Lightning module that trains and evaluates a video classifier."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from taghead.backbones import Backbone, build_backbone
from taghead.errors import DataError
from taghead.features.cache import FeatureCache
from taghead.files import read_tensors
from taghead.model.classifier import VideoClassifier
from taghead.model.head_factory import HeadFactory
from taghead.nn.head import TAGHead
from taghead.nn.message_passing import has_auxiliary_loss
from taghead.training.compatibility import check_checkpoint
from taghead.training.evaluation import Batch, EvaluationModule
from taghead.training.finetuning import batch_norms, set_norms
from taghead.training.finite import check_loss_finite
from taghead.training.losses import ClassificationLoss, Loss
from taghead.training.mixing import Mixing
from taghead.training.optim import clean_name, parameter_groups, warmup_cosine
from taghead.training.recompute import recompute_activations
from taghead.training.resume import ExactResume
from taghead.video.preprocessing import Preprocessing

log = logging.getLogger(__name__)


class ClassificationTask(EvaluationModule):
    """Trains a backbone with a head, end to end or the head alone.

    Args:
        class_names: The classes, in the order of the labels.
        preprocessing: From a video file to a clip; its sizes decide the head's grid.
        backbone: The backbone's name, or the class path of one of your own.
        backbone_weights: A file with the backbone's weights, or the name of published weights,
            such as `DEFAULT`.
        head: The head's class and options.
        optimizer: `adam`, whose weight decay is an L2 penalty, or `adamw`.
        learning_rate: Highest learning rate of the head.
        backbone_learning_rate: Highest learning rate of the backbone; the head's when not given.
        weight_decay: Weight decay; biases, norms and positions have none.
        warmup: Fraction of all steps, 0 to 1, in which the learning rates rise linearly; after it
            they fall to 0 along a cosine.
        label_smoothing: Fraction of a label's weight that is spread over all classes.
        freeze_backbone: Whether only the head is trained: the backbone has no gradients, and its
            batch norms use their running statistics.
        channels_last: Whether clips and convolutions have the channels-last memory format, faster
            on most hardware.
        loss: `cross_entropy`, or for imbalanced classes `balanced_softmax` or `logit_adjustment`
            (:class:`~taghead.training.losses.ClassificationLoss`), with the class counts of the
            clips that training uses.
        tau: Strength of `logit_adjustment`.
        features: The feature cache, if batches hold feature maps in place of clips. The backbone is
            then the one that computed them, and frozen.
        layer_decay: Learning rate of each stage of the backbone, as a fraction of the next stage's;
            the last stage has the backbone's (:func:`~taghead.training.optim.parameter_groups`).
        mixup: Beta parameter of mixup (:class:`~taghead.training.mixing.Mixing`), 0 for none; 0.2
            is usual.
        cutmix: Beta parameter of CutMix, 0 for none; 1 is usual.
        freeze_batch_norm: Whether the backbone's batch norms keep their statistics and parameters,
            for batches too small to estimate statistics. The trainer's `sync_batchnorm` computes
            them over all ranks instead.
        recompute: Whether the backbone's activations are recomputed in the backward pass instead of
            stored (:func:`~taghead.training.recompute.recompute_activations`): less memory, more
            time.
        compile_backend: A backend of `torch.compile`, such as `inductor`, for backbone and head.
        auxiliary_loss: Weight in training of the losses that operators have of their own, as
            SuperGATConv; its paper has 4.

    Raises:
        ValueError: If an argument breaks its rule.
        DataError: If the backbone's weights are not those that computed the features.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        backbone: str = "r2plus1d_18",
        backbone_weights: str | None = None,
        head: HeadFactory = TAGHead,
        optimizer: Literal["adam", "adamw"] = "adamw",
        learning_rate: float = 1e-3,
        backbone_learning_rate: float | None = None,
        weight_decay: float = 0.02,
        warmup: float = 0.1,
        label_smoothing: float = 0.0,
        channels_last: bool = True,
        freeze_backbone: bool = False,
        loss: Loss = "cross_entropy",
        tau: float = 1.0,
        features: FeatureCache | None = None,
        layer_decay: float = 1.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        freeze_batch_norm: bool = False,
        recompute: bool = False,
        compile_backend: str | None = None,
        auxiliary_loss: float = 0.0,
    ) -> None:
        super().__init__()
        if recompute and compile_backend:
            raise ValueError(
                f"recompute and compile_backend exclude each other (got {compile_backend!r})"
            )
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be at least 0 and below 1 (got {warmup})")
        if not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1 (got {layer_decay})")
        for name, rate in {
            "learning_rate": learning_rate,
            "backbone_learning_rate": backbone_learning_rate or 0.0,
            "weight_decay": weight_decay,
            "auxiliary_loss": auxiliary_loss,
        }.items():
            if rate < 0:
                raise ValueError(f"{name} must not be negative (got {rate})")
        network = _backbone(backbone, backbone_weights, features)
        grid = network.grid(preprocessing.num_frames, preprocessing.crop)
        self.model = VideoClassifier(
            network,
            head(network.channels, len(class_names), grid),
            class_names,
            preprocessing,
        )
        if auxiliary_loss and not any(map(has_auxiliary_loss, self.model.head.modules())):
            raise ValueError(
                f"auxiliary_loss must be 0 (got {auxiliary_loss}): no operator of the head has a "
                f"loss of its own, as SuperGATConv has"
            )
        self.auxiliary_weight = auxiliary_loss
        if channels_last:
            self.model.backbone.to(memory_format=torch.channels_last_3d)
        self.has_frozen_norms = freeze_batch_norm
        if freeze_batch_norm:
            for norm in batch_norms(self.model.backbone):
                norm.requires_grad_(False).eval()
        if recompute:
            recompute_activations(self.model.backbone)
        if compile_backend:
            for part in (self.model.backbone, self.model.head):
                part.compile(backend=compile_backend)
        self.features = features
        self.is_frozen = freeze_backbone or features is not None
        if self.is_frozen:
            self.model.backbone.requires_grad_(False).eval()  # Lightning keeps each module's mode
        self.optimizer = optimizer
        self.learning_rates = {
            "backbone": learning_rate if backbone_learning_rate is None else backbone_learning_rate,
            "head": learning_rate,
        }
        self.weight_decay = weight_decay
        self.layer_decay = layer_decay
        self.warmup = warmup
        self.channels_last = channels_last
        self.loss = ClassificationLoss(len(class_names), loss, tau, label_smoothing)
        self.mixing = Mixing(len(class_names), mixup, cutmix)
        self.groups = self._groups_by_name()
        self.class_counts: list[int] | None = None

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: Any, map_location: Any = None, *args: Any, **kwargs: Any
    ) -> ClassificationTask:
        """The task of the arguments that are given, with the weights of a training checkpoint.

        Lightning would build what the file's hyper-parameters name; here they are not read.

        Args:
            checkpoint_path: The file.
            map_location: The device of the task; the CPU when not given.
            args: Nothing: arguments are given by name.
            kwargs: The arguments of the task.

        Raises:
            DataError: If the file is no checkpoint of such a task.
        """
        options = ("hparams_file", "strict", "weights_only")  # Lightning's
        task = cls(*args, **{name: value for name, value in kwargs.items() if name not in options})
        check_checkpoint(checkpoint_path, task)
        task.load_state_dict(read_tensors(checkpoint_path)["state_dict"])
        return task.to(map_location or "cpu")

    def _groups_by_name(self) -> list[dict[str, Any]]:
        """Parameter groups by name: FSDP's sharded parameters have lost their dimensions."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        parts = {"backbone": self.layer_decay, "head": 1.0}
        return [
            {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
            for part, decay in parts.items()
            for group in parameter_groups(
                getattr(self.model, part), self.learning_rates[part], self.weight_decay, decay
            )
        ]

    def train(self, mode: bool = True) -> ClassificationTask:
        super().train(mode)
        if self.is_frozen:
            self.model.backbone.eval()
        elif self.has_frozen_norms:
            set_norms(self.model.backbone)
        return self

    def forward(self, clip: Tensor) -> Tensor:
        if self.features is not None:
            return self.model.head(clip.to(self.dtype))
        if self.channels_last:
            clip = clip.contiguous(memory_format=torch.channels_last_3d)
        return self.model(clip)

    def configure_callbacks(self) -> list[Callback]:
        return [ExactResume()]

    def on_fit_start(self) -> None:
        """Refuses a model that no checkpoint could hold, before it is trained.

        Raises:
            DataError: If the training writes checkpoints and the model has a part that no file can
                hold, such as a function.
        """
        if not self.trainer.checkpoint_callbacks:
            return
        try:
            self.model.config()
        except ValueError as error:
            raise DataError(
                f"the model's checkpoints could not be loaded: {error}; or train without "
                f"checkpoints"
            ) from error

    def on_train_start(self) -> None:
        """Counts the clips of each class that training uses, for the loss and the checkpoint."""
        labels = getattr(getattr(self.trainer.train_dataloader, "dataset", None), "labels", None)
        if labels is not None:
            counts = torch.tensor(labels).bincount(minlength=len(self.loss.log_prior))
            self.class_counts = counts.tolist()
        if self.loss.tau == 0:
            return
        if self.class_counts is None:
            raise DataError(f"loss {self.loss.loss} needs training data that have `labels`")
        if 0 in self.class_counts:
            name = (self.model.class_names or [])[self.class_counts.index(0)]
            raise DataError(f"loss {self.loss.loss}: class {name!r} has no clip to train on")
        self.loss.set_class_counts(self.class_counts)
        if getattr(self.trainer.datamodule, "class_balance", 0):  # type: ignore[attr-defined]
            log.warning("loss %s and class_balance both favour rare classes", self.loss.loss)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        clip, label, index = batch
        clip, label = self.mixing(clip, label)
        loss = self.loss(self(clip), label)
        if self.auxiliary_weight:
            own = self.model.head.auxiliary_loss()
            assert own is not None  # checked when the task was made
            self.log("train/auxiliary_loss", own, batch_size=len(clip))
            loss = loss + self.auxiliary_weight * own
        check_loss_finite(self, loss.detach(), index)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(clip))
        return loss

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """The trained parameters in groups for an optimizer, with or without FSDP's sharding."""
        found = {clean_name(name): parameter for name, parameter in self.named_parameters()}
        return [{**group, "params": [found[n] for n in group["params"]]} for group in self.groups]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = self.optimizer_groups()
        cls = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        optimizer = cls(groups)
        if math.isinf(self.trainer.estimated_stepping_batches):
            raise DataError("trainer: max_epochs or max_steps must be given (got no end)")
        num_steps = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, partial(warmup_cosine, self.warmup, num_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        try:
            checkpoint["video_classifier"] = self.model.config()
        except ValueError as error:  # an operator that no file can name: weights are saved anyway
            log.warning("the checkpoint holds weights, but no config to load it from: %s", error)
            checkpoint["video_classifier"] = None
        checkpoint["class_counts"] = self.class_counts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.class_counts = checkpoint.get("class_counts")
        saved = (checkpoint.get("video_classifier") or {}).get("class_names")
        if saved is not None and saved != self.model.class_names:
            raise DataError(
                f"the checkpoint's classes are not those of the data: {saved[:3]}... "
                f"instead of {(self.model.class_names or [])[:3]}..."
            )
        if self.features is not None:
            prefix = "model.backbone."
            state = {
                key.removeprefix(prefix): value
                for key, value in checkpoint["state_dict"].items()
                if key.startswith(prefix)
            }
            self.features.check_weights(state, "the checkpoint")


def _backbone(name: str, weights: str | None, features: FeatureCache | None) -> Backbone:
    """The backbone by name, which must be the one that computed the features, if there are any."""
    if features is None:
        return build_backbone(name, weights)
    if name != features.spec.backbone:
        raise ValueError(
            f"backbone must be {features.spec.backbone}, which made the features in "
            f"{features.root} (got {name!r})"
        )
    network = build_backbone(name, weights)
    if weights is None:
        return features.backbone(network)
    features.check_weights(network.state_dict(), weights)
    return network
