"""Pretrained weights of backbones: downloaded, checked and loaded."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from taghead.errors import DataError, first_line


def download(url: str) -> Any:
    """The content of a published file, downloaded once into torch.hub's folder.

    That folder is below `TORCH_HOME`. torch.hub writes a file atomically, and refuses one whose
    SHA-256 does not begin with the digits in its name; a name without digits is not checked. A
    cached file that was damaged is downloaded again.

    Raises:
        DataError: If it cannot be downloaded or read.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    try:
        _remove_damaged(cached)
        with redirect_stdout(sys.stderr):  # torch.hub prints to stdout
            return torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
    except Exception as error:  # urllib, pickle, zip files and torch raise types of their own
        hint = f" (to download it again, remove {cached})" if cached.exists() else ""
        raise DataError(
            f"{url}: cannot be downloaded into {cached.parent} and read: {first_line(error)}{hint}"
        ) from error


def _remove_damaged(cached: Path) -> None:
    """Removes a cached file whose SHA-256 is not that of its name; torch.hub checks only once."""
    digits = torch.hub.HASH_REGEX.search(cached.name)
    if digits is None or not cached.is_file():
        return
    with open(cached, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digits[1]):
        cached.unlink()


def load_features(
    name: str,
    model: nn.Module,
    features: nn.Module,
    state: Mapping[str, Tensor],
    source: str | Path,
) -> None:
    """Loads the weights of a network's features; those of its other parts are ignored.

    Args:
        name: The backbone's name, for the error.
        model: The whole network, with the keys of the state dict.
        features: The part of it that is loaded.
        state: The weights.
        source: Their file or address, for the error.

    Raises:
        DataError: If a weight of the features is missing or has another shape, or the network
            has no such weight.
    """
    tensors = {id(tensor) for tensor in (*features.parameters(), *features.buffers())}
    named = dict([*model.named_parameters(), *model.named_buffers()])
    wanted = {key: tensor.shape for key, tensor in named.items() if id(tensor) in tensors}
    wrong = [f"{key} is missing" for key in wanted if key not in state]
    wrong += [
        f"{key} is {list(state[key].shape)} instead of {list(shape)}"
        for key, shape in wanted.items()
        if key in state and state[key].shape != shape
    ]
    wrong += [f"{key} is unknown" for key in state if key not in named]
    if wrong:
        raise DataError(
            f"{source}: not weights of {name}: {len(wrong)} keys differ, the first: {wrong[0]}"
        )
    model.load_state_dict({key: state[key] for key in wanted}, strict=False)
