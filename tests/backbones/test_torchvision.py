import torch
from torchvision.models import video
from torchvision.models.video.mvit import MSBlockConfig

from taghead.backbones import (
    BACKBONES,
)


def test_mvit_gives_its_tokens_without_the_class_token() -> None:
    blocks = [
        MSBlockConfig(1, 96, 192, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 4, 4]),
        MSBlockConfig(2, 192, 192, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 2, 2]),
    ]
    model = video.MViT((64, 64), 6, blocks, True, False, True, True).eval()
    features = BACKBONES["mvit_v2_s"].features(model)
    tokens = []
    model.norm.register_forward_hook(lambda *call: tokens.append(call[2]))
    clip = torch.randn(1, 3, 6, 64, 64)
    with torch.no_grad():
        feature_map = features(clip)
        model(clip)
    assert feature_map.shape == (1, 192, 3, 8, 8)
    assert tokens[1].shape == (1, 1 + 3 * 8 * 8, 192)
    assert torch.equal(feature_map.flatten(2).transpose(1, 2), tokens[1][:, 1:])
