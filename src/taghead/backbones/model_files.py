"""Files of a model in a folder or on the Hugging Face hub: config, preprocessing, safetensors."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from taghead.errors import DataError, first_line
from taghead.files import parse_json
from taghead.video.preprocessing import Preprocessing

log = logging.getLogger(__name__)

PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")
INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
ON_THE_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")
BICUBIC = 3  # Pillow's number


def find_folder(name: str, with_weights: bool) -> Path:
    """The folder of a model: a local one, or else the hub's, of which known files are fetched.

    Args:
        name: A folder, or a model of the hub, with `@` and a revision to pin it.
        with_weights: Whether its weights are fetched too.

    Raises:
        DataError: If there is neither.
    """
    if name and Path(name).is_dir():
        return Path(name)
    if not ON_THE_HUB.fullmatch(name) or name.startswith("."):
        raise DataError(f"{name}: no such folder, and no name of a model on the hub")
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    files = ["config.json", *PROCESSORS, *([INDEX, "*.safetensors"] if with_weights else [])]
    try:
        folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=files))
    except (ValueError, OSError) as error:  # of the hub's client, offline too
        raise DataError(
            f"{name}: no such folder, and no such model on the hub: {first_line(error)}"
        ) from error
    if folder.name != revision:
        commit = folder.name  # of the client's cache
        log.warning("%s: commit %s of the hub; %s@%s pins it", repo, commit, repo, commit)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file.

    Raises:
        DataError: If it is missing, or holds no object.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold an object (got a {type(content).__name__})")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict of a folder, in one file of safetensors or in several.

    Raises:
        DataError: If a file is missing, damaged or outside the folder.
    """
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        table = read_json(folder / INDEX).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(n, str) for n in table.values()):
            raise DataError(f"{folder / INDEX}: must map names of weights to files")
        names = sorted(set(table.values()))
    state: dict[str, Tensor] = {}
    for name in names:
        path = folder / name
        if Path(name).name != name or not path.is_file():
            hint = "; only safetensors are read" if name == WEIGHTS else ""
            raise DataError(f"{path}: no such file in the model's folder{hint}")
        try:
            state.update(load_file(path))
        except Exception as error:  # safetensors raises types of its own
            raise DataError(f"{path}: not a file of safetensors: {first_line(error)}") from error
    return state


def preprocessing_of(folder: Path, usual: Preprocessing, is_fixed: bool) -> Preprocessing:
    """The preprocessing that a folder states, for square clips.

    Args:
        folder: The model's folder.
        usual: The preprocessing of what the folder does not state.
        is_fixed: Whether the network takes no other size than that of `usual`.

    Raises:
        DataError: If its file is damaged.
    """
    path = next((folder / name for name in PROCESSORS if (folder / name).is_file()), None)
    if path is None:
        return usual
    stated = read_json(path)
    try:
        resize = _length(stated.get("size"), usual.resize)
        crop = usual.crop
        if not is_fixed:
            crops = stated.get("do_center_crop", "crop_size" in stated)
            crop = _length(stated.get("crop_size") if crops else None, resize)
        mean, std = _statistics(stated, usual)
        return replace(
            usual,
            resize=max(resize, crop),
            crop=crop,
            mean=mean,
            std=std,
            interpolation="bicubic" if stated.get("resample") == BICUBIC else "bilinear",
        )
    except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError) as error:
        raise DataError(f"{path}: not a preprocessing of images: {first_line(error)}") from error


def _length(size: Any, usual: int) -> int:
    """The shorter side of a size as `transformers` writes it."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or min(size["height"], size["width"])
    return usual if size is None else int(size)


def _statistics(stated: dict[str, Any], usual: Preprocessing) -> tuple[Any, Any]:
    """Mean and std in 0..1: pixels are scaled, shifted by -1 if `offset`, and normalised."""
    scale = 255 * stated.get("rescale_factor", 1 / 255) if stated.get("do_rescale", True) else 255
    shift = 1.0 if stated.get("offset") else 0.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if stated.get("do_normalize", True):
        mean = stated.get("image_mean", usual.mean)
        std = stated.get("image_std", usual.std)
    return tuple((shift + m) / scale for m in mean), tuple(s / scale for s in std)
