"""The notebooks as they are stored; `make notebooks` runs them."""

import ast
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "01_edge_attention",
    "02_swap_operators",
    "03_what_the_papers_graph_does",
    "04_your_own_videos",
    "05_tokens_in_pyg",
]
MOST_BYTES = 1_000_000
MACHINE_PATH = re.compile(
    r"(?:(?<=[\s\"'(=:])|^)/(?:home|root|Users|tmp|work|opt|usr|mnt|var|private)/|[A-Z]:\\\\?Users",
    re.MULTILINE,
)
# what a package is imported as, where that is not its name
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "decord2": "decord"}
WITH_THE_KERNEL = {"IPython"}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def python(cell: nbformat.NotebookNode) -> str:
    """A cell's source without IPython's own lines."""
    return "\n".join(line for line in cell.source.splitlines() if line[:1] not in ("%", "!"))


def imported(source: str) -> set[str]:
    """The top-level packages that a source imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def declared() -> set[str]:
    """What may be imported: what setup.cfg installs, the standard library, and ourselves."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split()
    names = {re.split(r"[\[<>=!~]", line)[0].lower() for line in lines}
    modules = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}
    return modules | set(sys.stdlib_module_names) | WITH_THE_KERNEL | {"taghead", "common"}


def shows(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell prints or draws something, or ends in a value that it shows."""
    if cell.source.startswith("%%capture"):
        return False
    tree = ast.parse(python(cell))
    top = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for node in (inner for outer in top for inner in ast.walk(outer)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "plt.show", "show"):
            return True
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or cell.source.rstrip().endswith(";"):
        return False
    return not isinstance(last.value, ast.Call) or ast.unparse(last.value.func).startswith(
        ("short", "edges_on_frames", "token_heat", "compare", "pd.")
    )


def test_they_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


@each_notebook
def test_is_valid_and_small(path: Path) -> None:
    nbformat.validate(nbformat.read(path, 4))
    assert path.stat().st_size < MOST_BYTES


@each_notebook
def test_was_run_from_top_to_bottom_without_an_error(path: Path) -> None:
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    told = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not told, told


@each_notebook
def test_cells_that_show_something_have_their_output(path: Path) -> None:
    without = [cell.source for cell in code_cells(path) if shows(cell) and not cell.outputs]
    assert not without
    kinds = {kind for cell in code_cells(path) for o in cell.outputs for kind in o.get("data", {})}
    assert "text/html" in kinds  # tables


@each_notebook
def test_holds_nothing_of_the_machine_that_ran_it(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        assert not cell.metadata
        texts = [cell.source]
        for output in cell.get("outputs", []):
            data = {k: v for k, v in output.get("data", {}).items() if k.startswith("text/")}
            texts += [output.get("text", ""), *data.values()]
        for text in texts:
            assert not MACHINE_PATH.search(text), MACHINE_PATH.search(text)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"


def test_a_path_of_a_machine_is_recognised() -> None:
    for text in ("/home/me/x", "in '/tmp/x'", "root=/Users/me", '"C:\\\\Users\\\\me"'):
        assert MACHINE_PATH.search(text), text
    for text in ("../data/notebooks", "Train/test", "https://a.org/work/home/"):
        assert not MACHINE_PATH.search(text), text


@each_notebook
def test_imports_what_is_declared(path: Path) -> None:
    for cell in code_cells(path):
        unknown = imported(python(cell)) - declared()
        assert not unknown


def test_the_shared_module_imports_what_is_declared() -> None:
    unknown = imported((FOLDER / "common.py").read_text()) - declared()
    assert not unknown


@each_notebook
def test_defines_no_model(path: Path) -> None:
    """The one exception is the point of its notebook: an operator."""
    classes = [
        node.name
        for cell in code_cells(path)
        for node in ast.walk(ast.parse(python(cell)))
        if isinstance(node, ast.ClassDef)
    ]
    assert classes == (["ChangeConv"] if path.stem == "02_swap_operators" else [])


def test_stored_json_is_plain() -> None:
    for path in NOTEBOOKS:
        assert json.loads(path.read_text())["nbformat"] == 4
