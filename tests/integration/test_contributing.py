"""What CONTRIBUTING shows works, and each addition is an edit of one file."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
CHECK = """
from pathlib import Path
import torch
import torch_geometric.nn as pyg
import taghead
from taghead import Grid, TAGHead
from taghead.backbones import build_backbone
from taghead.data import read_annotations
from taghead.graph import RELATIONS
from taghead.operators import propagate, supports

assert Path(taghead.__file__).is_relative_to(Path.cwd()), taghead.__file__

conv, grid = pyg.WLConvContinuous(), Grid(3, 2, 2)
x = torch.randn(2, grid.num_nodes, 4, dtype=torch.float64)
assert supports(conv)[0]
dense, edges = (propagate(conv, x, grid, RELATIONS, engine=e) for e in ("dense", "pyg"))
torch.testing.assert_close(dense, edges)

options = {"relations": ["intra_frame", "first_frame"], "conv": pyg.SAGEConv}
head = TAGHead(4, 3, grid, readout="max", **options).eval()
feature_map = torch.randn(2, 4, 3, 2, 2)
assert torch.equal(head.readout(feature_map.permute(0, 2, 3, 4, 1).flatten(2, 3)),
                   feature_map.flatten(2).amax(2))
assert head(feature_map).shape == (2, 3)
assert grid.edge_index("first_frame").tolist() == [[0, 1, 2, 3] * 2, list(range(4, 12))]
assert head.config()["relations"] == ["intra_frame", "first_frame"]

backbone = build_backbone("patches")
assert backbone(torch.randn(1, 3, 8, 32, 32)).shape == (1, 64, 2, 2, 2)

Path("videos").mkdir()
for name in ("run_1", "jump_1", "run_2"):
    Path(f"videos/{name}.mp4").touch()
Path("train.names").write_text("run_1 jump_1 run_2")
found = read_annotations(Path("videos"), "train.names")
assert found.format == "name_list"
assert [clip.class_name for clip in found.clips["train"]] == ["run", "jump", "run"]
"""


def test_each_addition_is_an_edit_of_one_file(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src" / "taghead",
        tmp_path / "src" / "taghead",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    files = [re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE) for diff in DIFFS]
    assert [len(found) for found in files] == [1] * 5
    for diff in DIFFS:
        command = ["git", "apply", "--recount", "--unidiff-zero", "-"]
        done = subprocess.run(
            command, cwd=tmp_path, input=diff, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{diff}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECK],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
