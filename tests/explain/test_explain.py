"""`taghead explain`: its numbers beside the head's and PyG's own, its files, its errors."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch_geometric.nn as pyg
from numbered import number_of, write_video
from tiny import CLASSES, GRID, HOSTILE, make_model
from torch import Tensor

from taghead.cli import main
from taghead.errors import VideoError
from taghead.explain import explain_clip, load_view
from taghead.explain.clip_explanation import _stride
from taghead.explain.overlay import write_overlay
from taghead.explain.selection import Selection
from taghead.graph import Grid, custom
from taghead.inference.predictor import predict_videos
from taghead.model.pretrained import load_model
from taghead.video import Preprocessing

LAST_DIGIT = 6e-7  # the JSON has six decimals


def test_the_numbers_are_the_heads_own(explained: Any) -> None:
    model = load_model(explained.model)
    clip = model.preprocessing.load(explained.clip)
    with torch.no_grad():
        logits, attention = model.head(model.backbone(clip.unsqueeze(0)), return_attention=True)
    numbers = explained.numbers
    assert len(numbers["layers"]) == 2
    for i, layer in enumerate(numbers["layers"]):
        assert list(layer["relations"]) == [relation.name for relation in model.head.relations]
        for name, edges in layer["relations"].items():
            edge_index = attention.edge_index(i, name)
            assert [edges["source"], edges["target"]] == edge_index.tolist()
            weights = torch.tensor(edges["weights"]).T
            assert_near(weights, attention.weights(i, name))
            entropy = torch.from_numpy(np.array(edges["entropy"], dtype=float))  # null: no choice
            assert_near(entropy, attention.entropy(i, name)[0])
    assert_near(torch.tensor(numbers["rollout"]), attention.rollout()[0])
    shares = [row["share"] for row in numbers["flow"]]
    assert shares == pytest.approx(attention.flow().share.tolist(), abs=LAST_DIGIT)
    strongest = attention.strongest(50)
    assert [row["source"] for row in numbers["strongest"]] == strongest.source.tolist()
    found = {one["class"]: one["probability"] for one in numbers["classes"]}
    assert_near(torch.tensor([found[name] for name in CLASSES]), logits[0].softmax(0))


def test_the_numbers_are_pygs_own(explained: Any) -> None:
    """The first layer's, of an operator called by hand."""
    model = load_model(explained.model)
    clip = model.preprocessing.load(explained.clip)
    layer = model.head.layers[0]
    with torch.no_grad():
        x = layer.pre_norm(model.head.encode(model.backbone(clip.unsqueeze(0))))[0]
        for relation in model.head.relations:
            edge_index = GRID.edge_index(relation)
            conv = layer.convs.convs[relation]
            _, (edges, alpha) = conv(x, edge_index, return_attention_weights=True)
            told = explained.numbers["layers"][0]["relations"][relation.name]
            assert [told["source"], told["target"]] == edges.tolist()
            assert_near(torch.tensor(told["weights"]).T, alpha)


def test_the_classes_are_those_of_predict(explained: Any) -> None:
    (prediction,) = predict_videos(load_model(explained.model), [explained.clip], top=5)
    told = [(one["class"], one["probability"]) for one in explained.numbers["classes"]]
    assert [name for name, _ in told] == [name for name, _ in prediction.classes]
    expected = [probability for _, probability in prediction.classes]
    assert [probability for _, probability in told] == pytest.approx(expected, abs=LAST_DIGIT)
    assert explained.numbers["predicted"] == explained.numbers["target"] == told[0][0]


