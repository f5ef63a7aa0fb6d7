"""A small plan from YAML to rows, tables and plots: resumed, run again, in several processes, refused where wrong."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from hf_score.bench import TRAINERS, Plan, RowFile, find_trainer, rows_of, run_plan, write_tables
from hf_score.bench.job import Job
from hf_score.bench.plots import against_lambda
from hf_score.bench.samples import SAMPLES
from hf_score.bench.tables import chosen_runs, dataset_table, render_tables
from hf_score.cli import main
from hf_score.errors import HFScoreError
from hf_score.training.supervision import in_words

PLAN = {
    "seeds": [0],
    "datasets": {"fashion": {"load": {"dataset": "fashion_patch", "num_train": 300}, "samples": {"mask_area": 0.1}}},
    "models": {
        "cnn": {
            "load": {"name_or_path": "test_resnet", "from_scratch": True, "image_size": 32},
            "erm": {"num_train_epochs": 3, "learning_rate": 2e-3},
            "finetune": {"num_train_epochs": 1, "learning_rate": 5e-4, "class_balanced": True},
        }
    },
    "methods": [
        {"method": "erm"},
        {"method": "continued_erm", "grid": {"learning_rate": [5e-4, 1e-3]}},
        {"method": "score", "config": {"score_lambda": 1.0}, "samples": {"choose": "random"}},
        {
            "method": "score",
            "name": "score_l0",
            "title": "SCORE, λ = 0",
            "config": {"score_lambda": 0.0},
            "samples": {"choose": "random"},
            "ablation": "λ",
        },
    ],
}
# What a second run may not change.
MEASURED = [
    "worst_group_accuracy",
    "accuracy",
    "selection",
    "relevance_in_region",
    "insertion_effect",
    "history",
]


def write_plan(folder, **changes):
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **changes}))
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The plan's folder after one run."""
    torch.set_num_threads(1)  # as in the tests, so that a second run can give the same numbers
    folder = tmp_path_factory.mktemp("bench")
    run_plan(Plan(write_plan(folder)), folder / "plan.parquet", cache=folder / "cache")
    return folder


def test_one_row_per_run_says_where_it_comes_from(bench):
    rows = pd.read_parquet(bench / "plan.parquet")
    assert rows["name"].tolist() == ["erm", "continued_erm", "continued_erm", "score", "score_l0"]
    assert rows["key"].is_unique
    assert (
        rows["supervision"].tolist() == ["class labels"] * 3 + ["class labels + which classes have the shortcut"] * 2
    )
    assert (rows["wall_seconds"] > 0).all()
    assert (rows["peak_memory_mib"] > 50).all()
    assert set(json.loads(rows["versions"][0])) >= {"torch", "transformers", "hf-score"}
    assert rows["hardware"].str.contains("NVIDIA" if torch.cuda.is_available() else "CPU").all()
    settings = json.loads(rows["settings"][3])
    assert settings["config"]["score_lambda"] == 1.0
    assert settings["samples"] == {**SAMPLES, "choose": "random", "mask_area": 0.1}
    history = json.loads(rows["history"][3])
    assert history[-1]["epoch"] == 1.0
    assert rows["worst_group_accuracy"][3] == max(history, key=lambda row: row["selection"])["worst_group_accuracy"]


def test_measures_are_those_of_the_model(bench):
    job = Job(Plan(bench / "plan.yaml"), "fashion", "cnn", 0, bench / "cache")
    model = job.start("erm").eval()
    with torch.no_grad():
        predicted = model(pixel_values=job.test.pixel_values).logits.argmax(-1).cpu().numpy()
    right = predicted == np.asarray(job.data.test["label"])
    groups = np.asarray(job.data.test["group"])
    row = pd.read_parquet(bench / "plan.parquet").iloc[0]
    assert row["accuracy"] == pytest.approx(right.mean())
    assert row["worst_group_accuracy"] == pytest.approx(min(right[groups == g].mean() for g in range(4)))


