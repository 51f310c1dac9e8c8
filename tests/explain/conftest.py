import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from numbered import write_video
from tiny import make_model

from taghead.cli import main


class Explained(NamedTuple):
    """What `taghead explain` wrote for one clip."""

    folder: Path
    clip: Path
    model: Path
    numbers: dict[str, Any]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty numbered frames, 120 pixels high and 160 wide, in a file with a hostile name."""
    folder = tmp_path_factory.mktemp("clips")
    return write_video(folder / "<script>alert(0)<|script>.mp4", 40)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def explained(clip: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Explained:
    folder = tmp_path_factory.mktemp("explained")
    options = ["--draws=2", "--edges=4", "--modules=[tiny]", "--device=cpu"]
    main(["explain", os.fspath(clip), f"--model={model}", f"--output={folder}", *options])
    numbers = json.loads((folder / "attention.json").read_text(encoding="utf-8"))
    return Explained(folder, clip, model, numbers)