def test_the_frames_are_told_by_number_and_second(explained: Any) -> None:
    frames = explained.numbers["frames"]
    assert frames["index"] == np.linspace(0, 39, 32).astype(int).tolist()
    seconds = [index / 30 for index in frames["index"]]
    assert frames["seconds"] == pytest.approx(seconds, abs=LAST_DIGIT)
    assert frames["token_frame"] == [frame // 8 for frame in range(32)]


def test_a_ranking_is_backed_by_its_areas(explained: Any) -> None:
    curves = [row for row in explained.numbers["curves"] if row["curve"] == "deletion"]
    (area,) = [row for row in explained.numbers["areas"] if row["curve"] == "deletion"]
    fractions, ranked = zip(*[(row["fraction"], row["ranked"]) for row in curves], strict=True)
    assert area["ranked"] == pytest.approx(np.trapezoid(ranked, fractions), abs=1e-5)
    first = explained.numbers["classes"][0]["probability"]
    assert ranked[0] == pytest.approx(first, abs=1e-5)  # nothing is left out yet


def test_every_file_is_written(explained: Any) -> None:
    pictures = ("rollout", "saliency", "classes", "edges", "curves")
    names = {f"{name}.{ending}" for name in pictures for ending in ("png", "pdf")}
    names |= {"attention.json", "page.html", "overlay.mp4"}
    assert {path.name for path in explained.folder.iterdir()} == names
    assert (explained.folder / "page.html").stat().st_size < 5e6
    for path in explained.folder.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_the_video_plays_anywhere(explained: Any) -> None:
    with av.open(explained.folder / "overlay.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == stream.height % 2 == 0
        frames = list(container.decode(stream))
    assert len(frames) == 32
    length = explained.numbers["frames"]["seconds"][-1]
    assert float(frames[-1].pts * stream.time_base) == pytest.approx(length, rel=0.02)


def test_heat_lies_on_its_token_in_the_video(clip: Path, tmp_path: Path) -> None:
    model = make_model()
    found = explain_clip(model, load_view(clip, Preprocessing()), draws=0)
    rollout = torch.zeros(GRID.frames, GRID.height, GRID.width)
    rollout[2, 1, 5] = 1.0
    grey = np.full_like(found.clip.pictures, 128)
    bare = replace(found, rollout=rollout, clip=replace(found.clip, pictures=grey))
    write_overlay(bare, tmp_path / "overlay.mp4")
    with av.open(tmp_path / "overlay.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number, frame in enumerate(frames):
        side = frame.shape[1] // 2
        changed = np.abs(frame[: side - 8, side:].astype(int) - 128).max(-1)
        if number // 8 != 2:
            assert changed.max() < 12
            continue
        rows, columns = np.nonzero(changed > 0.8 * changed.max())
        assert (int(7 * rows.mean() / side), int(7 * columns.mean() / side)) == (1, 5)


@pytest.mark.parametrize("size", [(120, 160), (160, 120), (112, 300)])
@pytest.mark.parametrize("crops", [1, 3])
def test_pictures_show_what_the_model_sees(
    tmp_path: Path, size: tuple[int, int], crops: int
) -> None:
    path = write_video(tmp_path / "clip.mp4", 12, size=size)
    preprocessing = Preprocessing(num_frames=8, resize=64, crop=48, test_crops=crops)
    views = preprocessing.load_views(path)
    for view in range(crops):
        seen = load_view(path, preprocessing, view)
        assert torch.equal(seen.tensor, views[view])
        side = seen.pictures.shape[1]
        assert side == round(48 / 64 * min(size) / 2) * 2
        small = torch.from_numpy(seen.pictures.copy()).permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(small, size=48, mode="area")
        model_sees = (seen.tensor * 0.225 + 0.45).transpose(0, 1) * 255
        assert (small - model_sees).abs().mean() < 8
        moved = model_sees.roll(3, dims=3)  # three pixels off would be seen
        assert (small - model_sees).abs().mean() < 0.7 * (small - moved).abs().mean()


def test_views_in_time_have_their_own_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 24)
    whole = Preprocessing(num_frames=4, resize=120, crop=120, test_clips=3)
    for view in range(3):
        seen = load_view(path, whole, view)
        assert seen.indices.tolist() == np.linspace(0, 23, 12).astype(int)[view::3].tolist()
    wide = load_view(write_video(tmp_path / "square.mp4", 9, size=(120, 120)), whole, 1)
    assert [number_of(picture) for picture in wide.pictures] == wide.indices.tolist()


def ring(grid: Grid) -> Tensor:
    nodes = torch.arange(grid.num_nodes)
    return torch.stack([nodes, nodes.roll(-1)])


HEADS: dict[str, dict[str, Any]] = {
    "union with self-loops": {"mode": "union", "conv": partial(pyg.GATConv, heads=2, concat=False)},
    "custom relation": {"relations": (custom("ring", ring), "past(reach=2)")},
    "signed weights": {"conv": pyg.FAConv},
    "against the edges": {
        "conv": partial(pyg.TransformerConv, flow="target_to_source"),
        "relations": ("past", "spatial_window(radius=1)"),
    },
    "along motion": {"relations": ("intra_frame", "motion_aligned")},
    "no graph": {"mode": "none"},
    "no graph and no Transformer": {"mode": "none", "encoder_layers": 0},
}


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
def test_other_heads(options: dict[str, Any], clip: Path) -> None:
    model = make_model(**options)
    found = explain_clip(model, load_view(clip, Preprocessing()), 2, draws=2)
    numbers = json.loads(json.dumps(found.to_dict("somewhere"), allow_nan=False))
    assert numbers["target"] == "turn_left"
    assert sum(np.ravel(numbers["rollout"])) == pytest.approx(1, abs=1e-4)
    if not len(model.head.layers):
        assert (numbers["layers"], numbers["curves"], numbers["strongest"]) == ([], None, [])
        return
    node = 60
    told: list[tuple[str, int, float]] = []
    for name, edges in numbers["layers"][1]["relations"].items():
        weights = np.mean(edges["weights"], axis=0)
        for source, target, weight in zip(edges["source"], edges["target"], weights, strict=True):
            told += [(name, source, weight)] if target == node else []
    rows = found.attention.listens_to(node, layer=1)
    rows = rows[rows.relation != "self_loop"]
    expected = {(row.relation, row.source): row.weight for row in rows.itertuples()}
    assert {(name, source) for name, source, _ in told} == set(expected)
    for name, source, weight in told:
        assert weight == pytest.approx(expected[name, source], abs=LAST_DIGIT)


@pytest.mark.parametrize(
    ("stated", "frames", "tokens", "stride"),
    [(8, 32, 4, 8), (8, 30, 4, 8), (8, 30, 3, 8), (8, 30, 5, 6)],
)
def test_frames_of_a_token(stated: int, frames: int, tokens: int, stride: int) -> None:
    assert _stride(stated, frames, tokens) == stride


def test_several_clips(
    explained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], clip: Path
) -> None:
    twin = tmp_path / "other" / clip.name
    twin.parent.mkdir()
    twin.symlink_to(clip)
    bad = tmp_path / "<b>bad.mp4"
    bad.write_text("hello")
    output = tmp_path / "out"
    options = ["--draws=0", "--formats=[svg]", "--modules=[tiny]", "--target=roll"]
    clips = [os.fspath(path) for path in (clip, bad, twin)]
    with pytest.raises(SystemExit, match=r"^error: .*<b>bad.mp4: .* \(1 of 3 videos failed\)$"):
        main(["explain", *clips, f"--model={explained.model}", f"--output={output}", *options])
    folders = sorted(path.name for path in output.iterdir() if path.is_dir())
    assert folders == ["script_alert_0_script", "script_alert_0_script-2"]
    for folder in folders:
        numbers = json.loads((output / folder / "attention.json").read_text(encoding="utf-8"))
        assert (numbers["target"], numbers["curves"]) == ("roll", None)
        assert {path.suffix for path in (output / folder).iterdir()} >= {".svg", ".mp4"}
        assert numbers["layers"] == explained.numbers["layers"]
    index = (output / "index.html").read_text(encoding="utf-8")
    assert "<b>" not in index
    assert "<script" not in index
    assert all(f'href="{folder}/page.html"' in index for folder in folders)
    assert 'href="comparison.svg"' in index
    assert (output / "comparison.svg").read_text().startswith("<?xml")
    assert "index.html" in capsys.readouterr().out


def test_nothing_of_a_name_becomes_html(explained: Any) -> None:
    page = (explained.folder / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2  # the data, and the page's own
    assert "alert(0)" in page  # the file's name, escaped
    assert "<img src=x" not in page
    assert HOSTILE in explained.numbers["classes"][0]["class"] + str(explained.numbers["classes"])
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page


def test_a_relation_is_known_by_its_expression_too() -> None:
    head = make_model().head
    for relation in ("past(reach=3)", "earlier_within_3_frames"):
        assert Selection(relation=relation).checked(head).relation == "earlier_within_3_frames"


ERRORS = [
    (["--target=role"], r"target must be one of the model's 5 classes, such as roll.*'role'"),
    (["--layer=2"], r"layer must be from 0 to 1 \(got 2\)"),
    (
        ["--relation=past"],
        r"relation must be one of intra_frame, earlier_.*, later_.* \(got 'past'\)",
    ),
    (["--head=4"], r"head must be from 0 to 3 \(got 4\)"),
    (["--view=1"], r"view must be below 1, .* \(got 1\)"),
    (["--draws=1"], r"draws must be 0, or an integer of at least 2 \(got 1\)"),
    (["--edges=0"], r"edges must be a positive integer \(got 0\)"),
    (["--device=foo"], r"device must be one of this machine \(got 'foo'\)"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS, ids=[error[0][0] for error in ERRORS])
def test_options_that_break_a_rule(
    explained: Any, tmp_path: Path, options: list[str], message: str
) -> None:
    given = ["--modules=[tiny]", f"--output={tmp_path / 'out'}", *options]
    with pytest.raises(SystemExit, match=rf"^error: {message}"):
        main(["explain", os.fspath(explained.clip), f"--model={explained.model}", *given])
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be_explained(clip: Path, tmp_path: Path) -> None:
    make_model(conv=pyg.SAGEConv).save_pretrained(tmp_path / "sage")
    message = r"sage: SAGEConv has no attention weights; operators that have are GATConv"
    with pytest.raises(SystemExit, match=rf"^error: .*{message}"):
        main(["explain", os.fspath(clip), f"--model={tmp_path / 'sage'}"])
    make_model(mode="none").save_pretrained(tmp_path / "none")
    with pytest.raises(SystemExit, match=r"^error: layer: the model has no message-passing layer"):
        main(["explain", os.fspath(clip), f"--model={tmp_path / 'none'}", "--layer=0"])
    with pytest.raises(SystemExit, match=r"^error: nowhere: no such model"):
        main(["explain", os.fspath(clip), "--model=nowhere"])


def test_a_video_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(VideoError, match=r"text\.mp4: cannot be opened as a video"):
        load_view(tmp_path / "text.mp4", Preprocessing())


def assert_near(found: Tensor, expected: Tensor) -> None:
    tolerance = {"rtol": 2e-6, "atol": LAST_DIGIT, "equal_nan": True}
    torch.testing.assert_close(found.double(), expected.double(), **tolerance)
