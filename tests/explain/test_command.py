"""`taghead explain`: its numbers beside the head's and PyG's own, its files, its errors."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch_geometric.nn as pyg
from tiny import CLASSES, GRID, make_model
from torch import Tensor

from taghead.cli import main
from taghead.explain import smoothing
from taghead.inference.predictor import predict_videos
from taghead.model.pretrained import load_model

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


def test_the_frames_have_indices_and_seconds(explained: Any) -> None:
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


def test_over_smoothing_is_that_of_the_head(explained: Any) -> None:
    model = load_model(explained.model)
    clip = model.preprocessing.load(explained.clip)
    with torch.no_grad():
        found = smoothing(model.head, model.backbone(clip.unsqueeze(0)))
    numbers = explained.numbers["smoothing"]
    assert list(numbers) == ["tokens", "edges", "added"]
    for name, table in found._asdict().items():
        listed = pd.DataFrame(numbers[name])
        assert listed.columns.tolist() == table.columns.tolist()
        for column in table:
            if table[column].dtype.kind in "if":
                told = table[column].tolist()
                assert listed[column].tolist() == pytest.approx(told, rel=1e-4, abs=1e-5)
            else:
                assert listed[column].tolist() == table[column].tolist()
        assert len(table)


def test_every_file_is_written(explained: Any) -> None:
    pictures = ("rollout", "saliency", "classes", "edges", "curves", "layers")
    names = {f"{name}.{ending}" for name in pictures for ending in ("png", "pdf")}
    names |= {"attention.json", "page.html", "overlay.mp4"}
    assert {path.name for path in explained.folder.iterdir()} == names
    assert (explained.folder / "page.html").stat().st_size < 5e6
    for path in explained.folder.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


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


@pytest.mark.parametrize("options", [{}, {"mode": "none"}], ids=["graph", "no graph"])
def test_a_readout_without_weights_is_reported_in_one_line(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    make_model(readout="temporal_conv", **options).save_pretrained(tmp_path / "model")
    output = tmp_path / "out"
    given = ["--draws=0", "--formats=[png]", "--modules=[tiny]", f"--output={output}"]
    clips = [os.fspath(clip)] * 2
    main(["explain", *clips, f"--model={tmp_path / 'model'}", *given])
    lines = [line for line in capsys.readouterr().out.splitlines() if "rollout" in line]
    assert len(lines) == 1  # not one for each clip
    assert lines[0].startswith(f"{tmp_path / 'model'}: rollout is left out: readout: Temporal")
    folder = next(path for path in output.iterdir() if path.is_dir())
    names = {path.name for path in folder.iterdir()}
    assert names >= {"attention.json", "page.html", "overlay.mp4", "saliency.png"}
    assert "rollout.png" not in names


ERRORS = [
    (["--target=role"], r"target must be one of the model's 5 classes, such as roll.*'role'"),
    (["--layer=2"], r"layer must be from 0 to 1 \(got 2\)"),
    (
        ["--relation=past"],
        r"relation must be one of intra_frame, past_3f, future_3f \(got 'past'\)",
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


def assert_near(found: Tensor, expected: Tensor) -> None:
    tolerance = {"rtol": 2e-6, "atol": LAST_DIGIT, "equal_nan": True}
    torch.testing.assert_close(found.double(), expected.double(), **tolerance)


@pytest.fixture
def infinite(tmp_path: Path) -> Path:
    """A model with a logit that is infinite."""
    model = make_model()
    model.head.classifier[-1].bias.data[1] = -torch.inf
    model.save_pretrained(tmp_path / "infinite")
    return tmp_path / "infinite"


@pytest.mark.parametrize("command", ["explain", "predict"])
def test_a_clip_with_logits_that_are_not_finite_is_refused_by_name(
    infinite: Path, clip: Path, command: str, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    args = [os.fspath(clip), f"--model={infinite}", "--modules=[tiny]", "--device=cpu"]
    with pytest.raises(SystemExit) as stop:
        main([command, *args, f"--output={output}"])
    assert str(stop.value) == f"error: {clip}: the model's logits are not finite"
    assert not (output / "attention.json").exists()
