import pytest
import torch

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.model.costs import MODEL_PARTS, model_costs

CLIP = torch.randn(1, 3, 8, 32, 32)


def model(**options: object) -> VideoClassifier:
    backbone = build_backbone("r2plus1d_tiny")
    head = TAGHead(backbone.channels, 5, backbone.grid(8, 32), encoder_layers=1, **options)
    return VideoClassifier(backbone, head)


def test_parts_add_up() -> None:
    costs = model_costs(model(), CLIP, runs=2)
    assert [part.part for part in costs] == list(MODEL_PARTS)
    backbone, head, messages, both = costs
    assert both.parameters == backbone.parameters + head.parameters
    assert both.flops == backbone.flops + head.flops
    assert 0 < messages.flops < head.flops
    assert 0 < messages.parameters < head.parameters
    for part in costs:
        assert 0 < part.latency.median <= part.latency.p95
        assert part.peak_bytes > 0
    assert both.peak_bytes >= backbone.peak_bytes


def test_batch_multiplies_the_arithmetic() -> None:
    network = model()
    one, three = (
        model_costs(network, clip, runs=1) for clip in (CLIP, CLIP.expand(3, -1, -1, -1, -1))
    )
    assert three[0].flops == 3 * one[0].flops
    # GATv2 scales its weights once a batch
    assert three[1].flops == pytest.approx(3 * one[1].flops, rel=1e-3)


def test_no_graph_passes_no_messages() -> None:
    messages = model_costs(model(mode="none"), CLIP, runs=1)[2]
    assert (messages.flops, messages.parameters) == (0, 0)


def test_mixed_precision_takes_less_memory() -> None:
    full, mixed = (model_costs(model(), CLIP, precision, 1) for precision in ("32", "bf16-mixed"))
    assert mixed[0].flops == full[0].flops
    assert mixed[1].peak_bytes != full[1].peak_bytes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "8"}, "precision must be one of .* \\(got '8'\\)"),
        ({"runs": 0}, "runs must be a positive integer \\(got 0\\)"),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_costs(model(), CLIP, **options)
