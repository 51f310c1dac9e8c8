from dataclasses import replace

import pytest
from authors import small_backbone

from taghead.backbones import BACKBONES


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes a small backbone for R(2+1)D-34."""
    spec = replace(BACKBONES["r2plus1d_34"], build=small_backbone, features=lambda network: network)
    monkeypatch.setitem(BACKBONES, "r2plus1d_34", spec)
