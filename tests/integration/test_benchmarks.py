import re
import subprocess
import sys
import tempfile
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, output: Path, *options: str) -> str:
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--output", str(output)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (output / "RESULTS.md").read_text()


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (\S.*?) \|", text, flags=re.MULTILINE)


def test_operators(tmp_path: Path) -> None:
    names = ["APPNP", "SAGEConv max", "GATv2Conv"]
    text = run("operators.py", tmp_path, "--operators", *names)
    cells = first_cells(text)
    # twice in the comparison, once a grid in the growth
    assert all(cells.count(name) >= 4 for name in names)
    assert cells.count("TransformerConv, relative") == 1
    assert "torch-scatter" in text
    assert (tmp_path / "growth.png").stat().st_size > 0


def test_head_beside_other_results(tmp_path: Path) -> None:
    other = "<!-- operators -->\nas before\n<!-- end of operators -->\n"
    (tmp_path / "RESULTS.md").write_text(other)
    for _ in range(2):
        text = run("head.py", tmp_path)
    cells = first_cells(text)
    for title in ("whole head", "graph stage"):
        assert cells.count(f"{title}, forward") == 1
        assert cells.count(f"{title}, forward and backward") == 1
    assert other in text


def test_features(tmp_path: Path) -> None:
    assert first_cells(run("features.py", tmp_path)).count("r2plus1d_tiny") == 1


def test_decode(tmp_path: Path) -> None:
    text = run("decode.py", tmp_path)
    assert sum(cell.startswith("32 ") for cell in first_cells(text)) == 4
    assert "| pyav: ms | auto | PyAV in order | decord |" in text
    text = run("decode.py", tmp_path, "--opens", "10")
    assert {"pyav", "decord"} <= set(first_cells(text))


def test_two_revisions() -> None:
    script = BENCHMARKS / "compare_revisions.py"
    options = [
        "--turns=1",
        "--processes=1",
        "--operators",
        "LGConv",
        "--batch_size=1",
        "--channels=16",
    ]
    done = subprocess.run(
        [sys.executable, str(script), "HEAD", "HEAD", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    cells = first_cells(done.stdout)
    wanted = {"import taghead", "LGConv, forward", "LGConv, training", "paper's head, training"}
    assert wanted <= set(cells), done.stderr
    assert "Preprocessing.load, test" in cells
    assert "9 cases" in done.stdout
    listed = subprocess.run(
        ["git", "-C", str(BENCHMARKS), "worktree", "list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert tempfile.gettempdir() + "/tmp" not in listed.stdout  # both worktrees are removed
