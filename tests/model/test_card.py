"""The model card that is saved with a model."""

from functools import partial
from pathlib import Path

from huggingface_hub import ModelCard
from torch_geometric.nn import GATv2Conv

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.video import Preprocessing


def model() -> VideoClassifier:
    backbone = build_backbone("r2plus1d_tiny")
    conv = partial(GATv2Conv, heads=2, concat=False, add_self_loops=False)
    head = TAGHead(backbone.channels, 3, backbone.grid(8, 32), encoder_layers=1, conv=conv)
    names, clips = ["blowing kisses", "007", "a|b"], Preprocessing(8, 32, 32)
    return VideoClassifier(backbone, head, names, clips, {"top1": 0.875}).eval()


def test_the_card_says_what_the_model_is(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    card = ModelCard(text)
    assert card.data.library_name == "taghead"
    assert card.data.pipeline_tag == "video-classification"
    for part in (
        "# Video classifier of 3 classes",
        "VideoClassifier.from_pretrained(",
        "| backbone | r2plus1d_tiny |",
        "GATv2Conv(heads=2, concat=False, add_self_loops=False",
        "| crop | 32 |",
        "| top1 | 0.875 |",
        "0 blowing kisses\n1 007\n2 a|b",
    ):
        assert part in text, part


def test_a_card_of_ones_own_stays(tmp_path: Path) -> None:
    one = model()
    one.save_pretrained(tmp_path)
    one.metrics = {"top1": 0.9}
    one.save_pretrained(tmp_path)
    assert "| top1 | 0.9 |" in (tmp_path / "README.md").read_text()  # it was the generated one
    (tmp_path / "README.md").write_text("# Mine\n")
    one.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine\n"
