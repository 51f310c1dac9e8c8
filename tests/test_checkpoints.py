"""The paper's released files, made here with random weights, and the authors' forward."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import APPNP, global_mean_pool
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from taghead import VideoClassifier
from taghead.checkpoints import Preset
from taghead.video import Preprocessing

PRESETS: dict[Preset, tuple[int, int, int]] = {  # classes, frames of the grid, feed-forward
    "haa500": (500, 4, 512),
    "gym99": (99, 8, 1024),
    "gym288": (288, 8, 2048),
}
State = dict[str, Tensor]


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
    """The paper's model, as its description has it, run the way PyG's tutorials run a batch."""

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


def reference_backbone(layers: list[int]) -> nn.Sequential:
    """R(2+1)D with widths and norms of the IG-65M weights; 3-4-6-3 blocks make it R(2+1)D-34."""
    net = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, layers, R2Plus1dStem)
    net.layer2[0].conv2[0] = Conv2Plus1D(128, 128, 288)
    net.layer3[0].conv2[0] = Conv2Plus1D(256, 256, 576)
    net.layer4[0].conv2[0] = Conv2Plus1D(512, 512, 1152)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps, module.momentum = 1e-3, 0.9
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)


def randomise(module: nn.Module) -> None:
    """Norms and biases too, so that none of them could be left out unseen."""
    for name, parameter in module.named_parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, *((0.5, 1.5) if name.endswith("weight") else (-0.2, 0.2)))


def released(
    reference: Reference,
    family: Literal["backbone", "csnmodel"] = "backbone",
    nested: bool = False,
    edges: bool = True,
) -> dict[str, Any]:
    """What the authors' `torch.save` would have been given."""
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


@pytest.fixture(scope="module")
def real_backbone() -> nn.Sequential:
    torch.manual_seed(1)
    backbone = reference_backbone([3, 4, 6, 3])
    randomise(backbone)
    return backbone


@pytest.mark.parametrize(
    ("preset", "family", "nested", "edges"),
    [
        ("haa500", "backbone", False, True),
        ("gym99", "csnmodel", True, False),
        ("gym288", "backbone", True, False),
    ],
)
def test_logits_are_those_of_the_authors_model(
    tmp_path: Path,
    real_backbone: nn.Sequential,
    preset: Preset,
    family: Literal["backbone", "csnmodel"],
    nested: bool,
    edges: bool,
) -> None:
    reference = Reference(real_backbone, preset).eval()
    randomise(reference.transformer)
    randomise(reference.classifier)
    torch.save(released(reference, family, nested, edges), tmp_path / "released.pth")
    model = VideoClassifier.from_reference(tmp_path / "released.pth", preset)
    assert not model.training
    assert model.preprocessing == Preprocessing(
        32 if preset == "haa500" else 64, 128, 112, (0.45,) * 3, (0.225,) * 3
    )
    assert model.backbone.name == "r2plus1d_34"
    clip = torch.randn(1, 3, model.preprocessing.num_frames, 112, 112)
    with torch.no_grad():
        # the feature maps differ by rounding alone; the head is compared on two of the same
        theirs, ours = reference.backbone(clip), model.backbone(clip)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(clip), reference(clip), rtol=0, atol=1e-5)
