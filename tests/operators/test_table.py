"""The tables of operators in docs/operators.md and docs/algebra.md are those of the kernels."""

import inspect
import re
from pathlib import Path

import pytest

from taghead.operators.kernel import UNOBSERVED
from taghead.operators.kernels import KERNELS, attend, linear, mixed, pairwise, reduce

DOCS = Path(__file__).parents[2] / "docs"
WIDTHS = {"self", "kwargs", "in_channels", "out_channels", "channels"}
FAMILIES = {
    "linear": linear,
    "reduce": reduce,
    "attend": attend,
    "pairwise": pairwise,
    "several": mixed,
}


def table() -> str:
    """What holds for all operators, and a row for each, as Markdown."""
    rows = [("operator", "options", "edge features", "dense where"), ("---",) * 4]
    for cls in sorted(KERNELS, key=lambda cls: cls.__name__.lower()):
        kernel, names = KERNELS[cls], inspect.signature(cls.__init__).parameters
        options = ", ".join(f"`{name}`" for name in names if name not in WIDTHS)
        conditions = "; ".join(condition.text for condition in kernel.conditions)
        rows.append((f"`{cls.__name__}`", options, "yes" * kernel.edge_attr, conditions))
    conditions = ", ".join(condition.text for condition in UNOBSERVED)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"Of every operator it must hold that {conditions}.", "", *lines])


def test_the_committed_table_is_current():
    """If not, put what `python tests/operators/test_table.py` prints in its place."""
    assert f"\n\n{table()}\n\n" in (DOCS / "operators.md").read_text()


@pytest.mark.parametrize("verb", FAMILIES)
def test_the_table_of_verbs_has_the_operators_of_each_file(verb):
    (row,) = re.findall(rf"^\| {verb} \|.*", (DOCS / "algebra.md").read_text(), re.MULTILINE)
    *_, code, operators, _ = row.split("|")
    names = operators.split(";")[0].split(",")
    assert {name.strip() for name in names} == {c.__name__ for c in FAMILIES[verb].KERNELS}
    assert f"kernels/{FAMILIES[verb].__name__.rpartition('.')[2]}.py" in code


if __name__ == "__main__":
    print(table())
