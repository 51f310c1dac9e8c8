"""Each file of the fuzz corpus is read once, without Atheris: `make fuzz` goes on from it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_watch import WATCH, FuzzError, Target, run_target

from taghead.errors import DataError

HERE = Path(__file__).parent
FILES = sorted(path for path in (HERE / "corpus").rglob("*") if path.is_file())


def test_no_file_of_the_corpus_fails() -> None:
    helpers = os.fspath(HERE.parents[1] / "helpers")
    paths = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), helpers])
    done = subprocess.run(
        [sys.executable, HERE / "fuzz.py", "all", "--replay"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.endswith(" passed")] == [], done.stderr[-2000:]
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(lines) == len(FILES) > 50


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 100_000


def opens(path: str) -> Target:
    return Target(lambda data, folder: open(path).close())


def raises(error: Exception) -> Target:
    def run(data: bytes, folder: Path) -> None:
        raise error

    return Target(run)


def test_what_a_target_may_not_do_is_seen(tmp_path: Path) -> None:
    """Otherwise no input would ever fail."""
    if WATCH.roots[-1] != os.path.realpath(tmp_path):
        WATCH.install(tmp_path)
    (tmp_path / "inside").touch()
    run_target(opens(str(tmp_path / "inside")), b"", tmp_path)
    run_target(raises(DataError("a.mp4: damaged")), b"", tmp_path)
    for target, told in (
        (opens("/etc/hostname"), "opened /etc/hostname"),
        (raises(DataError("1\n2\n3\n4")), "too many lines"),
        (Target(lambda data, folder: os.system("true")), "os.system"),
        (Target(lambda data, folder: __import__("stranger_a17")), "imported stranger_a17"),
        (
            Target(lambda data, folder: subprocess.run(["true"], check=True)),
            "subprocess.Popen",
        ),
    ):
        with pytest.raises((FuzzError, ModuleNotFoundError)) as error:
            run_target(target, b"", tmp_path)
        assert told in f"{error.value} {WATCH.seen}"
    with pytest.raises(KeyError):
        run_target(raises(KeyError("x")), b"", tmp_path)
