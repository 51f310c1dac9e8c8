"""The package's layout: the folder listing is the architecture, and its rules hold."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "taghead"
TESTS = ROOT / "tests"
MAX_LOOSE = 8  # modules at the top of the package, beside its __init__
MAX_LINES = 400
LINT_IMPORTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"
NOT_MIRRORED = {"helpers", "integration"}
PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
JSON_CALLS = {"dump", "dumps", "load", "loads"}
OWN_JSON = {"files.py": 2}
"""The module that may call the library, and how often: all others use it."""


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def test_few_modules_are_at_the_top() -> None:
    loose = [path.name for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    assert 0 < len(loose) <= MAX_LOOSE, loose


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_each_package_says_what_it_holds_and_what_it_imports(package: Path) -> None:
    text = docstring(package / "__init__.py")
    first, _, rest = text.partition("\n\n")
    assert first.endswith("."), "the first line says what the package holds"
    assert "import" in rest, "the text after it says what the package may import"


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_each_folder_with_modules_is_a_package(package: Path) -> None:
    folders = {path.parent for path in package.glob("*/*.py")}
    assert folders <= set(PACKAGES)


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_modules_are_short_and_say_what_they_are(module: Path) -> None:
    assert docstring(module)
    assert len(module.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_json_is_written_and_read_in_one_module() -> None:
    """The library's own functions write and read NaN, which is no JSON."""
    found: dict[str, int] = {}
    for module in MODULES:
        tree = ast.parse(module.read_text(encoding="utf-8"))
        names = [
            node for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.ImportFrom)
        ]
        calls = [node for node in names if _is_json(node)]
        if calls:
            found[module.relative_to(PACKAGE).as_posix()] = len(calls)
    assert found["files.py"] == OWN_JSON["files.py"]
    assert all(count <= OWN_JSON.get(name, 0) for name, count in found.items()), found


def _is_json(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "json" and any(one.name in JSON_CALLS for one in node.names)
    is_call = isinstance(node, ast.Attribute) and node.attr in JSON_CALLS
    return is_call and ast.unparse(node.value) == "json"


def test_tests_mirror_the_package() -> None:
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")} - {Path()}
    mirrors = {folder for folder in folders if folder.parts[0] not in NOT_MIRRORED}
    assert mirrors
    missing = [folder.as_posix() for folder in mirrors if PACKAGE / folder not in PACKAGES]
    assert not missing, f"no package has the name of the test folders {missing}"


def test_imports_keep_their_contracts() -> None:
    environment = {**os.environ, "PYTHONPATH": os.fspath(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-c", LINT_IMPORTS, "--no-cache"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
