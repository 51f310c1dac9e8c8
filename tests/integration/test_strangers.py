"""A stranger's file names code or an address: nothing of it runs, is imported or is fetched."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HELPER = Path(__file__).parents[1] / "helpers/strangers.py"


@pytest.fixture(scope="module")
def found(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How each variant ended, and what the audit hook noted meanwhile."""
    folder = tmp_path_factory.mktemp("strangers")
    command = [sys.executable, str(HELPER), str(dataset)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["model_files", "training", "caches", "configs", "stores"])
def test_nothing_of_it_runs(found: dict[str, Any], kind: str) -> None:
    noted = {name: seen for name, (_, seen) in found[kind].items() if seen}
    assert not noted


@pytest.mark.parametrize("kind", ["model_files", "training", "caches", "configs", "stores"])
def test_it_is_refused_or_left_alone(found: dict[str, Any], kind: str) -> None:
    for name, (end, _) in found[kind].items():
        if name.startswith("used "):  # weights are data, whatever stands beside them
            assert end.startswith("done"), (name, end)
        else:
            assert not end.startswith("done"), name


def test_there_are_enough_variants_and_the_hook_sees_each(found: dict[str, Any]) -> None:
    assert sum(len(variants) for variants in found.values()) > 200
    assert all(seen for _, seen in found["controls"].values()), found["controls"]
