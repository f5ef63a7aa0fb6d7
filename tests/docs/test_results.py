"""Figures in README and docs are those of the committed rows."""

import re

import pytest
from documents import ROOT

from hf_score.bench import Plan, Store, rows_of
from hf_score.bench.tables import document, set_table

PLAN = Plan(ROOT / "benchmarks" / "main.yaml")
#: What README calls a set and a model.
SETS = {"Fashion 95 %": "fashion", "ISIC patches": "isic", "birds 95 %": "birds95", "birds 100 %": "birds100"}
MODELS = {"DeiT-tiny 96 px": "deit", "EfficientNet-Lite0 64 px": "lite0", "EfficientNet-Lite0 128 px": "lite0_128"}


@pytest.fixture(scope="module")
def rows():
    return rows_of(PLAN, Store(PLAN.path.with_suffix(".parquet")))


def test_the_page_of_results_is_made_from_the_rows(rows):
    page = (ROOT / "docs" / "results" / "tables.md").read_text(encoding="utf-8")
    assert document(PLAN, rows) in page


def test_readmes_table_of_pretrained_models_is_made_from_the_rows(rows):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head, *lines = re.search(r"^\| worst group \|.*?\n\n", text, re.DOTALL | re.MULTILINE)[0].strip().splitlines()
    methods = [cell.strip() for cell in head.strip("|").split("|")][1:]
    assert len(lines) > 1 and "SCORE" in methods
    for line in lines[1:]:
        place, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        set_name, model = (part.strip() for part in place.split(", "))
        table = set_table(rows, SETS[set_name], MODELS[model], list(rows["name"].unique()))
        expected = [table.loc[table["method"] == method, "worst group"].item() for method in methods]
        assert cells == expected, place
