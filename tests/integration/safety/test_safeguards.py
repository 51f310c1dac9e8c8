"""The list of safeguards fits the package: `make safeguards` removes each and runs its tests."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from safeguards import SAFEGUARDS, Safeguard

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "taghead"


@cache
def functions_in(file: str) -> set[str]:
    """The tests that a module defines, those of a class behind its name."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        found |= {f"{prefix}{one.name}" for one in inner if isinstance(one, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda one: one.name)
def test_it_stands_in_the_package_once_and_has_tests(safeguard: Safeguard) -> None:
    text = (PACKAGE / safeguard.file).read_text(encoding="utf-8")
    assert text.count(safeguard.old) == 1
    without = text.replace(safeguard.old, safeguard.new)
    assert ast.dump(ast.parse(without)) != ast.dump(ast.parse(text))
    assert safeguard.tests
    for test in safeguard.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in functions_in(file), test


def test_each_has_a_name_and_a_removal_of_its_own() -> None:
    assert len(SAFEGUARDS) >= 45
    assert max(Counter(one.name for one in SAFEGUARDS).values()) == 1
    removals = Counter((one.file, one.old, one.new) for one in SAFEGUARDS)
    assert max(removals.values()) == 1


def test_every_reading_of_pickles_is_a_safeguard() -> None:
    """A new `torch.load` comes with an entry of the list."""
    listed = Counter(
        one.file for one in SAFEGUARDS if "torch.load(" in one.old or "load(path, map" in one.old
    )
    found: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                found[path.relative_to(PACKAGE).as_posix()] += 1
                (kept,) = [k.value for k in node.keywords if k.arg == "weights_only"]
                assert ast.unparse(kept) == "True", path
    assert found == listed
    assert found
