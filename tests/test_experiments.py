import sys
from pathlib import Path

import pytest

from taghead.cli import main

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").rglob("*.yaml"))


@pytest.mark.parametrize("config", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_takes_a_step(
    config: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    main(
        [
            "fit",
            f"--config={config}",
            "--trainer.fast_dev_run=1",
            "--trainer.accelerator=cpu",
            f"--data.root={dataset}",
            "--data.num_train=36",
            "--data.num_val=18",
            "--data.num_test=18",
            "--data.num_workers=0",
            "--data.batch_size=2",
        ]
    )
