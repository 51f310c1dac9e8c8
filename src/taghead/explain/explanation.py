"""All that a clip's explanation says, as numbers that JSON can hold."""

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
from taghead.explain import areas, edge_curves, token_saliency
from taghead.explain.view import SeenClip
from taghead.graph.edge_index import clip_edges
from taghead.model.classifier import VideoClassifier

DECIMALS = 6  # of every weight, in the JSON and in the page
STRONGEST = 50  # edges in the JSON's table


@dataclass(frozen=True)
class ClipExplanation:
    """What a model made of one view of a clip.

    Args:
        clip: The view.
        class_names: The classes, in the order of the probabilities.
        probabilities: Of this view, `[K]`.
        target: The class that saliency and curves are of.
        feature_map: The backbone's, `[1, C, T, H, W]`.
        attention: The head's, of one clip.
        rollout: What each token counts for, `[T, H, W]`.
        saliency: What each token adds to the target's logit, `[T, H, W]`.
        curves: The target's probability as edges go and come, or none.
        stride: Frames of the view to a frame of tokens.
    """

    clip: SeenClip
    class_names: tuple[str, ...]
    probabilities: Tensor
    target: int
    feature_map: Tensor
    attention: EdgeAttention
    rollout: Tensor
    saliency: Tensor
    curves: pd.DataFrame | None
    stride: int

    @property
    def predicted(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def token_frames(self) -> np.ndarray:
        """The frame of tokens that each frame of the view is seen through, `[T_in]`."""
        frames = np.arange(len(self.clip.indices)) // self.stride
        return np.minimum(frames, self.attention.grid.frames - 1)

    @property
    def pictures(self) -> np.ndarray:
        """The view's pictures, `stride` of them for each frame of tokens; the last may repeat."""
        wanted = np.arange(self.attention.grid.frames * self.stride)
        return self.clip.pictures[np.minimum(wanted, len(self.clip.pictures) - 1)]


def explain_clip(
    model: VideoClassifier,
    clip: SeenClip,
    target: int | None = None,
    *,
    draws: int = 10,
    device: str = "cpu",
) -> ClipExplanation:
    """Runs a model on a view, and asks what it attended to.

    Args:
        model: The model, in evaluation and on the device.
        clip: The view.
        target: The class to explain; the predicted one if not given.
        draws: Random orders of edges that the attention's is compared with; 0 leaves that out.
        device: Where the model is.

    Raises:
        ValueError: If an operator of the head has no attention weights.
    """
    names = model.class_names or [str(i) for i in range(model.head.num_classes)]
    with torch.no_grad():
        feature_map = model.backbone(clip.tensor.unsqueeze(0).to(device))
        logits, attention = model.head(feature_map, return_attention=True)
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
        attention.rollout()[0].cpu(),
        token_saliency(model.head, feature_map, target)[0].cpu(),
        curves,
        _stride(model.backbone.stride[0], len(clip.indices), attention.grid.frames),
    )


def to_numbers(found: ClipExplanation, model: str | Path) -> dict[str, Any]:
    """The explanation as a dictionary that JSON can hold; numbers that are none are `null`.

    Args:
        found: The explanation.
        model: Where the model came from.
    """
    attention, clip = found.attention, found.clip
    grid = attention.grid
    order = found.probabilities.argsort(descending=True, stable=True).tolist()
    return {
        "taghead": __version__,
        "clip": str(clip.path),
        "model": str(model),
        "view": {"index": clip.view, "of": clip.num_views},
        "predicted": found.class_names[found.predicted],
        "target": found.class_names[found.target],
        "classes": [
            {"class": found.class_names[i], "probability": _round(found.probabilities[i])}
            for i in order
        ],
        "grid": {"frames": grid.frames, "height": grid.height, "width": grid.width},
        "frames": {
            "index": clip.indices.tolist(),
            "seconds": _round(torch.from_numpy(clip.seconds)),
            "token_frame": found.token_frames.tolist(),
        },
        "layers": [
            {
                "layer": i,
                "relations": {r.name: _relation(attention, i, r.name) for r in attention.relations},
            }
            for i in range(len(attention.layers))
        ],
        "flow": _rows(attention.flow()),
        "strongest": _rows(attention.strongest(STRONGEST)) if attention.layers else [],
        "rollout": _round(found.rollout, significant=True),
        "saliency": _round(found.saliency, significant=True),
        "curves": None if found.curves is None else _rows(found.curves),
        "areas": None if found.curves is None else _rows(areas(found.curves)),
    }


def _stride(stated: int, num_frames: int, num_token_frames: int) -> int:
    """Frames to a frame of tokens: as the backbone states it, where that is what it did."""
    even = math.ceil(num_frames / num_token_frames)
    fits = num_token_frames in (num_frames // stated, math.ceil(num_frames / stated))
    return stated if fits else even


def _relation(attention: EdgeAttention, layer: int, name: str) -> dict[str, Any]:
    """One relation's weights in one layer: edges in PyG's order, a list of weights a head."""
    source, target, alpha = attention.weighted_edges(layer, name)
    loops = attention.self_loops(layer, name)
    place, operator = next(
        (i, operator)
        for i, operator in enumerate(attention.layers[layer].operators)
        if attention.relation(name) in operator.relations
    )
    return {
        "operator": operator.name,
        "softmax": place,  # relations of one number share their softmax
        "source": source.tolist(),
        "target": target.tolist(),
        "weights": _round(alpha[0].T),
        "self_loops": None if loops is None else _round(loops.T),
        "entropy": _round(attention.entropy(layer, name)[0]),
    }


@torch.no_grad()
def _covers_all_edges(attention: EdgeAttention, tokens: Tensor) -> bool:
    """Whether all edges have weights; an operator's own self-loops replace a custom relation's."""
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
    """Nested lists of numbers of 6 decimals, or of 6 digits."""
    found = values.detach().double().cpu()
    if not significant:
        return _nested(found.numpy().round(DECIMALS).tolist())
    return _nested(np.vectorize(lambda v: float(f"{v:.6g}"))(found.numpy()).tolist())


def _nested(values: Any) -> Any:
    return [_nested(value) for value in values] if isinstance(values, list) else _finite(values)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
