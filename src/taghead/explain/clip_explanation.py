"""Explains a model's decision on a clip: attention, rollout, saliency and curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from taghead import __version__
from taghead.attention import EdgeAttention
from taghead.errors import VideoError
from taghead.explain.clip_view import ClipView
from taghead.explain.curves import areas, edge_curves
from taghead.explain.over_smoothing import Smoothing, smoothing
from taghead.explain.saliency import token_saliency
from taghead.files import name_to_text
from taghead.graph.edge_index import clip_edges
from taghead.model.classifier import VideoClassifier

DECIMALS = 6  # of every weight, in the JSON and in the page
NUM_STRONGEST = 50  # edges in the JSON's table


@dataclass(frozen=True)
class ClipExplanation:
    """Explanation of a model's decision on one view of a clip.

    Args:
        clip: The view.
        class_names: The classes, in the order of the probabilities.
        probabilities: Class probabilities of this view, `[K]`.
        target: Index of the class that saliency and curves explain.
        feature_map: The backbone's output, `[1, C, T, H, W]`.
        attention: The head's attention, for this clip alone.
        rollout: Attention rollout, `[T, H, W]`; None if the readout has no weights of tokens
            (`attention.no_rollout` says why).
        saliency: Gradient times input of the target's logit for each token, `[T, H, W]`.
        curves: Deletion and insertion curves of the target's probability; None if left out.
        smoothing: Over-smoothing of the head, and what each relation adds, on this clip.
        stride: Video frames of the view for each token frame.
    """

    clip: ClipView
    class_names: tuple[str, ...]
    probabilities: Tensor
    target: int
    feature_map: Tensor
    attention: EdgeAttention
    rollout: Tensor | None
    saliency: Tensor
    curves: pd.DataFrame | None
    smoothing: Smoothing
    stride: int

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def token_frames(self) -> np.ndarray:
        """The token frame of each video frame of the view, `[T_in]`."""
        frames = np.arange(len(self.clip.indices)) // self.stride
        return np.minimum(frames, self.attention.grid.frames - 1)

    @property
    def pictures(self) -> np.ndarray:
        """The view's pictures, `stride` for each token frame; the last picture may repeat."""
        wanted = np.arange(self.attention.grid.frames * self.stride)
        return self.clip.pictures[np.minimum(wanted, len(self.clip.pictures) - 1)]

    def to_dict(self, model: str | Path) -> dict[str, Any]:
        """The explanation as JSON-serialisable values; non-finite ones are `null`.

        Args:
            model: The model's file or folder.
        """
        attention, clip = self.attention, self.clip
        grid = attention.grid
        order = self.probabilities.argsort(descending=True, stable=True).tolist()
        return {
            "taghead": __version__,
            "clip": name_to_text(clip.path),
            "model": name_to_text(model),
            "view": {"index": clip.view, "of": clip.num_views},
            "predicted": self.class_names[self.predicted],
            "target": self.class_names[self.target],
            "classes": [
                {"class": self.class_names[i], "probability": _round(self.probabilities[i])}
                for i in order
            ],
            "grid": {"frames": grid.frames, "height": grid.height, "width": grid.width},
            "frames": {
                "index": clip.indices.tolist(),
                "seconds": _round(torch.from_numpy(clip.seconds)),
                "token_frame": self.token_frames.tolist(),
            },
            "layers": [
                {
                    "layer": i,
                    "relations": {
                        r.name: _relation(attention, i, r.name) for r in attention.relations
                    },
                }
                for i in range(len(attention.layers))
            ],
            "flow": _rows(attention.flow()),
            "strongest": _rows(attention.strongest(NUM_STRONGEST)) if attention.layers else [],
            "rollout": None if self.rollout is None else _round(self.rollout, significant=True),
            "no_rollout": attention.no_rollout or None,
            "saliency": _round(self.saliency, significant=True),
            "curves": None if self.curves is None else _rows(self.curves),
            "smoothing": {name: _rows(table) for name, table in self.smoothing._asdict().items()},
            "areas": None if self.curves is None else _rows(areas(self.curves)),
        }


