"""The video classifier: a backbone and a head, saved to and loaded from a folder or the hub."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from taghead.backbones import Backbone, build_backbone
from taghead.backbones.build import backbone_from_config
from taghead.errors import DataError, first_line
from taghead.files import atomic_folder, check_regular, json_text, parse_json, read_tensors
from taghead.model.card import CARD, is_generated, model_card
from taghead.model.head_factory import head_from_config
from taghead.model.released import Preset, is_released, preset_preprocessing, read_released
from taghead.model.sizes import check_sizes
from taghead.nn.head import TAGHead
from taghead.video.preprocessing import Preprocessing

log = logging.getLogger(__name__)

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_CONFIG_BYTES = 2**26  # of JSON, which takes some times as much memory


class VideoClassifier(nn.Module, ModelHubMixin, library_name="taghead"):
    """A backbone with a head, the class names and the preprocessing.

    Args:
        backbone: From a clip to a feature map.
        head: From a feature map to logits.
        class_names: The classes, in the order of the logits.
        preprocessing: From a video file to a clip.
        metrics: Test results by name, for the model card.

    Shapes:
        - **clip** `[B, 3, T_in, H_in, W_in]`
        - **output** `[B, K]`, logits

    Raises:
        ValueError: If the backbone's width is not the head's `in_channels`, or the class names are
            not distinct or not as many as the head's classes.

    Warns:
        UserWarning: If the backbone's weights were trained with another mean or std.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: TAGHead,
        class_names: Sequence[str] | None = None,
        preprocessing: Preprocessing | None = None,
        metrics: Mapping[str, float] | None = None,
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
        self.metrics = dict(metrics or {})
        _check_statistics(backbone, preprocessing)

    def forward(self, clip: Tensor) -> Tensor:
        # [B, 3, T_in, H_in, W_in] -> [B, C, T, H, W]
        feature_map = self.backbone(clip)
        # [B, K]
        return self.head(feature_map)

    def probabilities(self, clip: Tensor) -> Tensor:
        """Class probabilities, averaged over the views of a clip if it has several.

        Shapes:
            - **clip** `[B, 3, T_in, H_in, W_in]`, or `[B, V, 3, T_in, H_in, W_in]` with V views
            - **output** `[B, K]`
        """
        return mean_probabilities(self, clip)

    def config(self) -> dict[str, Any]:
        """Everything but the weights, as JSON can hold it.

        Raises:
            ValueError: If the backbone or the head has a part that no file can name, such as an
                object made in a script.
        """
        return {
            "backbone": self.backbone.to_config(),
            "head": self.head.config(),
            "class_names": self.class_names,
            "preprocessing": self.preprocessing.to_dict() if self.preprocessing else None,
            "metrics": self.metrics,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VideoClassifier:
        """The model of a config, with random weights.

        A config may come from anywhere: classes of your own are taken only from modules that you
        named (:func:`~taghead.class_paths.allow_modules`).
        """
        preprocessing = config.get("preprocessing")
        return cls(
            backbone_from_config(config["backbone"]),
            head_from_config(config["head"]),
            config.get("class_names"),
            Preprocessing.from_dict(preprocessing) if preprocessing else None,
            config.get("metrics"),
        )

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> VideoClassifier:
        """The model of a training checkpoint, in evaluation.

        Raises:
            DataError: If the file is not such a checkpoint.
        """
        try:
            checkpoint = read_tensors(path)
            if is_released(checkpoint):
                raise DataError(
                    "a released TAG-Head checkpoint: `taghead convert` takes it, with --preset"
                )
            prefix = "model."
            state = {
                key.removeprefix(prefix): value
                for key, value in checkpoint["state_dict"].items()
                if key.startswith(prefix)
            }
            config = checkpoint["video_classifier"]
            check_sizes(config, {key: one.shape for key, one in state.items()}, cls.from_config)
            model = cls.from_config(config)
            model.load_state_dict(state)
        except Exception as error:  # a file from anywhere may hold anything
            reason = first_line(error).removeprefix(f"{path}: ")
            raise DataError(f"{path}: not a checkpoint of this package: {reason}") from error
        return model.eval()

    @classmethod
    def from_reference(
        cls, path: str | Path, preset: Preset, class_names: Sequence[str] | None = None
    ) -> VideoClassifier:
        """The model of a checkpoint that the paper's authors released, in evaluation.

        Args:
            path: The file, a state dict in either family of keys, bare or nested.
            preset: The dataset that it was trained on.
            class_names: The classes, in the order of the logits; the file has no names.

        Raises:
            ValueError: If there is no such preset, or the class names are not as many as it has.
            DataError: If the file does not hold the preset's weights.
        """
        head = TAGHead.paper(preset)
        with torch.device("meta"):  # no random weights that the file's replace
            backbone = build_backbone("r2plus1d_34")
        model = cls(backbone, head, class_names, preset_preprocessing(preset))
        model.load_state_dict(read_released(path, preset, model.state_dict()), assign=True)
        return model.eval()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        revision: str | None = None,
        **hub_options: Any,
    ) -> VideoClassifier:
        """The model of a folder of `save_pretrained` or of the Hugging Face hub, in evaluation.

        Args:
            pretrained_model_name_or_path: A folder, or a model on the Hugging Face hub.
            revision: The commit, tag or branch on the hub. A commit's 40 digits give the same files
                each time; the commit that was downloaded is logged.
            hub_options: Other arguments of `huggingface_hub.snapshot_download`, such as `token`.

        Raises:
            DataError: If there is no such model, or one of its files is damaged.
        """
        folder = _folder(pretrained_model_name_or_path, {"revision": revision, **hub_options})
        config_file, weights_file = folder / CONFIG, folder / WEIGHTS
        try:
            check_regular(config_file, MAX_CONFIG_BYTES)
            config = parse_json(config_file.read_text())
            try:
                shapes = _shapes(weights_file)
            except DataError:
                with torch.device("meta"):
                    cls.from_config(config)  # a fault of the config comes first
                raise
            check_sizes(config, shapes, cls.from_config)
            model = cls.from_config(config)
        except Exception as error:  # JSON, the backbone and the head raise types of their own
            if str(error).startswith(str(weights_file)):
                raise
            reason = first_line(error).removeprefix(f"{config_file}: ")
            raise DataError(f"{config_file}: not a model's config: {reason}") from error
        try:
            model.load_state_dict(load_file(weights_file))
        except Exception as error:  # safetensors and torch raise types of their own
            raise DataError(
                f"{weights_file}: not this model's weights: {first_line(error)}"
            ) from error
        return model.eval()

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Writes `config.json`, `model.safetensors` and a model card into a folder, atomically.

        A `README.md` of your own is not replaced. `push_to_hub("user/name")` uploads the same files
        to the Hugging Face hub.

        Args:
            save_directory: The folder.
            config: Ignored: it is :meth:`config`.
            repo_id: The model's name on the hub; the folder's when not given.
            push_to_hub: Whether to upload the model as well.
            model_card_kwargs: Ignored: the card is made from the config.
            push_to_hub_kwargs: Other arguments of `push_to_hub`, such as `private`.

        Raises:
            ValueError: As :meth:`config` does.
        """
        folder = Path(save_directory)
        with atomic_folder(folder) as stage:
            super().save_pretrained(stage)
            if not is_generated(folder / CARD):
                (stage / CARD).unlink()
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.resolve().name, **push_to_hub_kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        config = json_text(self.config(), CONFIG, indent=2)
        (save_directory / CONFIG).write_text(config + "\n")
        state = {key: value.contiguous() for key, value in self.state_dict().items()}
        save_file(state, save_directory / WEIGHTS, metadata={"format": "pt"})

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model card, `README.md` in the saved folder."""
        return model_card(self.config(), sum(p.numel() for p in self.parameters()))


