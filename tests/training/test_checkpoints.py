"""Checkpoints on disk: atomic writes, and checks before use."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from authors import Bomb
from torch import nn

from taghead.errors import DataError, is_disk_full
from taghead.training.checkpoints import (
    AtomicCheckpointIO,
    LastCheckpoint,
    num_steps,
)
from taghead.training.compatibility import check_checkpoint
from taghead.training.finite import is_finite
from taghead.training.lightning_cli import check_states


def test_checkpoints_appear_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, writer = tmp_path / "kept" / "last.ckpt", AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, path)
    (path.parent / ".unfinished-best.ckpt").write_bytes(b"half of")

    def cut_off(source: Any, target: Any) -> None:
        """A death between writing and renaming, which leaves the file that was there."""
        assert torch.load(source, weights_only=True) == {"step": 2}
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert [left.name for left in path.parent.iterdir()] == ["last.ckpt"]  # the leftover is gone
    assert torch.load(path, weights_only=True) == {"step": 1}
    writer.save_checkpoint({"step": 3}, path)
    assert torch.load(path, weights_only=True) == {"step": 3}


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Lets no file grow beyond a size, as a disk that becomes full."""
    resource = pytest.importorskip("resource", reason="the system limits no files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 100, 5_000, 300_000])
def test_a_checkpoint_without_room_is_named_and_the_one_before_stays(
    tmp_path: Path, room: int
) -> None:
    path, writer = tmp_path / "last.ckpt", AtomicCheckpointIO()
    writer.save_checkpoint({"step": 1}, path)
    parts = {f"part {i}": torch.rand(50_000) for i in range(2)}
    with largest_file(room):
        with pytest.raises(OSError, match=rf"File too large: '{path}'") as caught:
            writer.save_checkpoint({"state_dict": parts}, path)
    assert caught.value.errno == errno.EFBIG
    assert [left.name for left in tmp_path.iterdir()] == ["last.ckpt"]
    assert torch.load(path, weights_only=True) == {"step": 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_checkpoint_on_a_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_to_full_disk(path: Path, mode: str) -> Any:
        assert path.parent == tmp_path
        return open("/dev/full", mode)  # every write fails there

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", write_to_full_disk)
        with pytest.raises(OSError, match=r"No space left on device: .*last\.ckpt") as caught:
            AtomicCheckpointIO().save_checkpoint(
                {"weight": torch.rand(50_000)}, tmp_path / "last.ckpt"
            )
    assert is_disk_full(caught.value)


def test_the_number_of_steps_is_positive() -> None:
    with pytest.raises(ValueError, match=r"every_n_steps must be a positive integer \(got 0\)"):
        LastCheckpoint(0)


def test_a_checkpoint_must_fit_the_task(tmp_path: Path) -> None:
    path, task = tmp_path / "last.ckpt", nn.Linear(3, 2)
    with pytest.raises(DataError, match=r"last.ckpt: no such checkpoint"):
        check_checkpoint(path, task)
    torch.save({"state_dict": task.state_dict(), "global_step": 7}, path)
    check_checkpoint(path, task)
    assert num_steps(path) == 7
    message = (
        r"last.ckpt: a checkpoint of another model: weight is \[2, 3\], the model has \[2, 4\]"
    )
    with pytest.raises(DataError, match=message):
        check_checkpoint(path, nn.Linear(4, 2))
    message = r"another model: bias is nothing, the model has \[2\]"
    torch.save({"state_dict": {"weight": task.weight.detach()}}, path)
    with pytest.raises(DataError, match=message):
        check_checkpoint(path, task)


@pytest.mark.parametrize("content", [b"hello", None])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "last.ckpt"
    if content is None:
        torch.save({"weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    for read in (num_steps, lambda path: check_checkpoint(path, nn.Linear(1, 1))):
        with pytest.raises(DataError, match=r"last.ckpt: not a checkpoint: ") as error:
            read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_never_written(
    tmp_path: Path, dtype: torch.dtype, value: float
) -> None:
    path, writer = tmp_path / "best.ckpt", AtomicCheckpointIO()
    good = {"weight": torch.ones(3, dtype=dtype), "count": torch.tensor(1)}
    writer.save_checkpoint({"state_dict": good, "step": 1}, path)
    bad = {**good, "weight": torch.tensor([1, value, 1], dtype=dtype)}
    for content in ({"state_dict": bad}, {"state_dict": good, "current_model_state": bad}):
        with pytest.raises(DataError, match=r"best.ckpt: weights are not finite, .* 1: weight;"):
            writer.save_checkpoint(content, path)
    assert torch.load(path, weights_only=True)["step"] == 1


def test_an_eight_bit_weight_is_checked() -> None:
    weight = torch.ones(2).to(torch.float8_e4m3fn)
    assert is_finite(weight)
    weight.view(torch.uint8)[0] = 0x7F
    assert not is_finite(weight)


def test_a_checkpoint_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, crater = tmp_path / "last.ckpt", tmp_path / "crater"
    for place in ("bomb", "callbacks"):
        torch.save({"state_dict": {}, "global_step": 1, place: Bomb(crater)}, path)
        for read in (num_steps, lambda path: check_checkpoint(path, nn.Identity()), check_states):
            with pytest.raises(DataError, match=r"last.ckpt: not a checkpoint: "):
                read(path)
            assert not crater.exists()
    torch.load(path, weights_only=False, mmap=True)  # the bomb is a live one
    assert crater.exists()


def test_a_state_with_an_address_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    address = "s3://bucket/old.ckpt"
    for state in (address, {address: torch.zeros(1)}, {"kept": [("a", {"b": address})]}):
        torch.save({"state_dict": {}, "callbacks": {"M": state}}, path)
        with pytest.raises(DataError, match=rf"last.ckpt: the state of a .* address: {address}"):
            check_states(path)
    torch.save({"state_dict": {}, "callbacks": {"M": {"best_model_path": "C:\\a.ckpt"}}}, path)
    check_states(path)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"state_dict": [1]}, "state_dict is a list"),
        ({"state_dict": {"a": 1}}, "state_dict must map names to tensors"),
        ({"state_dict": {1: torch.zeros(1)}}, "state_dict must map names to tensors"),
        ({"callbacks": [1]}, "callbacks is a list"),
        ({"global_step": "7"}, "global_step is a str"),
        ({"video_classifier": "x"}, "video_classifier is a str"),
    ],
)
def test_parts_of_a_checkpoint_have_their_types(
    tmp_path: Path, part: dict[str, Any], told: str
) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "global_step": 1, **part}, path)
    for read in (num_steps, lambda path: check_checkpoint(path, nn.Identity()), check_states):
        with pytest.raises(DataError, match=rf"^{path}: not a checkpoint: {told}$"):
            read(path)
