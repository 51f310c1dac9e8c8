"""Files that come from anywhere or must appear whole: state dicts, and folders of results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taghead.errors import DataError

NESTED_UNDER = ("model_state_dict", "model_state", "state_dict")


def read_tensors(path: str | Path) -> Any:
    """What `torch.save` wrote, if it is tensors and plain containers: no code of the file runs.

    Raises:
        DataError: If the file is missing, damaged or holds anything else.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip files and torch raise types of their own
        raise DataError(f"{path}: not a readable state dict: {first_line(error)}") from error


def state_dict_in(content: Any, source: str | Path) -> dict[str, Tensor]:
    """A state dict, bare or under one of the names that training scripts give it.

    Args:
        content: What a file holds.
        source: The file's name, for the error.

    Raises:
        DataError: If there is none.
    """
    for name in NESTED_UNDER:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(key, str) for key in content)
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise DataError(f"{source}: not a state dict: it must map names to tensors")
    return content


def first_line(error: BaseException) -> str:
    """An error's message, cut to its first line."""
    return (str(error).strip() or repr(error)).splitlines()[0]


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder to write files into; at the end they take their places in `folder`.

    Each replaces its predecessor in one step; after an error none of them appears.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as stage:
        yield Path(stage)
        for file in sorted(Path(stage).iterdir()):
            os.replace(file, folder / file.name)
