"""A backbone with a head: from a clip to class scores, and to a folder and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from taghead.backbones import Backbone, build_backbone
from taghead.errors import DataError
from taghead.head import TAGHead
from taghead.video import Preprocessing

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class VideoClassifier(nn.Module):
    """A backbone with a head, the names of the classes, and how a video becomes a clip.

    Args:
        backbone: From a clip to a feature map.
        head: From a feature map to logits.
        class_names: The classes, in the order of the logits.
        preprocessing: From a video file to a clip.

    Shapes:
        - **clip** `[B, 3, T_in, H_in, W_in]`
        - **output** `[B, K]`, logits

    Raises:
        ValueError: If the backbone's width is not what the head takes, or the class names are not
            as many as the head's classes.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: TAGHead,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        if backbone.channels != head.in_channels:
            raise ValueError(
                f"head: in_channels must be the backbone's {backbone.channels} "
                f"(got {head.in_channels})"
            )
        if isinstance(class_names, str) or len(set(class_names or [])) != len(class_names or []):
            raise ValueError(f"class_names must be a list of distinct names (got {class_names!r})")
        if class_names is not None and len(class_names) != head.num_classes:
            raise ValueError(
                f"class_names must have {head.num_classes} names (got {len(class_names)})"
            )
        self.backbone = backbone
        self.head = head
        self.class_names = list(class_names) if class_names is not None else None
        self.preprocessing = preprocessing

    def forward(self, clip: Tensor) -> Tensor:
        # [B, 3, T_in, H_in, W_in] -> [B, C, T, H, W]
        feature_map = self.backbone(clip)
        # [B, K]
        return self.head(feature_map)

    def probabilities(self, clip: Tensor) -> Tensor:
        """Probabilities of the classes, averaged over the views of a clip if it has several.

        Shapes:
            - **clip** `[B, 3, T_in, H_in, W_in]`, or `[B, V, 3, T_in, H_in, W_in]` with V views
            - **output** `[B, K]`
        """
        return mean_probabilities(self, clip)

    def config(self) -> dict[str, Any]:
        """All but the weights, as JSON can hold it."""
        return {
            "backbone": self.backbone.name,
            "head": self.head.config(),
            "class_names": self.class_names,
            "preprocessing": self.preprocessing.to_dict() if self.preprocessing else None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VideoClassifier:
        """The model of a config, with random weights."""
        preprocessing = config.get("preprocessing")
        return cls(
            build_backbone(config["backbone"]),
            TAGHead(**config["head"]),
            config.get("class_names"),
            Preprocessing.from_dict(preprocessing) if preprocessing else None,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` into a folder.

        Each file appears whole or not at all.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = json.dumps(self.config(), indent=2)
        state = {key: value.contiguous() for key, value in self.state_dict().items()}
        save_file(state, folder / f".{WEIGHTS}", metadata={"format": "pt"})
        (folder / f".{CONFIG}").write_text(config + "\n")
        for name in (WEIGHTS, CONFIG):
            os.replace(folder / f".{name}", folder / name)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> VideoClassifier:
        """The model that `save_pretrained` wrote.

        Raises:
            DataError: If a file is missing or does not hold what it should.
        """
        config_file, weights_file = Path(folder) / CONFIG, Path(folder) / WEIGHTS
        try:
            model = cls.from_config(json.loads(config_file.read_text()))
        except Exception as error:  # whatever a file that is no config makes of it
            raise DataError(f"{config_file}: not a model's config: {error}") from error
        try:
            model.load_state_dict(load_file(weights_file))
        except Exception as error:  # safetensors and torch raise types of their own
            reason = str(error).splitlines()[0]
            raise DataError(f"{weights_file}: not this model's weights: {reason}") from error
        return model.eval()

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> VideoClassifier:
        """The model of a checkpoint that training wrote.

        Raises:
            DataError: If the file is not such a checkpoint.
        """
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            model = cls.from_config(checkpoint["video_classifier"])
            prefix = "model."
            state = {
                key.removeprefix(prefix): value
                for key, value in checkpoint["state_dict"].items()
                if key.startswith(prefix)
            }
            model.load_state_dict(state)
        except Exception as error:  # pickle, zip files and torch raise types of their own
            reason = (str(error) or repr(error)).splitlines()[0]
            raise DataError(f"{path}: not a checkpoint of this package: {reason}") from error
        return model.eval()


def mean_probabilities(classify: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    """Probabilities that a classifier gives to clips, as :meth:`VideoClassifier.probabilities`.

    Views pass one after another: they take no more memory than a batch of one view.

    Args:
        classify: From clips to logits.
        clip: Clips, or views of clips.
    """
    views = [clip] if clip.dim() == 5 else clip.unbind(dim=1)
    scores = [classify(view) for view in views]
    dtype = torch.promote_types(scores[0].dtype, torch.float32)  # half precision has many ties
    return torch.stack([logits.softmax(dim=1, dtype=dtype) for logits in scores]).mean(dim=0)
