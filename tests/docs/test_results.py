"""Figures in the docs are those of the committed rows."""

import re

import pytest
from documents import ROOT
from scipy.stats import t

from hf_score.bench import Plan, RowFile, rows_of
from hf_score.bench.measured import Tests
from hf_score.bench.tables import chosen_runs, dataset_table, render_tables

#: A plan and the folder of its tables.
PLANS = {
    "main": "evidence/results",
    "full": "evidence/results/full",
    "protocol": "evidence/results/protocol",
    "search": "evidence/results/search",
}
#: What the page calls a set and a model of full.yaml.
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
    plan, rows = plan_and_rows(name)
    assert render_tables(plan, rows, tests=Tests.beside(plan.path.with_suffix(".parquet"))) in page


def table_of(heading):
    """The table of docs/evidence/where-it-stands.md whose first column is called so: its head, and a row per place."""
    text = (ROOT / "docs" / "evidence" / "where-it-stands.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {heading} \|.*?\n\n", text, re.DOTALL | re.MULTILINE)[0].strip().splitlines()
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in found]
    assert lines
    return head[1:], {tuple(part.strip() for part in place.split(", ")): cells for place, *cells in lines}


def test_the_table_of_pretrained_models_is_made_from_the_rows():
    rows = plan_and_rows("full")[1]
    methods, lines = table_of("worst group")
    assert "SCORE-X" in methods
    for (set_name, model), cells in lines.items():
        table = dataset_table(rows, SETS[set_name], MODELS[model], list(rows["name"].unique()))
        expected = [table.loc[table["method"] == method, "worst group"].item() for method in methods]
        assert cells == expected, (set_name, model)


def test_the_differences_to_the_best_method_with_groups_are_made_from_the_rows():
    rows = plan_and_rows("full")[1]
    runs = chosen_runs(rows[rows["ablation"].isna()])
    _, lines = table_of("difference")
    assert lines.keys() == table_of("worst group")[1].keys()
    for (set_name, model), cells in lines.items():
        here = runs[(runs["dataset"] == SETS[set_name]) & (runs["model"] == MODELS[model])]
        by_seed = here.pivot(index="seed", columns="title", values="worst_group_accuracy") * 100
        best = (
            by_seed[here.loc[here["kinds"].str.contains("validation|train_groups"), "title"].unique()].mean().idxmax()
        )
        difference = (by_seed["SCORE-X"] - by_seed[best]).dropna()
        half = t.ppf(0.975, len(difference) - 1) * difference.std() / len(difference) ** 0.5
        assert cells == [best, f"{difference.mean():+.1f} ± {half:.1f}", str(len(difference))], (set_name, model)
