"""Figures in README and docs are those of the committed rows."""

import re

import pytest
from documents import ROOT

from hf_score.bench import Plan, RowFile, rows_of
from hf_score.bench.tables import render_tables, set_table

#: A plan and the folder of its tables.
PLANS = {"main": "evidence/results", "full": "evidence/results/full"}
#: What README calls a set and a model of full.yaml.
SETS = {"Fashion 95 %": "fashion", "ISIC patches": "isic", "birds 95 %": "birds95", "birds 100 %": "birds100"}
MODELS = {
    "DeiT-tiny 112 px": "deit_112",
    "DeiT-tiny": "deit",
    "EfficientNet-Lite0 112 px": "lite0_112",
    "EfficientNet-Lite0": "lite0",
}


def plan_and_rows(name):
    plan = Plan(ROOT / "benchmarks" / f"{name}.yaml")
    return plan, rows_of(plan, RowFile(plan.path.with_suffix(".parquet")))


@pytest.mark.parametrize("name", PLANS)
def test_the_page_of_results_is_made_from_the_rows(name):
    page = (ROOT / "docs" / PLANS[name] / "tables.md").read_text(encoding="utf-8")
    assert render_tables(*plan_and_rows(name)) in page


def test_readmes_table_of_pretrained_models_is_made_from_the_rows():
    rows = plan_and_rows("full")[1]
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
