from pathlib import Path

import pandas as pd
import pytest

from taghead.cli import main
from taghead.model.costs import MODEL_PARTS


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "costs" / "models.csv"
    options = ["--num_frames=8", "--size=32", "--runs=1", "--head.mode=none", f"--output={output}"]
    main(["bench", "model", "r2plus1d_tiny", "r2plus1d_18", *options])
    table = pd.read_csv(output)
    assert list(table["part"]) == [*MODEL_PARTS, "head's share (%)"] * 2
    assert set(table["clips"]) == {"1x8x32x32"}
    printed = capsys.readouterr().out
    assert "r2plus1d_18, clips 1x8x32x32" in printed
    share = table[(table["model"] == "r2plus1d_18") & (table["part"] == "head's share (%)")]
    parts = table[table["model"] == "r2plus1d_18"].set_index("part")["GFLOP"]
    expected = 100 * parts["head"] / parts["whole model"]
    assert share["GFLOP"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["r2plus1d_tini"], "backbone must be one of"),
        (["r2plus1d_tiny", "--size=0"], "size must be a positive integer \\(got 0\\)"),
        (["mvit_v1_b", "--size=32"], "clips must be 16x224x224"),
    ],
)
def test_command_refuses(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["bench", "model", *arguments])
