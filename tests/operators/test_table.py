from pathlib import Path

from taghead.operators.kernels import table

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_committed_table_is_current():
    """If not: python -c "from taghead.operators.kernels import table; print(table())" """
    assert f"\n\n{table()}\n\n" in PAGE.read_text()