def test_a_second_run_gives_the_same_numbers(bench, tmp_path, capsys):
    run_plan(Plan(bench / "plan.yaml"), tmp_path / "again.parquet", cache=tmp_path / "cache")
    assert "[3/5] fashion, cnn, seed 0, continued ERM, learning_rate 0.001: worst group" in capsys.readouterr().out
    first, again = pd.read_parquet(bench / "plan.parquet"), pd.read_parquet(tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(first[["key", *MEASURED]], again[["key", *MEASURED]])


def test_rows_that_are_there_are_not_run_again(bench, tmp_path, capsys):
    rows = pd.read_parquet(bench / "plan.parquet").drop(index=[1])
    rows.to_parquet(tmp_path / "rows.parquet")
    store = run_plan(Plan(bench / "plan.yaml"), tmp_path / "rows.parquet", cache=bench / "cache")
    assert "4 rows" in capsys.readouterr().out
    assert store.keys == set(pd.read_parquet(bench / "plan.parquet")["key"])


def test_other_settings_are_another_run(bench):
    changed = Plan(write_plan(bench.parent, evaluations=1))
    assert not {cell.key for cell in changed.cells()} & {cell.key for cell in Plan(bench / "plan.yaml").cells()}


@pytest.mark.slow
def test_several_processes_give_the_same_rows(bench, tmp_path):
    plan = write_plan(tmp_path, seeds=[0, 1])
    code = (
        "import sys; from hf_score.bench import Plan, run_plan\n"
        "if __name__ == '__main__':\n"
        "    run_plan(Plan(sys.argv[1]), sys.argv[2], cache=sys.argv[3], workers=2, only={'name': ['erm']})"
    )
    (tmp_path / "go.py").write_text(code)
    command = [sys.executable, tmp_path / "go.py", plan, tmp_path / "rows.parquet", bench / "cache"]
    subprocess.run(command, check=True, timeout=300)
    rows = pd.read_parquet(tmp_path / "rows.parquet").set_index("seed")
    one = pd.read_parquet(bench / "plan.parquet").iloc[0]
    assert rows.loc[0, "key"] == one["key"]
    assert rows.loc[0, "accuracy"] == pytest.approx(one["accuracy"], abs=0.005)  # one thread each
    assert rows.loc[1, "key"] != one["key"]


def test_a_run_that_fails_is_named_and_the_others_go_on(bench, tmp_path, capsys):
    methods = [
        {"method": "score", "config": {"score_layer": "nowhere", "score_form": "paper"}},
        *PLAN["methods"][:1],
    ]
    with pytest.raises(HFScoreError, match=r"1 of 2 runs failed.*SCORE"):
        run_plan(Plan(write_plan(tmp_path, methods=methods)), tmp_path / "rows.parquet", cache=bench / "cache")
    assert "nowhere" in capsys.readouterr().out
    assert pd.read_parquet(tmp_path / "rows.parquet")["name"].tolist() == ["erm"]


def test_a_grid_is_chosen_from_by_the_label_free_estimate_or_by_an_oracle():
    def run(selection, wga, validation):
        history = [
            {"worst_group_accuracy": wga, "accuracy": 0.5, "mean_group_accuracy": 0.5, "weighted_accuracy": 0.5}
        ]
        history[0]["validation"] = validation
        names = {"dataset": "s", "model": "m", "name": "n", "seed": 0, "key": str(wga)}
        return {**names, "selection": selection, "worst_group_accuracy": wga, "history": json.dumps(history)}

    rows = pd.DataFrame([run(0.9, 0.1, 0.2), run(0.8, 0.6, 0.7)])
    assert chosen_runs(rows)["worst_group_accuracy"].tolist() == [0.1]
    assert chosen_runs(rows, oracle=True)["worst_group_accuracy"].tolist() == [0.6]


def test_entries_may_share_runs_and_an_unfinished_grid_is_left_out(bench, tmp_path, capsys):
    more = [
        {"method": "continued_erm", "name": "shared", "title": "shared", "grid": {"learning_rate": [5e-4, 1e-3]}},
        {"method": "score", "name": "unfinished", "grid": {"score_lambda": [0.0, 5.0]}},
        {"method": "erm", "name": "not said", "config": {"weight_decay": None}},
    ]
    plan = Plan(write_plan(tmp_path, methods=[*PLAN["methods"], *more]))
    rows = rows_of(plan, RowFile(bench / "plan.parquet"))
    counts = rows["name"].value_counts().to_dict()
    assert counts == {"erm": 1, "continued_erm": 2, "score": 1, "score_l0": 1, "shared": 2, "not said": 1}
    pair = [rows[rows["name"] == name].drop(columns=["name", "title"]) for name in ("continued_erm", "shared")]
    pd.testing.assert_frame_equal(*(part.reset_index(drop=True) for part in pair))
    run_plan(plan, bench / "plan.parquet", cache=bench / "cache", only={"name": ["shared", "not said"]})
    assert "0 runs to do" in capsys.readouterr().out


def test_tables_and_plots_come_from_the_rows_alone(bench, tmp_path):
    folder = write_tables(Plan(bench / "plan.yaml"), RowFile(bench / "plan.parquet"), tmp_path / "tables")
    rows = pd.read_parquet(bench / "plan.parquet")
    text = (folder / "tables.md").read_text()
    erm = f"{100 * rows['worst_group_accuracy'][0]:.1f}"
    assert f"| ERM | – | {erm} |" in text
    assert "| SCORE-X | decisions |" in text
    assert "SCORE, λ = 0" in text.split("### Ablations")[1]
    assert "SCORE, λ = 0" not in text.split("### Ablations")[0]
    latex = (folder / "tables.tex").read_text()
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == text.count("### ")
    assert "%" not in latex.replace(r"\%", "")
    assert {p.name for p in folder.glob("*.png")} == {
        "above-chance.png",
        "against-supervision.png",
        "before-after.png",
        "against-lambda.png",
    }


def test_the_plot_against_lambda_is_of_runs_that_differ_in_nothing_else(bench):
    plan, rows = Plan(bench / "plan.yaml"), pd.read_parquet(bench / "plan.parquet")
    longer = rows[rows["name"] == "score"].assign(key="longer", name="longer", worst_group_accuracy=0.0)
    longer["settings"] = longer["settings"].str.replace('"num_train_epochs": 1', '"num_train_epochs": 9')
    assert longer["settings"].str.contains('"num_train_epochs": 9').all()
    shown = []
    for these in (rows, pd.concat([rows, longer])):
        figure = against_lambda(plan, these)
        shown.append([line.get_xydata().tolist() for line in figure.axes[0].get_lines()])
    assert shown[0] == shown[1]
    assert {x for x, _ in shown[0][0]} == {0.0, 1.0}


def test_rows_of_runs_that_the_plan_no_longer_has_stay_out_of_the_tables(bench, tmp_path):
    plan = Plan(write_plan(tmp_path, methods=PLAN["methods"][:1]))
    text = (write_tables(plan, RowFile(bench / "plan.parquet"), tmp_path / "tables") / "tables.md").read_text()
    assert "| ERM |" in text
    assert "| SCORE-X |" not in text


def test_the_plan_says_what_a_run_is_called(bench, tmp_path):
    content = yaml.safe_load((bench / "plan.yaml").read_text())
    content["methods"][0] |= {"title": "another title"}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(content))
    store = RowFile(bench / "plan.parquet")
    text = (write_tables(Plan(tmp_path / "plan.yaml"), store, tmp_path / "tables") / "tables.md").read_text()
    assert "| another title |" in text and not store.rows["title"].eq("another title").any()


