"""Parts of a head by command line alone: each trained, tested, resumed and predicted with."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from taghead.cli import main

MODULE = '''
import torch
from torch_geometric.nn import MaxAggregation

from taghead.nn.readout import Readout


def ring(grid):
    nodes = torch.arange(grid.num_nodes)
    return torch.stack([nodes.roll(1), nodes])


class Skip:
    """Edges from so many frames before."""

    def __init__(self, frames: int = 1) -> None:
        self.frames = frames

    def __call__(self, grid):
        target = torch.arange(self.frames * grid.num_positions, grid.num_nodes)
        return torch.stack([target - self.frames * grid.num_positions, target])


class Largest(Readout):
    """The maximum over all tokens, times a factor."""

    def __init__(self, channels: int, factor: float = 1.0) -> None:
        super().__init__(channels)
        self.factor = factor

    def forward(self, x):
        return self.factor * x.flatten(1, 2).amax(dim=1)


class Bottleneck(torch.nn.Module):
    """An operator between two linear layers."""

    def __init__(self, in_channels: int, out_channels: int, conv=None, width: int = 8) -> None:
        super().__init__()
        self.down = torch.nn.Linear(in_channels, width)
        self.conv = conv(width, width)
        self.up = torch.nn.Linear(width, out_channels)

    def forward(self, x, edge_index):
        return self.up(self.conv(self.down(x), edge_index))
'''
HEAD = "--model.head."
THINGS = {
    "RGCNConv without a number": ["conv=RGCNConv", "mode=edge_type"],
    "PNAConv": ["conv=PNAConv", "conv.aggregators=[mean, max]", "conv.scalers=[identity]"],
    "GINConv with an own MLP": [
        *("conv=GINConv", "conv.nn=torch_geometric.nn.MLP", "conv.nn.hidden_channels=8"),
        *("conv.nn.num_layers=2", "conv.nn.norm=null"),
    ],
    "GPSConv": [
        *("conv=GPSConv", "conv.heads=2", "conv.conv=torch_geometric.nn.GATv2Conv"),
        "conv.conv.heads=2",
    ],
    "an operator for each relation": [
        *("conv.intra_frame=GATv2Conv", "conv.intra_frame.heads=2"),
        *("conv.past=SAGEConv", "conv.future=SAGEConv"),
    ],
    "JumpingKnowledge": ["graph_layers=2", "jumping_knowledge=lstm"],
    "GraphNorm": ["graph_norm_layer=GraphNorm", "graph_feed_forward=16"],
    "frame_sequence with a temporal convolution": [
        *("readout=temporal_conv", "readout.layers=2", "readout.kernel=5", "readout.width=8"),
        "readout.pool=sequence",
    ],
    "Set2Set": ["readout=torch_geometric.nn.Set2Set", "readout.processing_steps=2"],
    "relations of one's own": [
        "relations=[intra_frame, own_a18.ring, {name: back, class_path: own_a18.Skip, "
        "init_args: {frames: 2}}]"
    ],
    "a relative-position bias": [
        *("conv=taghead.operators.BiasedTransformerConv", "conv.heads=2"),
        *("edge_features=relative", "edge_features.channels=4", "engine=dense"),
    ],
    "learned rows of relations, an encoding of the graph": [
        *("edge_features=relation", "positions=laplacian", "positions.size=4"),
    ],
    "learned edges": [
        "relations=[intra_frame, {name: similar, class_path: taghead.graph.TopKEdges, "
        "init_args: {k: 3}}]",
    ],
    "a readout of one's own": ["readout=own_a18.Largest", "readout.factor=0.5"],
    "a module as an option": ["conv=ResGatedGraphConv", "conv.act=torch.nn.Tanh"],
    "a block of one's own": ["conv=own_a18.Bottleneck", "conv.conv=torch_geometric.nn.SAGEConv"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_a18.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("thing", THINGS)
def test_a_part_by_command_line_alone(
    dataset: Path, folder: Path, capsys: pytest.CaptureFixture[str], thing: str
) -> None:
    args = [
        *("--data=taghead.data.SynthGym", f"--data.root={dataset}", "--modules=own_a18"),
        *("--data.num_train=36", "--data.num_val=18", "--data.num_test=18", "--data.batch_size=9"),
        *("--data.num_workers=0", "--model.backbone=r2plus1d_tiny", "--model.freeze_backbone=true"),
        *("--data.preprocessing.num_frames=8", "--data.preprocessing.resize=32"),
        *("--data.preprocessing.crop=32", f"{HEAD}channels=16", "--trainer.accelerator=cpu"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
        *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"),
        *("--trainer.limit_test_batches=1", "--trainer.default_root_dir=runs"),
        "--trainer.callbacks=taghead.training.LastCheckpoint",
        *(f"{HEAD}{option}" for option in THINGS[thing]),
    ]
    main(["fit", *args, "--trainer.max_epochs=1"])
    run = folder / "runs/version_0"
    last = run / "checkpoints/last.ckpt"
    modules = "--modules=own_a18"
    config = f"--config={run / 'config.yaml'}"
    main(["test", config, modules, f"--ckpt_path={last}"])
    main(["fit", config, modules, "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert torch.load(last, weights_only=True)["global_step"] == 4
    capsys.readouterr()
    clip = str(next((dataset / "videos").rglob("*.mp4")))
    main(["predict", clip, "--model", str(last), modules])
    assert "%" in capsys.readouterr().out


def test_a_fresh_process_needs_the_modules_of_a_models_parts(dataset: Path, folder: Path) -> None:
    script = (
        "from taghead import TAGHead, VideoClassifier\n"
        "from taghead.backbones import build_backbone\n"
        "from taghead.class_paths import allow_modules\n"
        "from taghead.video import Preprocessing\n"
        "allow_modules(['own_a18'])\n"
        "import own_a18\n"
        "backbone = build_backbone('r2plus1d_tiny')\n"
        "head = TAGHead(backbone.channels, 3, (2, 4, 4), channels=8, readout=own_a18.Largest,\n"
        "    relations=['intra_frame', own_a18.ring])\n"
        "model = VideoClassifier(backbone, head, preprocessing=Preprocessing(8, 36, 32))\n"
        "model.save_pretrained('model')\n"
    )
    command = [sys.executable, "-W", "ignore", "-c"]
    subprocess.run([*command, script], check=True, cwd=folder)
    load = "from taghead.cli import main; import sys; main(sys.argv[1:])"
    clip = str(next((dataset / "videos").rglob("*.mp4")))
    predict = [*command, load, "predict", clip, "--model=model"]
    alone = subprocess.run(predict, cwd=folder, capture_output=True, text=True, check=False)
    assert alone.returncode == 1
    assert "own_a18.ring is not allowed" in alone.stderr or "own_a18.Largest is not" in alone.stderr
    assert alone.stderr.count("\n") <= 3
    named = subprocess.run([*predict, "--modules=own_a18"], cwd=folder, check=False)
    assert named.returncode == 0
