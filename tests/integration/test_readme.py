import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_python_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert names["logits"].shape == (2, 99)  # type: ignore[attr-defined]
    assert names["graphs"].num_graphs == 8  # type: ignore[attr-defined]
