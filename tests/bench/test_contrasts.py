"""Declared contrasts: read from a plan, tested over its rows, corrected together, missing ones said to be missing."""

import json

import numpy as np
import pandas as pd
import pytest
from bench_rows import Made, plan_of

from hf_score.bench.contrasts import contrast_table, findings
from hf_score.bench.measured import Tests
from hf_score.bench.rows import rows_of
from hf_score.bench.tables import chosen, render_tables
from hf_score.cli import main
from hf_score.errors import HFScoreError

CONTRASTS = [
    {"name": "gain", "better": "score", "than": "erm"},
    {"name": "more than 20", "better": "score", "than": "erm", "margin": 20},
    {"name": "reversed", "better": "erm", "than": "score"},
    {"name": "no harm", "same": ["erm", "continued_erm"], "margin": 15},
    {"name": "too strict", "same": ["erm", "continued_erm"], "margin": 0.5},
]


def found_in(made):
    tests = Tests.beside(made.path)
    measured = chosen(rows_of(made.plan, made.store), tests)
    return {f.contrast.name: f for f in findings(made.plan.contrasts, made.plan.places(), measured)}


@pytest.fixture
def made(tmp_path):
    made = Made(plan_of(tmp_path, seeds=range(5), contrasts=CONTRASTS))
    for seed in range(5):
        noise = 0.02 * (seed % 3)
        made.add("erm", seed, [0.9, 0.3 + noise, 0.8, 0.9])
        made.add("continued_erm", seed, [0.9, 0.31 + noise, 0.8, 0.9])
        made.add("score", seed, [0.9, 0.52 + noise, 0.8, 0.9])
    return made


def test_each_claim_gets_its_verdict(made):
    found = found_in(made)
    assert {name: finding.verdict for name, finding in found.items()} == {
        "gain": "better",
        "more than 20": "not shown",
        "reversed": "not shown",
        "no harm": "equivalent within 15",
        "too strict": "not shown to be equivalent",
    }
    gain = found["gain"].difference
    assert gain.value == pytest.approx(0.22) and gain.seeds == 5
    assert gain.value == -found["reversed"].difference.value and found["reversed"].p == 1
    # Independent images: the difference of two shares, the same for all seeds, at most.
    assert gain.error < (2 * 0.25 / 100) ** 0.5


def test_missing_rows_are_named_and_make_no_other_contrast_easier(tmp_path, made):
    alone = found_in(made)["gain"]
    more = [*CONTRASTS, {"name": "not run", "better": "score", "than": "lff"}]
    methods = [{"method": name} for name in ("erm", "continued_erm", "score", "lff")]
    made.plan = plan_of(tmp_path, seeds=range(5), contrasts=more, methods=methods)
    found = found_in(made)
    assert (found["not run"].verdict, found["not run"].missing) == ("missing", "lff has no rows")
    assert found["gain"].adjusted == pytest.approx(alone.adjusted * 6 / 5)
    text = render_tables(made.plan, rows_of(made.plan, made.store), tests=Tests.beside(made.path))
    assert "| not run | Data; Model | score above lff | – | – | – | – | – | missing: lff has no rows |" in text
    assert contrast_table(list(found.values()), title={})["seeds"].tolist() == ["5"] * 5 + ["–"]


def test_methods_that_a_plan_runs_nowhere_together_are_missing(tmp_path):
    methods = [{"method": "erm"}, {"method": "score", "models": []}]
    plan = plan_of(tmp_path, seeds=[0], methods=methods, contrasts=CONTRASTS[:1])
    made = Made(plan)
    made.add("erm", 0, [0.9, 0.3, 0.8, 0.9])
    assert found_in(made)["gain"].missing == "the plan runs the two nowhere together"


def test_inactive_and_older_rows_prove_nothing(made):
    rows = made.store.rows
    score = rows["name"] == "score"
    made.store.rows = rows.assign(inactive=np.where(score, "penalty", ""))
    assert found_in(made)["gain"].missing == "score is inactive (penalty)"
    made.store.rows = rows.assign(logits=rows["logits"].where(~score, None))
    assert found_in(made)["gain"].missing == "score has rows of older code alone"
    made.store.rows = rows[(rows["name"] != "score") | (rows["seed"] == 3)]
    assert found_in(made)["gain"].missing == "one seed in common, which says nothing of others"


def test_pairs_of_one_source_are_one_picture(tmp_path):
    found = []
    for name, twice, per_group in (("one", False, 100), ("two", True, 100), ("apart", False, 200)):
        folder = tmp_path / name
        folder.mkdir()
        made = Made(plan_of(folder, seeds=range(3), contrasts=CONTRASTS[:1]), twice=twice, per_group=per_group)
        for seed in range(3):
            made.add("erm", seed, [0.9, 0.3, 0.8, 0.9])
            made.add("score", seed, [0.9, 0.5, 0.8, 0.9])
        found.append(found_in(made)["gain"].difference)
    one, two, apart = found
    assert two.error == pytest.approx(one.error, rel=0.15)
    assert apart.error < 0.85 * two.error


def test_logits_of_another_test_set_are_refused(made):
    made.store.rows["logits"] = made.store.rows["logits"].map(lambda content: content[:-4])
    with pytest.raises(HFScoreError, match="798 logits for 400 test images of 2 classes"):
        found_in(made)


