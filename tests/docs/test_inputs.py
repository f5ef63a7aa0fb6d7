"""The page *Inputs* has the rows that the tests walk."""

from documents import ROOT
from inputs_page import page


def test_the_page_is_made_from_the_lists_that_the_tests_walk():
    text = (ROOT / "docs" / "reference" / "inputs.md").read_text(encoding="utf-8")
    assert text == page()
    assert sum(line.startswith("| ") and "|---" not in line for line in text.splitlines()) - 4 >= 80
