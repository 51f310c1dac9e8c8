"""Predictions come as they are made, and one bad file hides no other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import make_model

from taghead import VideoClassifier
from taghead.cli import main
from taghead.errors import VideoError
from taghead.inference import predict_videos, predictor
from taghead.video import Preprocessing

FAULTS = {
    "memory.mp4": MemoryError(),
    "nesting.mp4": RecursionError("maximum recursion depth exceeded"),
    "gpu.mp4": torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 4 GiB"),
    "library.mp4": RuntimeError("an error of a library"),
    "text.mp4": VideoError("text.mp4: is text, not a video"),
}
NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> VideoClassifier:
    """A model for empty files: by their names they are read or not."""

    def load_views(self: Preprocessing, path: str) -> torch.Tensor:
        if path in FAULTS:
            raise FAULTS[path]
        if "stop" in path:
            raise KeyboardInterrupt
        if "crash" in path:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "slow" in path:
            time.sleep(600)
        clip = torch.rand(1, 3, 32, 112, 112)
        return clip * float("nan") if "nan" in path else clip

    made = make_model()
    monkeypatch.setattr(Preprocessing, "load_views", load_views)
    monkeypatch.setattr(predictor, "load_model", lambda path, limits: made)
    monkeypatch.chdir(tmp_path)
    for name in (*"abc", "nan", "stop", "crash", "slow"):
        Path(f"{name}.mp4").touch()
    for name in (NOT_UTF8, "x"):
        Path(name).touch()
    return made


def others() -> list[str]:
    """The files that a command has written."""
    return [path.name for path in Path().iterdir() if path.suffix != ".mp4" and path.name != "x"]


def test_whatever_is_wrong_with_a_video_the_next_one_follows(model: VideoClassifier) -> None:
    found = list(predict_videos(model, ["a.mp4", *FAULTS, "nan.mp4", "b.mp4"]))
    assert [prediction.error for prediction in found] == [
        None,
        "memory.mp4: MemoryError: MemoryError()",
        "nesting.mp4: RecursionError: maximum recursion depth exceeded",
        "gpu.mp4: OutOfMemoryError: CUDA out of memory. Tried to allocate 4 GiB",
        "library.mp4: RuntimeError: an error of a library",
        "text.mp4: is text, not a video",
        "nan.mp4: the model's logits are not finite",
        None,
    ]
    assert len(found[-1].classes) == 5


@pytest.mark.usefixtures("model")
def test_the_exit_code_and_the_file_tell_of_failures(capsys: pytest.CaptureFixture[str]) -> None:
    videos = ["a.mp4", "nan.mp4", NOT_UTF8]
    with pytest.raises(SystemExit, match=r"error: nan.mp4: .* \(1 of 3 videos failed\)") as stop:
        main(["predict", *videos, "--model=x", "--output=out.jsonl"])
    assert stop.value.code not in (0, None)
    lines = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [line["video"] for line in lines] == ["a.mp4", "nan.mp4", r"caf\xe9.mp4"]
    assert [*map(len, lines)] == [2, 2, 2]
    printed = capsys.readouterr().out
    assert printed.count("probability") == 1
    assert "cannot be predicted" in printed
    assert r"caf\xe9.mp4" in printed
    assert others() == ["out.jsonl"]


@pytest.mark.usefixtures("model")
def test_a_crash_of_the_decoder_costs_one_video() -> None:
    with pytest.raises(SystemExit, match=r"error: crash.mp4: .* \(1 of 3 videos failed\)"):
        main(["predict", "a.mp4", "crash.mp4", "b.mp4", "--model=x", "--output=out.jsonl"])
    first, crashed, last = map(json.loads, Path("out.jsonl").read_text().splitlines())
    assert crashed["error"] == "crash.mp4: reading it ended the process (SIGSEGV) twice"
    assert (first["video"], last["video"]) == ("a.mp4", "b.mp4")
    assert first["classes"]
    assert last["classes"]


def test_a_video_that_takes_too_long_is_given_up(model: VideoClassifier) -> None:
    videos = ["slow.mp4", "b.mp4"]
    slow, last = predict_videos(model, videos, isolated=True, timeout_sec=3)
    assert slow.error == "slow.mp4: reading it took longer than 3 s"
    assert last.classes


@pytest.mark.usefixtures("model")
def test_a_stopped_command_leaves_the_old_file_and_its_own_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("out.jsonl").write_text("old\n")
    for videos in (["stop.mp4"], ["a.mp4", "b.mp4", "stop.mp4"]):
        with pytest.raises(SystemExit) as stop:
            main(["predict", *videos, "--model=x", "--output=out.jsonl", "--format=jsonl"])
        assert stop.value.code == 130
        assert Path("out.jsonl").read_text() == "old\n"
        partial = Path(f"out.jsonl.partial-{os.getpid()}")
        assert partial.exists() == (len(videos) > 1)
    assert f"stopped; {partial.absolute()} has the lines so far" in capsys.readouterr().err
    lines = [json.loads(line)["video"] for line in partial.read_text().splitlines()]
    assert lines == ["a.mp4", "b.mp4"]
    main(["predict", "c.mp4", "--model=x", "--output=out.jsonl", "--format=jsonl"])
    assert json.loads(Path("out.jsonl").read_text())["video"] == "c.mp4"
    assert others() == ["out.jsonl"]


@pytest.mark.parametrize("format", ["table", "jsonl"])
def test_results_are_shown_and_written_as_they_are_made(
    model: VideoClassifier,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    format: str,
) -> None:
    made = predictor.predict_videos(model, ["a.mp4", "b.mp4", "c.mp4"])
    seen: list[tuple[int, int]] = []

    def watched(*_: object) -> object:
        printed = ""
        for prediction in made:
            printed += capsys.readouterr().out
            lines = Path(f"out.jsonl.partial-{os.getpid()}").read_text().splitlines()
            seen.append((len(lines), sum(printed.count(f"{name}.mp4") for name in "abc")))
            yield prediction

    monkeypatch.setattr(predictor, "predict_videos", watched)
    main(["predict", "a.mp4", "--model=x", "--output=out.jsonl", f"--format={format}"])
    assert seen == [(0, 0), (1, 1), (2, 2)]


def test_a_killed_command_leaves_whole_lines(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from taghead.files import line_writer\n"
        f"with line_writer({str(tmp_path / 'out')!r}) as write:\n"
        "    write('one'), write('two')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith("out.partial-")
    assert left.read_text() == "one\ntwo\n"


@pytest.mark.usefixtures("model")
def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    main(["predict", "a.mp4", "--model=x", "--output=pipe"])
    assert json.loads(os.read(reader, 10_000))["video"] == "a.mp4"
    os.close(reader)
    assert others() == ["pipe"]