def _shapes(weights_file: Path) -> dict[str, list[int]]:
    """The shape of each tensor of a safetensors file, from its header alone.

    Raises:
        DataError: If it is no such file.
    """
    check_regular(weights_file)
    try:
        with safe_open(weights_file, "pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises types of its own
        reason = first_line(error)
        raise DataError(f"{weights_file}: not this model's weights: {reason}") from error


def _folder(name: str | Path, hub_options: dict[str, Any]) -> Path:
    """A model's folder: the local one of that name, or else the hub's, downloaded.

    Raises:
        DataError: If there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise DataError(f"{name}: a file, not a folder with a model; see `taghead convert`")
    try:
        files = [CONFIG, WEIGHTS]
        folder = Path(snapshot_download(str(name), allow_patterns=files, **hub_options))
    except (ValueError, OSError) as error:  # of the hub's client, offline too
        raise DataError(
            f"{name}: no such folder, and no such model on the hub: {first_line(error)}"
        ) from error
    commit = folder.name  # of the client's cache
    if commit != hub_options.get("revision"):
        log.warning("%s: commit %s of the hub; revision=%r pins it", name, commit, commit)
    return folder


def _check_statistics(backbone: Backbone, preprocessing: Preprocessing | None) -> None:
    """Warns if clips are normalised with another mean or std than the weights were trained with."""
    trained_on = backbone.preprocessing
    if backbone.weights is None or preprocessing is None:
        return
    differing = [
        f"{name} {getattr(preprocessing, name)} instead of {getattr(trained_on, name)}"
        for name in ("mean", "std")
        if getattr(preprocessing, name) != getattr(trained_on, name)
    ]
    if differing:
        warnings.warn(
            f"the weights {backbone.weights} of {backbone} were trained on clips of other "
            f"statistics: preprocessing has {', '.join(differing)}",
            stacklevel=3,
        )


def mean_probabilities(classify: Callable[[Tensor], Tensor], clip: Tensor) -> Tensor:
    """Class probabilities of any classifier, averaged over the views of each clip.

    The views are classified one after another, in the memory of a batch of one view. A clip with a
    non-finite logit in any view has NaN for all classes: softmax would hide a logit of -inf.

    Args:
        classify: From clips to logits.
        clip: Clips, or views of clips.
    """
    views = [clip] if clip.dim() == 5 else clip.unbind(dim=1)
    scores = [nan_if_not_finite(classify(view)) for view in views]
    dtype = torch.promote_types(scores[0].dtype, torch.float32)  # half precision has many ties
    return torch.stack([logits.softmax(dim=1, dtype=dtype) for logits in scores]).mean(dim=0)


def nan_if_not_finite(logits: Tensor) -> Tensor:
    """Logits `[B, K]` with NaN in the rows that have a non-finite one."""
    return logits.where(logits.isfinite().all(dim=1, keepdim=True), torch.nan)
