"""The paper's released files, made here with random weights, against the authors' forward."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from authors import PRESETS, Bomb, Reference, r2plus1d_34, reference, reference_edges, released

from taghead import VideoClassifier
from taghead.errors import DataError
from taghead.model.released import Preset
from taghead.video import Preprocessing


def from_reference(path: Path, preset: Any, **options: Any) -> VideoClassifier:
    return VideoClassifier.from_reference(path, preset, **options)


def assert_same_logits(model: VideoClassifier, reference: Reference, batch_size: int) -> None:
    assert model.preprocessing is not None
    clip = torch.randn(batch_size, 3, model.preprocessing.num_frames, 112, 112)
    with torch.no_grad():
        theirs = reference(clip)
        assert theirs.std() > 0.1
        torch.testing.assert_close(model(clip), theirs, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("family", ["backbone", "csnmodel"])
def test_logits_are_those_of_the_authors_model(
    tmp_path: Path, preset: Preset, family: Literal["backbone", "csnmodel"]
) -> None:
    authors = reference(preset)
    is_other = family == "csnmodel"
    torch.save(released(authors, family, nested=is_other, edges=not is_other), tmp_path / "r.pth")
    model = from_reference(tmp_path / "r.pth", preset)
    assert not model.training
    frames = 32 if preset == "haa500" else 64
    assert model.preprocessing == Preprocessing(frames, 128, 112, (0.45,) * 3, (0.225,) * 3)
    assert_same_logits(model, authors, batch_size=2)


def test_logits_are_those_of_the_authors_model_at_full_size(tmp_path: Path) -> None:
    authors = reference("haa500", r2plus1d_34)
    torch.save(released(authors, "csnmodel", nested=True), tmp_path / "released.pth")
    assert_same_logits(from_reference(tmp_path / "released.pth", "haa500"), authors, batch_size=1)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("family", ["backbone", "csnmodel"])
def test_every_form_of_a_file_gives_the_same_weights(
    tmp_path: Path, family: Literal["backbone", "csnmodel"], nested: bool, edges: bool
) -> None:
    authors = reference("gym99")
    torch.save(released(authors, family, nested, edges), tmp_path / "released.pth")
    state = from_reference(tmp_path / "released.pth", "gym99").state_dict()
    names = {
        "backbone.features.": "backbone.",
        "head.positions.tables.0": "pos_embedding",
        "head.encoder.": "transformer.",
        "head.classifier.": "classifier.",
    }
    theirs = authors.state_dict()
    del theirs["edge_index"]
    assert len(state) == len(theirs)
    for key, value in state.items():
        old, new = next((old, new) for old, new in names.items() if key.startswith(old))
        assert torch.equal(value, theirs[new + key.removeprefix(old)]), key


@pytest.mark.usefixtures("small")
def test_what_is_loaded_can_be_trained_saved_and_named(tmp_path: Path) -> None:
    torch.save(released(reference("gym99")), tmp_path / "released.pth")
    names = [f"element {i}" for i in range(99)]
    model = from_reference(tmp_path / "released.pth", "gym99", class_names=names)
    assert model.class_names == names
    model.train()(torch.randn(2, 3, 64, 112, 112)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(ValueError, match=r"class_names must have 99 names \(got 2\)"):
        from_reference(tmp_path / "released.pth", "gym99", class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"one of haa500, gym99, gym288 \(got 'ucf101'\)"):
        from_reference(tmp_path / "released.pth", "ucf101")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("right", PRESETS)
@pytest.mark.parametrize("wrong", PRESETS)
def test_the_wrong_preset_names_the_right_one(tmp_path: Path, right: Preset, wrong: Preset) -> None:
    if right == wrong:
        return
    torch.save(released(reference(right), "csnmodel"), tmp_path / "released.pth")
    message = f"released.pth: not a checkpoint of {wrong}: .* instead of .*; it fits preset={right}"
    with pytest.raises(DataError, match=message) as error:
        from_reference(tmp_path / "released.pth", wrong)
    assert "\n" not in str(error.value)


def changed(state: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A state dict with other values; `None` takes a key out, and `__` stands for a dot."""
    state = {**state, **{key.replace("__", "."): value for key, value in changes.items()}}
    return {key: value for key, value in state.items() if value is not None}


ONE = torch.zeros(1)
WITHOUT_A_BIAS = {"classifier__1__bias": None}
LAYER = "transformer__layers__1__norm2__"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (WITHOUT_A_BIAS, "keys 1 missing: classifier.1.bias$"),
        ({"ema": ONE}, "keys 1 unexpected: ema$"),
        (
            {f"{LAYER}weight": None, f"{LAYER}bias": None, "a": ONE, "b": ONE},
            "keys 2 missing: transformer.layers.1.norm2.weight, transformer.layers.1.norm2.bias; "
            "2 unexpected: a, b$",
        ),
        ({f"extra{i}": ONE for i in range(30)}, "30 unexpected: extra0, .*extra19 and 10 more$"),
        (
            {"classifier__1__weight": torch.zeros(7, 512), "classifier__1__bias": torch.zeros(7)},
            r"classifier.1.weight is \[7, 512\] instead of \[99, 512\]; it fits no preset: 7 "
            "classes, 392 tokens, a feed-forward network of 1024$",
        ),
        (
            {"backbone__0__bias": torch.zeros(7)},
            r"not a checkpoint of gym99: backbone.0.bias is \[7\] instead of \[16\]$",
        ),
        ({"edge_index": reference_edges(4)}, "edge_index is another graph than .* 8x7x7"),
        ({"edge_index": reference_edges(8).roll(1)}, "edge_index is another graph than"),
        ({"pos_embedding": torch.zeros(())}, r"pos_embedding is \[\] instead of \[1, 392, 512"),
    ],
)
def test_keys_and_shapes_that_differ_are_listed(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    torch.save(changed(released(reference("gym99")), **changes), tmp_path / "released.pth")
    with pytest.raises(DataError, match=f"released.pth: .*{message}"):
        from_reference(tmp_path / "released.pth", "gym99")


@pytest.mark.usefixtures("small")
def test_edges_may_come_in_any_order(tmp_path: Path) -> None:
    edges = reference_edges(8)
    edges = edges[:, torch.randperm(edges.size(1))].int()
    state = {**released(reference("gym99")), "edge_index": edges}
    torch.save(state, tmp_path / "released.pth")
    from_reference(tmp_path / "released.pth", "gym99")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("load", [from_reference, lambda p, _: VideoClassifier.from_checkpoint(p)])
def test_a_file_with_code_is_refused_and_not_run(
    tmp_path: Path, load: Callable[[Path, str], object]
) -> None:
    content = {**released(reference("gym99"), nested=True), "bomb": Bomb(tmp_path / "crater")}
    torch.save(content, tmp_path / "released.pth")
    with pytest.raises(DataError, match=r"released.pth: .*not a readable state dict"):
        load(tmp_path / "released.pth", "gym99")
    assert not (tmp_path / "crater").exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing.pth: no such file"):
        from_reference(tmp_path / "missing.pth", "gym99")
    for content, message in (
        ([1], "must map names to tensors"),
        ({}, "must map names to tensors"),
        ({"model_state_dict": {"a": 1}}, "must map names to tensors"),
        ({"conv1.weight": ONE}, "keys .* missing: .*; 1 unexpected: conv1.weight"),
    ):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(DataError, match=f"other.pth: .*{message}"):
            from_reference(tmp_path / "other.pth", "gym99")
