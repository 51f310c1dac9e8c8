"""Models of others: sizes that their weights do not have, and pipes, are refused at once."""

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.errors import DataError
from taghead.model.pretrained import load_model, save_checkpoint
from taghead.video import Preprocessing


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> VideoClassifier:
    backbone = build_backbone("r2plus1d_tiny")
    head = TAGHead(
        backbone.channels,
        3,
        backbone.grid(8, 32),
        encoder_layers=2,
        encoder_heads=2,
        graph_layers=2,
    )
    return VideoClassifier(backbone, head, None, Preprocessing(8, 32, 32)).eval()


SIZES: list[tuple[str, dict[str, Any], str]] = [
    ("head", {"graph_layers": 10**6}, "head.graph_layers is 1000000, and no tensor"),
    ("head", {"graph_layers": 900}, "head.graph_layers is 900, and the weights have 2"),
    ("head", {"encoder_layers": 10**6}, "head.encoder_layers is 1000000, and no tensor"),
    ("head", {"encoder_layers": 1}, "head.encoder_layers is 1, and the weights have 2"),
    ("head", {"encoder_heads": 10**9}, "head.encoder_heads is 1000000000, and no tensor"),
    ("head", {"encoder_channels": 10**9}, "head.encoder_channels is 1000000000, and no tensor"),
    (
        "head",
        {"encoder_channels": 2048},
        "layers.0.linear1.weight is [2048, 128] by it, and ",
    ),
    ("head", {"channels": 10**9}, "head.channels is 1000000000, and no tensor"),
    ("head", {"channels": 4096}, "is [4096, 128] by it"),
    ("head", {"num_classes": 10**9}, "head.num_classes is 1000000000, and no tensor"),
    (
        "head",
        {"num_classes": 4000},
        "classifier.1.weight is [4000, 128] by it, and [3, ",
    ),
    ("head", {"in_channels": 10**9}, "head.in_channels is 1000000000, and no tensor"),
    ("head", {"grid": [10**6, 10**6, 10**6]}, "head.grid[0] is 1000000, and no tensor"),
    ("head", {"grid": [4000, 4000, 4000]}, "by it, and "),
    (
        "preprocessing",
        {"num_frames": 10**9},
        "preprocessing.num_frames is 1000000000, ",
    ),
    ("preprocessing", {"resize": 10**8}, "preprocessing.resize is 100000000, and no tensor"),
    (
        "preprocessing",
        {"test_clips": 10**8},
        "preprocessing.test_clips is 100000000, ",
    ),
]


@pytest.mark.parametrize(("part", "change", "message"), SIZES)
@pytest.mark.parametrize("form", ["folder", "model.ckpt"])
def test_sizes_that_the_weights_do_not_have(
    saved: VideoClassifier,
    part: str,
    change: dict[str, Any],
    message: str,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is built that takes memory."""
    path = tmp_path / form
    if form == "folder":
        saved.save_pretrained(path)
        config = json.loads((path / "config.json").read_text())
        config[part].update(change)
        (path / "config.json").write_text(json.dumps(config))
    else:
        save_checkpoint(saved, path)
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["video_classifier"][part].update(change)
        torch.save(checkpoint, path)
    build = VideoClassifier.from_config

    def without_memory(config: dict[str, Any]) -> VideoClassifier:
        assert torch.empty(1).is_meta
        return build(config)

    monkeypatch.setattr(VideoClassifier, "from_config", without_memory)
    with pytest.raises(DataError) as caught:
        load_model(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_ones_own_slip_in_a_number_of_layers() -> None:
    for name in ("graph_layers", "encoder_layers"):
        with pytest.raises(ValueError, match=rf"^{name} must be at most 1000 \(got 1000000\)$"):
            TAGHead(16, 3, (2, 2, 2), **{name: 10**6})


def special(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(path))
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.ckpt"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    saved: VideoClassifier, kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved.save_pretrained(tmp_path)
    special(tmp_path / name, kind)
    path = tmp_path / name if name == "model.ckpt" else tmp_path
    signal.alarm(60)  # ends the test run, which would wait for ever
    try:
        with pytest.raises(DataError, match=rf"^{tmp_path / name}: .*is not a regular file$"):
            load_model(path)
    finally:
        signal.alarm(0)


def test_a_config_of_gigabytes(saved: VideoClassifier, tmp_path: Path) -> None:
    saved.save_pretrained(tmp_path)
    with (tmp_path / "config.json").open("r+b") as file:
        file.truncate(5 * 2**30)
    with pytest.raises(DataError, match=r"config.json: .*has 5,368,709,120 bytes, more than the"):
        load_model(tmp_path)
