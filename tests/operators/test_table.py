from pathlib import Path

from taghead.operators.table import table

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_committed_table_is_current():
    """If not: python -m taghead.operators.table > docs/operators.md"""
    assert PAGE.read_text() == table()
