"""Fixtures that several test modules share."""

from pathlib import Path

import pytest
import torch

from taghead.data.synthetic import write_dataset

torch.set_num_threads(1)  # the tests' tensors are small: a second thread costs more than it gives


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of clips stays in the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated clips: 36 to train, 18 to validate, 18 to test, one at least of each class."""
    root = tmp_path_factory.mktemp("synthgym")
    write_dataset(root, splits={"train": 36, "val": 18, "test": 18}, num_workers=2, progress=False)
    return root
