"""The table of methods in the reference is that of the code."""

from pathlib import Path

from hf_score.baselines import BASELINES, SUPERVISION_KINDS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "baselines.md"


def test_the_table_of_methods_is_that_of_the_code():
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    assert [cells[0].strip("`") for cells in found] == list(BASELINES)
    for (_, title, paper, told, cost, gates), kind in zip(found, BASELINES.values(), strict=True):
        assert (title, paper) == (kind.title, kind.paper)
        assert told == (" + ".join(SUPERVISION_KINDS[s] for s in kind.supervision_kinds) or "–")
        signs = {name: wanted.replace(">=", "≥").replace("<=", "≤") for name, wanted in kind.wanted_gates.items()}
        assert gates == (", ".join(f"`{name}` {wanted}" for name, wanted in signs.items()) or "–")
        assert cost