def test_test_images_without_groups_have_accuracies_and_no_worst_group(made):
    file = made.path.with_suffix(".tests.parquet")
    pd.read_parquet(file).assign(groups=[[]]).to_parquet(file)
    assert found_in(made)["gain"].missing == "no seed in common, or no groups"
    measured = chosen(rows_of(made.plan, made.store), Tests.beside(made.path))
    erm = measured.of("erm")
    assert erm.worst_group() is None and erm.rows["worst_group_accuracy"].isna().all()
    assert erm.rows["balanced_accuracy"].mean() == pytest.approx(0.729)
    assert "| ERM | – | – |" in render_tables(made.plan, rows_of(made.plan, made.store), tests=Tests.beside(made.path))


def test_a_file_of_test_sets_that_is_none_is_refused(made):
    made.path.with_suffix(".tests.parquet").write_text("no")
    with pytest.raises(HFScoreError, match=r"cannot read .*plan\.tests\.parquet"):
        Tests.beside(made.path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "a", "better": "score", "than": "nope"}, r"there are no methods \['nope'\]"),
        ({"name": "a", "better": "score"}, "there are no methods"),
        ({"name": "a", "same": ["score"]}, "is not {name, better, than}"),
        ({"name": "a", "same": ["score", "erm"], "better": "erm"}, "is not {name, better, than}"),
        ({"better": "score", "than": "erm"}, "is not {name, better, than}"),
        ({"name": "a", "same": ["score", "erm"], "margin": 0}, "has the margin 0"),
        ({"name": "a", "better": "score", "than": "erm", "margin": "5"}, "has the margin '5'"),
        ({"name": "a", "better": "score", "than": "erm", "by": 5}, "has the field 'by'"),
        ({"name": "a", "better": "score", "than": "erm", "models": ["x"]}, "there are no models"),
        ({"name": "gain", "better": "score", "than": "erm"}, "two contrasts are called 'gain'"),
        ("score > erm", "contrasts are a list"),
    ],
)
def test_a_wrong_contrast_is_refused_in_one_sentence(tmp_path, entry, message, capsys):
    with pytest.raises(HFScoreError, match=message) as refused:
        plan_of(tmp_path, seeds=[0], contrasts=[CONTRASTS[0], entry])
    assert main(["bench", str(tmp_path / "plan.yaml")]) == 2
    error = capsys.readouterr().err
    assert str(refused.value) in error and error.count("\n") == 1


def test_the_tables_have_what_the_logits_say(made):
    rows = rows_of(made.plan, made.store)
    older = rows["name"] == "continued_erm"
    rows.loc[older, ["logits", "gates", "inactive"]] = None
    failed = (rows["name"] == "score") & (rows["seed"] == 2)
    rows.loc[failed, "inactive"] = "penalty"
    text = render_tables(made.plan, rows, tests=Tests.beside(made.path))
    table = text.split("### Data; Model")[1]
    lines = {
        cells[0]: cells for cells in (line.strip("| ").split(" | ") for line in table.splitlines() if "|" in line)
    }
    head = lines["method"]
    cell = {name: dict(zip(head, cells, strict=True)) for name, cells in lines.items()}
    erm = cell["ERM"]
    assert erm["worst group"] == "31.6 ± 1.7" and erm["seeds"] == "5" and erm["images"] == "12,345"
    low, high = map(float, erm["95 % interval"].split(" to "))
    assert low < 31.6 - 3 and 31.6 + 3 < high < 31.6 + 12  # a share of 100 pictures: ± 9
    assert erm["balanced"] == erm["average"] and erm["gates"] == "passed" and erm["epochs"] == "1"
    assert cell["continued ERM"]["95 % interval"] == "–" and cell["continued ERM"]["seeds"] == "5 ‡"
    assert cell["SCORE-X"]["gates"] == "1 of 5 inactive: penalty" and cell["SCORE-X"]["seeds"] == "5"
    assert cell["*chance: a coin*"]["worst group"] == "50.0"
    rows.loc[rows["name"] == "score", "inactive"] = "penalty"
    text = render_tables(made.plan, rows, tests=Tests.beside(made.path))
    assert "| SCORE-X | decisions | inactive |" in text.split("### Worst group †")[0]
    assert "| SCORE-X | decisions | inactive | inactive | inactive |" in text.split("### Data; Model")[1]


def test_one_command_writes_the_tables_of_several_plans_and_what_all_rows_show(tmp_path, capsys):
    files = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        data = {"d": {"title": name, "load": {"dataset": "fashion_patch"}}}
        made = Made(plan_of(tmp_path / name, seeds=[0, 1], contrasts=CONTRASTS[:1], datasets=data))
        files.append(made.plan.path.rename(tmp_path / f"{name}.yaml"))
        for seed in (0, 1):
            history = [{"epoch": 1, "selection": 0.2, "worst_group_accuracy": 0.3, "estimates": {"e": 0.1 * seed}}]
            for key in ("accuracy", "mean_group_accuracy", "weighted_accuracy"):
                history[0][key] = 0.3
            made.add("erm", seed, [0.9, 0.3, 0.8, 0.9], history=json.dumps(history))
            verdict = json.dumps({"outcome": "improved"})
            made.add("score", seed, [0.9, 0.6, 0.8, 0.9], verdict=verdict, history=json.dumps(history))
        for suffix in (".parquet", ".tests.parquet"):
            made.path.with_suffix(suffix).rename(tmp_path / f"{name}{suffix}")
    assert main(["bench", *map(str, files), "--tables", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.split()
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"first/tables.md", "second/tables.md", "second/above-chance.png", "verdict.md", "estimates.md"} <= there
    assert "verdict.png" in there and str(tmp_path / "out" / "verdict.md") in printed
    assert "from 4 runs, 4 with a known verdict" in (tmp_path / "out" / "verdict.md").read_text()
    assert main(["bench", *map(str, files), "--rows", "x.parquet"]) == 2
    assert "is of a single plan" in capsys.readouterr().err
