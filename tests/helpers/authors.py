"""The paper's model as its authors run it, and the checkpoints that they would save."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import APPNP, global_mean_pool
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from taghead.backbones import BACKBONES
from taghead.model.released import Preset

PRESETS: dict[Preset, tuple[int, int, int]] = {  # classes, frames of the grid, feed-forward
    "haa500": (500, 4, 512),
    "gym99": (99, 8, 1024),
    "gym288": (288, 8, 2048),
}


def reference_edges(frames: int) -> Tensor:
    """Every pair of positions of a frame, and each position with itself one frame on and back."""
    edges = []
    for t in range(frames):
        nodes = range(t * 49, t * 49 + 49)
        edges += [(i, j) for i in nodes for j in nodes if i != j]
        if t + 1 < frames:
            edges += [pair for i in nodes for pair in ((i, i + 49), (i + 49, i))]
    return torch.tensor(edges).t()


class Reference(nn.Module):
    """The paper's model as described in the paper, run on batches as in PyG's tutorials."""

    def __init__(self, backbone: nn.Module, preset: Preset) -> None:
        super().__init__()
        classes, frames, feedforward = PRESETS[preset]
        self.backbone = backbone
        self.pos_embedding = nn.Parameter(torch.randn(1, frames * 49, 512))
        layer = nn.TransformerEncoderLayer(512, 8, feedforward, 0.5, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.propagate = APPNP(K=2, alpha=0.1)
        self.classifier = nn.Sequential(nn.LayerNorm(512), nn.Linear(512, classes))
        self.register_buffer("edge_index", reference_edges(frames))

    def forward(self, clip: Tensor) -> Tensor:
        x = self.backbone(clip)
        x = x.permute(0, 2, 3, 4, 1).reshape(len(x), -1, 512)
        x = self.transformer(x + self.pos_embedding)
        graphs = Batch.from_data_list([Data(x=nodes, edge_index=self.edge_index) for nodes in x])
        nodes = self.propagate(graphs.x, graphs.edge_index)
        return self.classifier(global_mean_pool(nodes, graphs.batch))


def r2plus1d_34() -> nn.Sequential:
    """R(2+1)D-34 with the layers of the IG-65M weights."""
    net = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem)
    net.layer2[0].conv2[0] = Conv2Plus1D(128, 128, 288)
    net.layer3[0].conv2[0] = Conv2Plus1D(256, 256, 576)
    net.layer4[0].conv2[0] = Conv2Plus1D(512, 512, 1152)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps, module.momentum = 1e-3, 0.9
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)


def small_backbone() -> nn.Sequential:
    """Feature maps of the same sizes at a thousandth of the cost."""
    stem = nn.Conv3d(3, 16, (8, 16, 16), (8, 16, 16))
    return nn.Sequential(stem, nn.Sequential(nn.Conv3d(16, 512, 1), nn.BatchNorm3d(512)))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces R(2+1)D-34 by a small backbone."""
    spec = replace(BACKBONES["r2plus1d_34"], build=small_backbone, features=lambda network: network)
    monkeypatch.setitem(BACKBONES, "r2plus1d_34", spec)


def randomise(module: nn.Module) -> None:
    """Random norms and biases, so that a missing one changes the output."""
    for name, parameter in module.named_parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, *((0.5, 1.5) if name.endswith("weight") else (-0.2, 0.2)))


def released(
    reference: Reference,
    family: Literal["backbone", "csnmodel"] = "backbone",
    nested: bool = False,
    edges: bool = True,
) -> dict[str, Any]:
    """The content of a released file."""
    state = reference.state_dict()
    if not edges:
        del state["edge_index"]
    if family == "csnmodel":
        names = {"backbone.": "csnmodel.", "classifier.": "mlp_head."}
        state = {
            next(
                (new + k.removeprefix(old) for old, new in names.items() if k.startswith(old)), k
            ): v
            for k, v in state.items()
        }
    if nested:
        return {"epoch": 3, "model_state_dict": state, "best_acc": 95.6}
    return dict(state)


def reference(preset: Preset, backbone: Callable[[], nn.Module] = small_backbone) -> Reference:
    model = Reference(backbone(), preset).eval()
    randomise(model)
    return model


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "boom")
