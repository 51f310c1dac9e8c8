"""Fuzzes what the package reads of other people's files, guided by coverage (Atheris).

`python fuzz.py containers --seconds 60` fuzzes one target, `python fuzz.py all --seconds 60` all of
them in that time together; `python fuzz.py all --replay` runs each file of the corpus once, without
Atheris. An input that fails is stored in `corpus/TARGET/`: mend the package and keep the file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FILES = ("annotations", "bitstreams", "containers", "journal", "stored_survey")
FILES += ("transport_stream", "video")
MODELS = ("checkpoint", "class_paths", "features", "manifest", "model", "sweep")
NAMES = (*FILES, *MODELS)
INPUT_SEC = 20  # that an input may take
MEMORY_MB = 4096  # that a process may take, of which torch takes about 600
REPLAY_MB = 1000  # that one input may take beyond what is held already
UNSUPPORTED = "Atheris cannot be imported: {}; it has wheels for CPython 3.11 to 3.13 on Linux"


def enter_folder(folder: Path) -> None:
    """Makes a folder the working folder, with what targets need in it."""
    from fuzz_seeds import SAMPLE

    shutil.copy(CORPUS / "video" / SAMPLE, folder / "sample.mkv")
    os.chdir(folder)
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = str(folder)
    tempfile.tempdir = str(folder)  # where PyG writes what it generates for an operator


def fresh(folder: Path) -> Path:
    """The folder for the files of one input, empty."""
    work = folder / "input"
    if work.is_dir() and any(work.iterdir()):
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    return work


def load(name: str) -> Any:
    """A target; only the libraries that it needs are imported."""
    found = importlib.import_module("fuzz_files" if name in FILES else "fuzz_models").TARGETS[name]
    found.prepare()
    return found


def replay(names: list[str]) -> int:
    """Runs each file of the corpus once. Returns how many fail."""
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        enter_folder(folder)
        from fuzz_watch import WATCH, run_target

        targets = {name: load(name) for name in names}
        WATCH.install(folder)
        for target in names:
            files = sorted((CORPUS / target).iterdir())
            for file in files:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                print(f"{target}/{file.name}", end=" ", flush=True)
                try:
                    run_target(targets[target], file.read_bytes(), fresh(folder))
                    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
                    if taken > REPLAY_MB:
                        raise MemoryError(f"it took {taken} MB")
                    print("passed")
                except Exception as error:
                    failed += 1
                    print(f"FAILED {type(error).__name__}: {error}")
    return failed


def fuzz(target: str, seconds: int, found: Path, seed: int) -> None:
    """Fuzzes one target; the process ends with it."""
    try:
        import atheris
    except ImportError as error:
        raise SystemExit(UNSUPPORTED.format(error)) from error
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    enter_folder(folder)
    with atheris.instrument_imports(include=["taghead"]):
        loaded = load(target)
    from fuzz_watch import WATCH, run_target

    for file in sorted((CORPUS / target).iterdir()):  # imports what is imported when it is needed
        run_target(loaded, file.read_bytes(), fresh(folder))
    WATCH.install(folder)

    def one_input(data: bytes) -> None:
        run_target(loaded, data, fresh(folder))

    new = folder / "corpus"
    new.mkdir()
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_SEC}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={loaded.max_len}",
        f"-artifact_prefix={found}/",
        f"-seed={seed}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(new), str(CORPUS / target)], one_input)
    atheris.Fuzz()


def fuzz_in_process(target: str, seconds: int, seed: int) -> tuple[str, Path | None]:
    """Fuzzes one target in a process of its own.

    Returns:
        What libFuzzer counted, and the input that failed, stored in the corpus.
    """
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, __file__, target, f"--seconds={seconds}", f"--found={name}"]
        environment = {**os.environ, "TMPDIR": name}
        done = subprocess.run(
            [*command, f"--seed={seed}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            text=True,
            errors="replace",
            check=False,
        )
        lines = re.findall(r"^#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)", done.stdout, re.M)
        runs = re.findall(r"number_of_executed_units:\s*(\d+)", done.stdout)
        counts = f"{runs[-1] if runs else lines[-1][0] if lines else 0:>9} runs"
        counts += f"{lines[-1][1]:>6} edges{lines[-1][3]:>6} inputs" if lines else ""
        inputs = sorted(file for file in Path(name).iterdir() if file.is_file())
        if done.returncode == 0:
            return counts, None
        print(done.stdout[-3000:])
        if not inputs:
            raise SystemExit(f"{target}: the fuzzer ended with code {done.returncode}")
        data = inputs[0].read_bytes()
        kept = CORPUS / target / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
        kept.write_bytes(data)
        return counts, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=["all", *NAMES])
    parser.add_argument("--seconds", type=int, default=60, help="of fuzzing, all targets together")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations; 0 is another each")
    parser.add_argument("--replay", action="store_true", help="run the corpus once, do not fuzz")
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = list(NAMES) if options.target == "all" else [options.target]
    if options.replay:
        raise SystemExit(bool(replay(names)))
    if options.found:
        fuzz(options.target, options.seconds, options.found, options.seed)
    failed = []
    for number, name in enumerate(names, start=1):
        print(f"[{number}/{len(names)}] {name:<17}", end="", flush=True)
        counts, kept = fuzz_in_process(name, max(1, options.seconds // len(names)), options.seed)
        print(counts, f"FAILED: {kept.relative_to(HERE)}" if kept else "no failure")
        failed += [kept] if kept else []
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
