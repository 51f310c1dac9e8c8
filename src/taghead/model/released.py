"""The paper's released checkpoints: their keys renamed to those of :class:`VideoClassifier`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from taghead.errors import DataError
from taghead.files import read_tensors, state_dict_in
from taghead.graph.grid import Grid
from taghead.graph.relations import RELATIONS
from taghead.nn.paper import PAPER
from taghead.video.preprocessing import Preprocessing

Preset = Literal["haa500", "gym99", "gym288"]

# key prefixes of the backbone and the classifier in the two families of files
FAMILIES = (("backbone.", "classifier."), ("csnmodel.", "mlp_head."))
OTHER_PARTS = {
    "head.positions.tables.0": "pos_embedding",
    "head.encoder.layers.": "transformer.layers.",
}
EDGES = "edge_index"  # a buffer in some of the files
MAX_LISTED = 20  # keys of each kind in an error


def preset_preprocessing(preset: Preset) -> Preprocessing:
    """The paper's preprocessing for one of its datasets."""
    return Preprocessing(
        num_frames=32 if preset == "haa500" else 64,
        resize=128,
        crop=112,
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
    )


def read_released(
    path: str | Path, preset: Preset, wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state dict of a released checkpoint, with the keys of `VideoClassifier`.

    Args:
        path: A state dict, bare or under `model_state_dict`, in either family of keys.
        preset: The dataset that it was trained on, as the user says.
        wanted: The state dict of the preset's `VideoClassifier`.

    Raises:
        DataError: If the file is no state dict, keys are missing or unexpected, a shape differs,
            or its edges are those of another graph.
    """
    state = state_dict_in(read_tensors(path), path)
    names = _names(state, wanted)
    edges = state.pop(EDGES, None)
    _check_keys(path, names, state)
    shapes = {name: wanted[key].shape for name, key in names.items()}
    wrong = [name for name in names if state[name].shape != shapes[name]]
    if wrong:
        first = wrong[0]
        raise DataError(
            f"{path}: not a checkpoint of {preset}: {first} is {list(state[first].shape)} instead "
            f"of {list(shapes[first])}{_matching_preset(state, names, preset)}"
        )
    if edges is not None:
        _check_edges(path, edges, Grid(PAPER[preset][1], 7, 7))
    return {key: state[name].to(wanted[key].dtype) for name, key in names.items()}


def is_released(content: object) -> bool:
    """Whether a file's content has the keys of a released checkpoint."""
    try:
        state = state_dict_in(content, "")
    except DataError:
        return False
    families = [all(any(k.startswith(p) for k in state) for p in family) for family in FAMILIES]
    return any(families) and "pos_embedding" in state


def _names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, str]:
    """Keys of `VideoClassifier` by the file's keys, in the file's family."""
    family = max(FAMILIES, key=lambda prefixes: sum(k.startswith(prefixes) for k in state))
    parts = {
        "backbone.features.": family[0],
        "head.classifier.": family[1],
        **OTHER_PARTS,
    }
    return {
        theirs + key.removeprefix(ours): key
        for key in wanted
        for ours, theirs in parts.items()
        if key.startswith(ours)
    }


def _check_keys(path: str | Path, names: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    missing = [name for name in names if name not in state]
    unexpected = [name for name in state if name not in names]
    if missing or unexpected:
        parts = [
            f"{len(keys)} {what}: {_shortened(keys)}"
            for what, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise DataError(f"{path}: not a released TAG-Head checkpoint: keys {'; '.join(parts)}")


def _shortened(keys: list[str]) -> str:
    more = len(keys) - MAX_LISTED
    return ", ".join(keys[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _matching_preset(state: Mapping[str, Tensor], names: Mapping[str, str], given: Preset) -> str:
    """Which other preset the head's shapes fit, as the end of an error."""
    theirs = {key: name for name, key in names.items()}
    num_classes = state[theirs["head.classifier.1.bias"]].numel()
    num_nodes = state[theirs["head.positions.tables.0"]].numel() // 512
    width = state[theirs["head.encoder.layers.0.linear1.bias"]].numel()
    for preset, (classes, frames, feedforward) in PAPER.items():
        if (num_classes, num_nodes, width) == (classes, frames * 49, feedforward):
            return "" if preset == given else f"; it fits preset={preset}"
    return (
        f"; it fits no preset: {num_classes} classes, {num_nodes} tokens, "
        f"a feed-forward network of {width}"
    )


def _check_edges(path: str | Path, edges: Tensor, grid: Grid) -> None:
    """Checks that a file's edges, in any order, are those of the paper's graph."""
    wanted = grid.typed_edges(RELATIONS)[0]
    fits = edges.dim() == 2 and edges.shape == wanted.shape
    if not fits or not torch.equal(_sorted(edges, grid), _sorted(wanted, grid)):
        raise DataError(
            f"{path}: {EDGES} is another graph than the intra-frame and time-aligned edges of "
            f"{grid.frames}x{grid.height}x{grid.width}: {list(edges.shape)} instead of "
            f"{list(wanted.shape)}"
        )


def _sorted(edges: Tensor, grid: Grid) -> Tensor:
    return (edges[0].long() * grid.num_nodes + edges[1].long()).sort().values
