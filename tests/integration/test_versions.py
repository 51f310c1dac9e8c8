"""Versions: what setup.cfg asks for, what the lock files pin, and what `make install` takes."""

import re
import shutil
import subprocess
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK, SCATTER_LOCK = ROOT / "requirements.lock", ROOT / "requirements-scatter.lock"
LOCKED_EXTRAS = ("dev", "slowfast")
ENTRY = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>.*?))?(?P<hashes>(?: \\\n    \S+)+)$",
    re.MULTILINE,
)
CONDA_NAMES = {
    "pytorch": "torch",
    "pytorch-geometric": "torch-geometric",
    "pytorch-scatter": "torch-scatter",
    "matplotlib-base": "matplotlib",
}


def locked(path: Path) -> dict[str, str]:
    """The versions of a lock file, by name."""
    return {match["name"]: match["version"] for match in ENTRY.finditer(path.read_text())}


def asked(extra: str | None = None) -> list[Requirement]:
    """What setup.cfg needs, or one of its extras."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = (
        config["options"]["install_requires"]
        if extra is None
        else config["options.extras_require"][extra]
    )
    return [Requirement(line) for line in lines.splitlines() if line]


def extras() -> list[str]:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return list(config["options.extras_require"])


@pytest.mark.parametrize("path", [LOCK, SCATTER_LOCK], ids=lambda path: path.name)
def test_every_entry_of_a_lock_file_is_pinned_by_hashes(path: Path) -> None:
    text = path.read_text()
    without_entries = ENTRY.sub("", text)
    left = [line for line in without_entries.splitlines() if line and not line.startswith("#")]
    assert not left, left
    assert len(locked(path)) == len(ENTRY.findall(text)) > 0, "a package has two versions"
    for match in ENTRY.finditer(text):
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})(?!\S)", match["hashes"])
        assert hashes, match["name"]
        assert len(hashes) == match["hashes"].count("--"), match["name"]


@pytest.mark.parametrize("extra", [None, *extras()])
def test_a_locked_version_is_one_that_setup_cfg_admits(extra: str | None) -> None:
    versions = {**locked(LOCK), **locked(SCATTER_LOCK)}
    for requirement in asked(extra):
        name = canonicalize_name(requirement.name)
        if extra is None or extra in LOCKED_EXTRAS:
            assert name in versions, f"{name} is missing: make lock"
        if name in versions:
            assert versions[name] in requirement.specifier, f"{requirement}: {versions[name]}"


def test_what_the_package_needs_through_others_is_locked() -> None:
    """By the metadata of what is installed here, on this system and Python."""
    versions = locked(LOCK)
    left = [(one, "") for extra in (None, *LOCKED_EXTRAS) for one in asked(extra)]
    seen: set[tuple[str, str]] = set()
    while left:
        requirement, extra = left.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        assert versions.get(name) in requirement.specifier, f"{requirement}: {versions.get(name)}"
        for inner_extra in ("", *requirement.extras):
            if (name, inner_extra) in seen:
                continue
            seen.add((name, inner_extra))
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            left += [(Requirement(need), inner_extra) for need in needs]
    assert {"torch", "sympy", "pytorch-lightning", "fvcore"} <= {name for name, _ in seen}


def test_conda_has_the_floors_of_setup_cfg() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = [line for entry in listed if isinstance(entry, dict) for line in entry["pip"]]
    texts = [line for line in listed if isinstance(line, str) and not line.startswith("python=")]
    of_conda = [Requirement(line) for line in texts]
    floors = {}
    for requirement in [*of_conda, *(Requirement(x) for x in by_pip if not x.startswith("-e"))]:
        name = canonicalize_name(requirement.name)
        floors[CONDA_NAMES.get(name, name)] = floor(requirement)
    assert "-e .[dev,slowfast]" in by_pip
    for requirement in asked():
        name = canonicalize_name(requirement.name)
        assert floors.get(name) == floor(requirement), f"{name} of environment.yml"


def floor(requirement: Requirement) -> str | None:
    return next((one.version for one in requirement.specifier if one.operator == ">="), None)


def commands(*goal: str) -> list[str]:
    """What make would run, in a folder where nothing is installed."""
    done = subprocess.run(
        ["make", "--dry-run", *goal], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_installs_by_hashes_alone(tmp_path: Path) -> None:
    venv = f"VENV={tmp_path}/venv"
    installs = [line for line in commands("test-scatter", venv) if " install " in line]
    assert len(installs) == 4
    own = [
        line for line in installs if line.endswith("install --no-build-isolation --no-deps -e .")
    ]
    assert len(own) == 1
    assert all("--require-hashes" in line for line in installs if line not in own)
    newest = [line for line in commands("install", venv, "LOCK=") if " install " in line]
    assert len(newest) == 1
    assert newest[0].endswith('install -e ".[dev,slowfast]"')


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_what_builds_source_distributions_is_installed_first(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    lines = commands("install", f"VENV={tmp_path}/venv")
    (awk,) = (line for line in lines if line.startswith("awk "))
    subprocess.run(awk, shell=True, cwd=ROOT, check=True)
    build = locked(tmp_path / "venv/build.lock")
    assert set(build) == {"packaging", "setuptools", "wheel"}
    assert build.items() <= locked(LOCK).items()
    by_hash = next(
        i for i, line in enumerate(lines) if line.endswith("build.lock") and "pip" in line
    )
    assert by_hash < next(i for i, line in enumerate(lines) if line.endswith("requirements.lock"))