def explain_clip(
    model: VideoClassifier,
    clip: ClipView,
    target: int | None = None,
    *,
    draws: int = 10,
    device: str = "cpu",
) -> ClipExplanation:
    """Explains a model's decision on one view.

    Args:
        model: The model, in evaluation and on the device.
        clip: The view.
        target: Index of the class to explain; the predicted one if not given.
        draws: Number of random orders of edges that the attention's order is compared with; 0
            leaves the curves out.
        device: The model's device.

    Raises:
        ValueError: If an operator of the head has no attention weights.
        VideoError: If a logit is NaN or infinite.
    """
    names = model.class_names or [str(i) for i in range(model.head.num_classes)]
    with torch.no_grad():
        feature_map = model.backbone(clip.tensor.unsqueeze(0).to(device))
        logits, attention = model.head(feature_map, return_attention=True)
    if not logits.isfinite().all():
        raise VideoError(f"{clip.path}: the model's logits are not finite")
    probabilities = logits[0].float().softmax(0).cpu()
    target = int(probabilities.argmax()) if target is None else target
    curves = None
    if draws and attention.layers and _covers_all_edges(attention, model.head.encode(feature_map)):
        scores = attention.edge_scores()
        curves = edge_curves(model.head, feature_map, scores, target, draws=draws)
    return ClipExplanation(
        clip,
        tuple(names),
        probabilities,
        target,
        feature_map,
        attention,
        None if attention.readout is None else attention.rollout()[0].cpu(),
        token_saliency(model.head, feature_map, target)[0].cpu(),
        curves,
        smoothing(model.head, feature_map),
        _stride(model.backbone.stride[0], len(clip.indices), attention.grid.frames),
    )


def _stride(declared: int, num_frames: int, num_token_frames: int) -> int:
    """Video frames for each token frame: the backbone's stride, if it fits the number of tokens."""
    fits = num_token_frames in (num_frames // declared, math.ceil(num_frames / declared))
    return declared if fits else math.ceil(num_frames / num_token_frames)


def _relation(attention: EdgeAttention, layer: int, name: str) -> dict[str, Any]:
    """Weights of one relation in a layer: edges in PyG's order, a list of weights for each head."""
    source, target, alpha = attention.weighted_edges(layer, name)
    loops = attention.self_loops(layer, name)
    index, operator = next(
        (i, operator)
        for i, operator in enumerate(attention.layers[layer].operators)
        if attention.relation(name) in operator.relations
    )
    return {
        "operator": operator.name,
        "softmax": index,  # relations with the same index share one softmax
        "source": source.tolist(),
        "target": target.tolist(),
        "weights": _round(alpha[0].T),
        "self_loops": None if loops is None else _round(loops.T),
        "entropy": _round(attention.entropy(layer, name)[0]),
    }


@torch.no_grad()
def _covers_all_edges(attention: EdgeAttention, tokens: Tensor) -> bool:
    """Whether all edges have weights: an operator's self-loops replace those of a relation."""
    for relation in attention.relations:
        count = clip_edges(tokens, attention.grid, relation)[0].size(1)
        for i in range(len(attention.layers)):
            if attention.weighted_edges(i, relation).source.numel() != count:
                return False
    return True


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(k): _finite(round(v, DECIMALS)) if isinstance(v, float) else v for k, v in row.items()}
        for row in table.to_dict("records")
    ]


def _round(values: Tensor, significant: bool = False) -> Any:
    """Nested lists of numbers, rounded to 6 decimals or to 6 significant digits."""
    numbers = values.detach().double().cpu().numpy()
    if not significant:
        return _nested(numbers.round(DECIMALS).tolist())
    return _nested(np.vectorize(lambda v: float(f"{v:.6g}"))(numbers).tolist())


def _nested(values: Any) -> Any:
    return [_nested(value) for value in values] if isinstance(values, list) else _finite(values)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
