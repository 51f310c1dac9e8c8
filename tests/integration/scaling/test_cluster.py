"""The examples for clusters: scripts that parse, with options that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from taghead.cli import main

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "experiments" / "cluster"
SCRIPTS = sorted([*FOLDER.glob("*.sh"), *FOLDER.glob("*.sbatch")])


def options(script: Path) -> list[str]:
    """The arguments of `taghead fit` in a script, with numbers for its variables."""
    text = re.sub(r"\\\n\s*", " ", script.read_text())
    (line,) = re.findall(r"taghead fit (.*)", text)
    line = re.sub(r'"\$(gpus|nodes)"', "2", line).replace('"$@"', "")
    return line.split()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_names_what_there_is(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.read_text().startswith("#!/bin/bash\n")
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    with pytest.raises(SystemExit) as stop:
        main(["fit", *options(script), "--print_config"])
    assert stop.value.code in (0, None)
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["strategy"] == "ddp"
    assert config["ckpt_path"] == "last"
    callbacks = [callback["class_path"] for callback in config["trainer"]["callbacks"]]
    assert "taghead.training.LastCheckpoint" in callbacks


def test_a_job_has_a_process_for_each_gpu() -> None:
    text = (FOLDER / "slurm.sbatch").read_text()
    wanted = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, flags=re.MULTILINE))
    given = dict(
        option.split("=", 1) for option in options(FOLDER / "slurm.sbatch") if "=" in option
    )
    assert wanted["nodes"] == given["--trainer.num_nodes"]
    assert wanted["ntasks-per-node"] == wanted["gpus-per-node"] == given["--trainer.devices"]


def test_the_table_names_options_that_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = re.findall(r"`(--(?:trainer|model)\.[^`]*)`", (FOLDER / "README.md").read_text())
    given = [option for option in named if "=" in option]
    assert len(given) >= 9
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=experiments/modern.yaml", *given, "--print_config"])
    assert stop.value.code in (0, None)
    model = yaml.safe_load(capsys.readouterr().out)["model"]
    assert (model["recompute"], model["freeze_batch_norm"]) == (True, True)
