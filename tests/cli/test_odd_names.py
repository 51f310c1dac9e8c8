"""Names of files that are not UTF-8, from the command line to what a command prints and writes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numbered import write_video

from taghead import TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.cli import main
from taghead.video import Preprocessing

COMMAND = [sys.executable, "-c", "from taghead.cli import main; main()"]
# streams that refuse what they cannot encode, as in most locales; in the locale C they do not
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}
SMALL = [b"--num_frames=8", b"--size=32", b"--runs=1", b"--device=cpu"]
VIDEO, GONE = b"caf\xff/x/a\xff.mp4", b"gone\xff.mp4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    r"""A dataset `caf\xff` of two classes and a model; `data` is a link to the dataset."""
    folder = tmp_path_factory.mktemp("odd")
    for number, name in enumerate((VIDEO, b"caf\xff/x/b.mp4", b"caf\xff/y\xff/c.mp4")):
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, 8 + number)
    (folder / "data").symlink_to(os.fsdecode(b"caf\xff"))
    backbone, clips = build_backbone("r2plus1d_tiny"), Preprocessing(8, 36, 32)
    head = TAGHead(backbone.channels, 2, backbone.grid(8, 32), encoder_layers=0)
    VideoClassifier(backbone, head, ["x", "y"], clips).save_pretrained(folder / "model")
    return folder


def run(folder: Path, *args: bytes) -> tuple[int, str, str]:
    """The exit code, the output and the errors of a command; both must be valid text."""
    done = subprocess.run(
        [*COMMAND, *args],
        cwd=folder,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return done.returncode, out, err


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        ([b"index", b"caf\xff", b"--output=i\xff", b"--num_workers=0"], 0, r"Written to i\xff: "),
        ([b"explain", VIDEO, b"--model=model", b"--output=e\xff", b"--draws=0"], 0, r"e\xff/page"),
        ([b"convert", b"model", b"c\xff"], 0, r"c\xff: 2 classes, with names"),
        ([b"bench", b"model", b"r2plus1d_tiny", *SMALL, b"--output=b\xff.csv"], 0, "GFLOP"),
        ([b"predict", GONE, b"--model=model"], 1, r"error: gone\xff.mp4: no such video file"),
        ([b"fit", b"--config=a\xff.yaml"], 1, r"error: a\xff.yaml: no such config"),
        ([b"fit\xff"], 2, r"there is no command 'fit"),
    ],
    ids=lambda value: b" ".join(value).decode(errors="replace") if isinstance(value, list) else "",
)
def test_a_command_prints_any_name(folder: Path, args: list[bytes], code: int, told: str) -> None:
    found, out, err = run(folder, *args)
    assert found == code, out + err
    assert told in (err if code else out)
    written = [arg.partition(b"=")[2] for arg in args if arg.startswith(b"--output=")]
    assert all((folder / os.fsdecode(name)).exists() for name in written)


def test_a_cache_of_features_under_any_name(folder: Path) -> None:
    options = ["num_workers=0", "preprocessing.num_frames=8", "preprocessing.resize=36"]
    options += ["preprocessing.crop=32", "train=."]
    data = [f"--data.{option}".encode() for option in options]
    args = [b"extract", b"f\xff", b"--data=taghead.data.VideoDataModule", b"--model=model", *data]
    code, out, err = run(folder, *args, b"--data.root=data", b"--device=cpu")
    assert code == 0, err
    assert r"f\xff: 3 feature maps" in out
    assert r"--data.root=f\xff" in out


def test_a_name_that_no_config_can_hold(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    args = ["extract", os.fsdecode(b"f\xff"), "--data=taghead.data.VideoDataModule"]
    with pytest.raises(SystemExit) as stop:
        main([*args, "--model=model", os.fsdecode(b"--data.root=caf\xff")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "error: --data.root=caf\\xff: the name is not UTF-8, so that no config can hold it: "
        "rename it, or link to it\n"
    )


def test_an_index_of_any_name_is_taken_up_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    options = [os.fsdecode(b"--output=again\xff"), "--num_workers=0"]
    for _ in range(2):
        main(["index", os.fsdecode(b"caf\xff"), *options])
        assert r"caf\xff: folders, 2 classes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is of another folder of videos") as stop:
        main(["index", "data", *options])
    assert str(stop.value.code).endswith(r"folder of videos, caf\xff: say another output")


def test_a_video_that_is_missing_hides_no_other(folder: Path) -> None:
    args = [GONE, b"caf\xff/x/b.mp4", b"--model=model", b"--format=jsonl", b"--output=p\xff.jsonl"]
    code, out, err = run(folder, b"predict", *args)
    assert code == 1
    assert err.splitlines()[-1] == r"error: gone\xff.mp4: no such file (1 of 2 videos failed)"
    missing, predicted = (json.loads(line) for line in out.splitlines())
    assert missing == {"video": r"gone\xff.mp4", "error": r"gone\xff.mp4: no such file"}
    assert predicted["video"] == r"caf\xff/x/b.mp4"
    assert len(predicted["classes"]) == 2
    assert (folder / os.fsdecode(b"p\xff.jsonl")).read_text() == out


def test_other_text_than_a_stream_can_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    octets = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(octets, "latin-1", errors="strict"))
    monkeypatch.setattr(sys, "argv", ["taghead"])
    main(["--version"])
    print("café → a\udcff\udc80 \ud800")
    sys.stdout.flush()
    assert octets.getvalue().splitlines()[-1] == b"caf\xe9 \\u2192 a\\xff\\x80 \\ud800"
