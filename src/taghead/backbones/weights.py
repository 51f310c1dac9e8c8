"""Pretrained weights of backbones: downloaded, checked and loaded."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from taghead.errors import DataError, first_line

log = logging.getLogger(__name__)


SHA256 = {
    "mc3_18-a90a0ba3.pth": "a90a0ba35ca1242d15b77511ff28bfb29cc596988b5ea36081042f8e2f54212b",
    "mvit_v2_s-ae3be167.pth": "ae3be16733081f6d1cd40e4ab980ca23d6df6dc6486d15ada05a5e8ab8c9b975",
    "r2plus1d_18-91a641e6.pth": "91a641e6c2ab531d1aca5f4321b4d802ec5c3babc15df855cdb6e39c6a1107c8",
    "r3d_18-b3b3357e.pth": "b3b3357ead25631ec9c57362ff2128a92d0427e01e2cd184951a44380c3f2e9d",
    "swin3d_b_22k-7c6ae6fa.pth": "7c6ae6fa165f481a9c71156644a7c0e61bb393e470ca3671b8d24a30d365ffc6",
    "swin3d_t-7615ae03.pth": "7615ae035996b65eb38dad437ae533d2dfcd36f9f89d28c0f0fa7bfb8e6b3130",
}
"""The whole checksums that are known; of other files, the digits in the name are checked."""


def download(url: str) -> Any:
    """The content of a published file, downloaded once into torch.hub's folder.

    That folder is below `TORCH_HOME`. A file is written atomically, and refused if its SHA-256 is
    not the known one, or does not begin with the digits in its name. Where neither is known, the
    checksum is logged. A cached file that was damaged is downloaded again.

    Raises:
        DataError: If it cannot be downloaded or read.
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    digits = torch.hub.HASH_REGEX.search(cached.name)
    expected = SHA256.get(cached.name) or (digits[1] if digits else None)
    try:
        if expected and cached.is_file() and not _sha256(cached).startswith(expected):
            cached.unlink()  # torch.hub checks only what it downloads
        if not cached.is_file():
            _fetch(url, cached, expected)
        return torch.load(cached, map_location="cpu", weights_only=True)
    except Exception as error:  # urllib, pickle, zip files and torch raise types of their own
        hint = f" (to download it again, remove {cached})" if cached.exists() else ""
        raise DataError(
            f"{url}: cannot be downloaded into {cached.parent} and read: {first_line(error)}{hint}"
        ) from error


def _fetch(url: str, cached: Path, expected: str | None) -> None:
    cached.parent.mkdir(parents=True, exist_ok=True)
    log.warning("downloading %s to %s", url, cached)
    with redirect_stdout(sys.stderr):  # torch.hub prints to stdout
        torch.hub.download_url_to_file(url, str(cached), expected)
    if not expected:
        log.warning("%s: its publisher gives no checksum; SHA-256 %s", cached, _sha256(cached))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
