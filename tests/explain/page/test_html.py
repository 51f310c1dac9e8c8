"""The written HTML, without a browser."""

from typing import Any

from tiny import HOSTILE


def test_nothing_of_a_name_becomes_html(explained: Any) -> None:
    page = (explained.folder / "page.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 2  # the data, and the page's own
    assert "alert(0)" in page  # the file's name, escaped
    assert "<img src=x" not in page
    assert HOSTILE in explained.numbers["classes"][0]["class"] + str(explained.numbers["classes"])
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