def test_tables_do_not_depend_on_the_order_of_rows(bench):
    rows = pd.read_parquet(bench / "plan.parquet")
    plan = Plan(bench / "plan.yaml")
    assert render_tables(plan, rows) == render_tables(plan, rows.iloc[::-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": [{"method": "scor"}]}, "there is no method 'scor': did you mean 'score'"),
        ({"methods": [{"method": "erm", "datasets": ["nope"]}]}, "there are no datasets"),
        ({"methods": [{"method": "erm", "lambda": 1}]}, "method erm has the field 'lambda'"),
        ({"models": {"cnn": {"weights": 1}}}, "model cnn has the field 'weights'"),
        ({"speed": 1}, "the plan has the field 'speed'"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_sentence(tmp_path, changes, message, capsys):
    assert main(["bench", str(write_plan(tmp_path, **changes))]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "erm,emr"], "no run has the method 'emr': use "),
        (["--seeds", "9"], "no run has the seed '9': use "),
        (["--workers", "0"], "0 workers run nothing"),
    ],
)
def test_a_part_that_the_plan_has_not_is_refused(tmp_path, options, message, capsys):
    assert main(["bench", str(write_plan(tmp_path)), *options]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1 and not captured.out


def test_parts_that_no_run_has_together_are_refused(tmp_path):
    methods = [{"method": "erm"}, {"method": "score", "seeds": [5]}]
    plan = Plan(write_plan(tmp_path, methods=methods))
    assert {cell.seed for cell in plan.cells({"name": ["erm", "score"], "seed": ["5"]})} == {5}
    with pytest.raises(HFScoreError, match="no run has method erm, seed 5 together"):
        plan.cells({"name": ["erm"], "seed": ["5"]})


def test_a_method_is_given_what_it_declares_and_nothing_else(bench):
    job = Job(Plan(bench / "plan.yaml"), "fashion", "cnn", 0, bench / "cache")
    assert job.data.train_groups is None
    for cell in Plan(bench / "plan.yaml").cells():
        given = job.supervision(cell)._given
        assert {kind for kind, value in given.items() if value is not None} == set(
            cell.trainer_class.supervision_kinds
        )


def test_every_method_can_be_named():
    for name, trainer in TRAINERS.items():
        assert find_trainer(name) is trainer and trainer.name == name
        with pytest.raises(HFScoreError, match=f"there is no method '{name}x': did you mean '{name}'"):
            find_trainer(f"{name}x")
        words = in_words(trainer.supervision_kinds)
        assert words.count(" + ") == len(trainer.supervision_kinds) and words.startswith("class labels")
    assert in_words(find_trainer("score").supervision_kinds) == "class labels + decisions"
    with pytest.raises(HFScoreError, match=r"there is no method 'zzz': use one of erm, .*, score"):
        find_trainer("zzz")


# ---- Words of the release before ----

OLD_CONFIG = {"score_penalised": "activation", "score_reading": "channel", "score_swap_weight": 0.5}
NEW_CONFIG = {
    "score_form": "paper",
    "score_neuron_strength": "activation",
    "score_granularity": "channel",
    "score_exchange_weight": 0.5,
}


def plan_of_methods(folder, config, *, old):
    """A plan whose models and methods name data sets and options, in old words or in new ones."""
    datasets, by_dataset = ("sets", "by_set") if old else ("datasets", "by_dataset")
    weight = "score_swap_weight" if old else "score_exchange_weight"
    methods = [
        {"method": "score", "config": config, datasets: ["fashion"], by_dataset: {"fashion": {weight: 0.25}}},
        {"method": "score", "name": "grid", "grid": {weight: [0.0, None]}},
    ]
    models = {"cnn": {**PLAN["models"]["cnn"], datasets: ["fashion"]}}
    content = {**PLAN, "methods": methods, "models": models}
    content[datasets] = content.pop("datasets")
    folder.mkdir()
    (folder / "plan.yaml").write_text(yaml.safe_dump(content))
    return folder / "plan.yaml"


def test_a_plan_in_old_words_is_the_same_plan(tmp_path):
    new = Plan(plan_of_methods(tmp_path / "new", NEW_CONFIG, old=False)).cells()
    with pytest.warns(FutureWarning) as said:
        old = Plan(plan_of_methods(tmp_path / "old", OLD_CONFIG, old=True)).cells()
    assert [(c.key, c.name, c.dataset) for c in old] == [(c.key, c.name, c.dataset) for c in new]
    assert len(old) == 3 and old[0].config["score_exchange_weight"] == 0.25
    texts = [str(warning.message) for warning in said]
    for name, called in {"sets": "datasets", "by_set": "by_dataset", "score_reading": "score_granularity"}.items():
        assert any(f"plan.yaml: {name} is called {called} now" in text for text in texts)


def test_rows_in_old_words_are_recognised(tmp_path, capsys):
    new = Plan(plan_of_methods(tmp_path / "new", NEW_CONFIG, old=False))
    cell = new.cells()[0]
    settings = json.loads(cell.settings)
    settings["config"] = {
        **{k: v for k, v in settings["config"].items() if k not in NEW_CONFIG},
        **OLD_CONFIG,
        "score_swap_weight": 0.25,
    }
    row = {"key": "0123456789abcdef", "set": "fashion", "name": "score", "title": "SCORE", "ablation": None}
    path = tmp_path / "rows.parquet"
    pd.DataFrame([{**row, "settings": json.dumps(settings, sort_keys=True)}]).to_parquet(path)
    store = RowFile(path)
    assert store.keys == {cell.key}
    assert rows_of(new, store)["dataset"].tolist() == ["fashion"]
    store.add({**store.rows.iloc[0].to_dict(), "key": "other"})
    kept = pd.read_parquet(path)
    assert "set" not in kept and kept["key"].tolist() == [cell.key, "other"]


def test_the_command_line_takes_old_words(bench, capsys):
    words = ["bench", str(bench / "plan.yaml"), "--rows", str(bench / "plan.parquet"), "--cache", str(bench / "cache")]
    with pytest.warns(FutureWarning, match="sets is called datasets now"):
        assert main([*words, "--sets", "fashion", "--methods", "erm"]) == 0
    assert "0 runs to do" in capsys.readouterr().out


def test_gaps_of_two_shortcuts_have_columns():
    """Where rows have them, and nowhere else."""
    names = {"background gap": (-0.1, -0.3), "object gap": (-0.2, None), "background + object gap": (-0.5, -0.7)}
    rows = []
    for seed in (0, 1):
        measures = {"worst_group_accuracy": 0.5, "accuracy": 0.6, "mean_group_accuracy": 0.6, "weighted_accuracy": 0.6}
        gaps = json.dumps({name: values[seed] for name, values in names.items()})
        both = {**measures, "relevance_in_region": 0.1, "insertion_flips": 0.1, "selection": 0.5, "wall_seconds": 1.0}
        history = json.dumps([{**measures, "validation": 0.5, "selection": 0.5}])
        common = {**both, "history": history, "model": "cnn", "name": "erm", "title": "ERM", "kinds": "", "seed": seed}
        rows += [{**common, "dataset": "two", "key": f"a{seed}", "gaps": gaps}]
        rows += [{**common, "dataset": "one", "key": f"b{seed}", "gaps": None}]
    table = pd.DataFrame(rows)
    two = dataset_table(table, "two", "cnn", ["erm"]).iloc[0]
    assert two["background gap"] == "-20.0 ± 14.1"
    assert two["object gap"].startswith("-20.0")
    assert two["background + object gap"] == "-60.0 ± 14.1"
    for without in (table, table.drop(columns="gaps")):
        assert not set(names) & set(dataset_table(without, "one", "cnn", ["erm"]).columns)
