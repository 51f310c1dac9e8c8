"""Trained weights of backbones: from a file or from where they are published."""

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
    """What a published file holds; it is kept in torch.hub's folder and downloaded once.

    `TORCH_HOME` says where that is. A file appears there whole or not at all, and only if its
    SHA-256 begins as its name says; names without such digits are of files that state none. One
    that has been damaged there is downloaded again.

    Raises:
        DataError: If it cannot be downloaded or read.
    """
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    try:
        _remove_damaged(kept)
        with redirect_stdout(sys.stderr):  # where torch.hub says that it downloads
            return torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
    except Exception as error:  # urllib, pickle, zip files and torch raise types of their own
        hint = f" (to download it again, remove {kept})" if kept.exists() else ""
        raise DataError(
            f"{url}: cannot be downloaded into {kept.parent} and read: {first_line(error)}{hint}"
        ) from error


def _remove_damaged(kept: Path) -> None:
    """Removes a downloaded file whose SHA-256 is not what its name says: torch.hub looks once."""
    digits = torch.hub.HASH_REGEX.search(kept.name)
    if digits is None or not kept.is_file():
        return
    with open(kept, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digits[1]):
        kept.unlink()


def load_features(
    name: str,
    model: nn.Module,
    features: nn.Module,
    state: Mapping[str, Tensor],
    source: str | Path,
) -> None:
    """Loads the weights of a network's features; those of its other parts are not used.

    Args:
        name: The backbone's name, for the error.
        model: The whole network, whose keys the state dict has.
        features: The part of it that is wanted.
        state: The weights.
        source: Where they are from, for the error.

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
