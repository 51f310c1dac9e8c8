import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from stored import DESIGN, NULL, Tables, simulated, store

from taghead.cli import main


def test_the_command_writes_the_same_files_again(
    tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, predictions = tables
    first = store(tmp_path / "first", runs, predictions)
    null = store(tmp_path / "null", *simulated(NULL))
    (null / "notes.md").write_text("Words *by hand*.\n")
    intro = tmp_path / "intro.md"
    intro.write_text("# Ours\n\nWhat was asked | and why.\n")
    options = ["--intro", str(intro), "--num_draws=200", f"--output={tmp_path / 'a' / 'R.md'}"]
    main(["compare", str(first), str(null), *options])
    assert capsys.readouterr().out == f"2 sweeps. Written to {tmp_path / 'a' / 'R.md'}\n"
    # the same rows in another order
    store(first, runs.sample(frac=1, random_state=1), predictions.iloc[::-1])
    options[-1] = f"--output={tmp_path / 'b' / 'R.md'}"
    main(["compare", str(first), str(null), *options])
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 + 3 + 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file

    text = (tmp_path / "a" / "R.md").read_text()
    assert text.startswith("# Ours\n\nWhat was asked | and why.\n\n## operators\n")
    assert "\n\nWords *by hand*.\n\n" in text
    assert "## How the numbers are made" in text
    assert all(run in text for run in runs["run"])
    for name in re.findall(r"\]\((figures/.*?)\)", text):
        assert (tmp_path / "a" / name).stat().st_size < 200_000
        with Image.open(tmp_path / "a" / name) as picture:
            assert min(picture.size) > 300
    numbers = pd.read_csv(tmp_path / "a" / "configurations.csv")
    assert len(numbers) == len(DESIGN) + len(NULL)
    for _, row in numbers[: len(DESIGN)].iterrows():
        own = runs[runs["run"].isin(row["runs"].split())]
        assert row["top1"] == pytest.approx(own["top1"].mean())
        if not row["control"]:
            control = runs[runs["run"].isin(row["control_runs"].split())]
            assert row["difference"] == pytest.approx(own["top1"].mean() - control["top1"].mean())
            assert row["low"] < row["difference"] < row["high"]


def test_the_command_imports_neither_torch_nor_a_model(tmp_path: Path) -> None:
    store(tmp_path, *simulated(NULL))
    code = (
        "import sys; from taghead.compare.command import compare_runs; "
        f"compare_runs([{str(tmp_path)!r}], num_draws=10); "
        "assert not {'torch', 'lightning', 'taghead.model'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "RESULTS.md").is_file()


def test_errors_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="output must be given with several folders"):
        main(["compare", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit, match="no such folder"):
        main(["compare", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="num_draws must be a positive integer"):
        main(["compare", str(tmp_path), "--num_draws=0"])
