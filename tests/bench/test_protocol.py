"""What makes rows comparable: keys, logits, verdicts, gates, deciders, budgets, nested choice; one's own data."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from documents import BLOCKS

from hf_score.bench import Plan, RowFile, nested_choice, rows_of, run_plan, write_tables
from hf_score.bench.gates import judged_gates
from hf_score.bench.job import Job
from hf_score.bench.samples import told
from hf_score.bench.watch import ImagePasses
from hf_score.data import load_data
from hf_score.detection import Decision, Selection
from hf_score.errors import HFScoreError
from hf_score.training import SCOREConfig

CNN = {
    "load": {"name_or_path": "test_resnet", "from_scratch": True, "image_size": 32},
    "erm": {"num_train_epochs": 2, "learning_rate": 2e-3},
    "finetune": {"num_train_epochs": 1, "learning_rate": 5e-4},
}
FASHION = {"load": {"dataset": "fashion_patch", "num_train": 300}, "samples": {"mask_area": 0.1, "num_keep": 6}}
PLAN = {"seeds": [0], "datasets": {"fashion": FASHION}, "models": {"cnn": CNN}, "methods": [{"method": "score"}]}


def write_plan(folder, name="plan.yaml", **changes):
    (folder / name).write_text(yaml.safe_dump({**PLAN, **changes}))
    return Plan(folder / name)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A plan of class folders without groups or masks, with a method of its own, after a run that two methods fail."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("own")
    data = load_data("fashion_patch", num_train=200)
    for split, rows in (("train", data.train), ("test", data.test)):
        for number, item in enumerate(rows.select(range(120))):
            place = folder / "data" / split / data.class_names[item["label"]]
            place.mkdir(parents=True, exist_ok=True)
            item["image"].save(place / f"{number}.png")
    page = next(b for b in BLOCKS if b.page.endswith("add-a-baseline.md") and b.language == "python")
    (folder / "mine.py").write_text(page.text)
    proposals = {"choose": "proposals", "num_keep": 8}
    plan = write_plan(
        folder,
        modules=["mine.py"],
        datasets={"mine": {"load": {"dataset": str(folder / "data")}, "samples": proposals}},
        methods=[
            {"method": "erm"},
            {"method": "worst_class"},
            {"method": "score"},
            {"method": "group_dro"},
            {"method": "score", "name": "oracle", "samples": {"choose": "oracle"}},
        ],
    )
    with pytest.raises(HFScoreError, match=r"2 of 5 runs failed, first .*GroupDRO"):
        run_plan(plan, folder / "rows.parquet", cache=folder / "cache")
    return folder


def test_own_data_without_groups_gives_a_verdict_for_every_method(own, tmp_path, capsys):
    store = RowFile(own / "rows.parquet")
    rows = store.rows.set_index("name")
    assert rows.index.tolist() == ["erm", "worst_class", "score"]
    assert rows["worst_group_accuracy"].isna().all() and rows["accuracy"].between(0, 1).all()
    verdicts = {name: json.loads(verdict) for name, verdict in rows["verdict"].items()}
    assert {v["outcome"] for v in verdicts.values()} <= {"improved", "unchanged", "worse", "unknown"}
    assert {v["decided_by"] for v in verdicts.values()} == {"proposals nobody looked at"}
    assert verdicts["erm"]["change"]["inserted"]["value"] == 0  # beside itself
    assert len({v["figures"]["inserted"]["count"] for v in verdicts.values()}) == 1  # the same pictures for all
    assert store.tests["groups"].isna().all() and len(store.tests) == 1
    text = (write_tables(Plan(own / "plan.yaml"), store, tmp_path) / "tables.md").read_text()
    assert "Without groups (regions: proposals nobody looked at)" in text
    assert "| worst class | class labels |" in text
    assert "%" not in (tmp_path / "tables.tex").read_text().replace(r"\%", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("group_dro", "GroupDRO needs groups of the training set, and 'data' has none: leave the method out there"),
        ("oracle", "'data' has none: add masks to its `load`, or say `choose: proposals`"),
    ],
)
def test_what_own_data_lack_is_said_in_a_sentence(own, tmp_path, capsys, name, message):
    with pytest.raises(HFScoreError, match="1 of 1 runs failed"):
        run_plan(Plan(own / "plan.yaml"), own / "rows.parquet", cache=own / "cache", only={"name": [name]})
    said = capsys.readouterr().out
    assert message in said and "Traceback" not in said


def test_logits_are_those_of_the_row(own):
    store = RowFile(own / "rows.parquet")
    for row in store.rows.to_dict("records"):
        test = store.tests.set_index("test").loc[row["test"]]
        logits = np.frombuffer(row["logits"], dtype=np.float16).reshape(len(test["labels"]), -1)
        right = logits.argmax(1) == np.asarray(test["labels"])
        assert right.mean() == pytest.approx(row["accuracy"], abs=1.01 / len(right))  # a tie in half precision
        assert len(test["sources"]) == len(right) and logits.shape[1] == len(test["class_names"])


def test_images_are_counted_that_train_and_no_others(own):
    rows = RowFile(own / "rows.parquet").rows.set_index("name")
    job = Job(Plan(own / "plan.yaml"), "mine", "cnn", 0, own / "cache")
    assert rows.loc["erm", "image_passes"] == 2 * len(job.train)
    assert rows.loc["worst_class", "image_passes"] == 2 * len(job.train)
    assert rows.loc["score", "image_passes"] > len(job.train)


def test_a_decisions_file_is_explained_by_the_job_s_model(own, tmp_path):
    job = Job(Plan(own / "plan.yaml"), "mine", "cnn", 0, own / "cache")
    some = [int(idx) for idx in job.train.idx[:5]]
    labels = [int(label) for label in job.train.labels[:5]]
    decisions = [Decision(idx, label, "spurious", "person") for idx, label in zip(some, labels, strict=True)]
    Selection(tuple(decisions), job.data.fingerprint, "another model").save(own / "decided.json")
    samples = job.samples({"choose": "file", "selection": "decided.json"})
    assert samples.idx.tolist() == some and samples.labels.tolist() == labels
    candidates = job.chosen.candidates(mask_share=0.95, mask_area=0.2)
    row_of = {int(idx): row for row, idx in enumerate(candidates.idx)}
    shared = [position for position, idx in enumerate(some) if idx in row_of]
    assert shared
    for position in shared:
        assert np.array_equal(samples.masks[position].numpy(), candidates.masks[row_of[some[position]]])
    Selection((Decision(10**6, 0, "spurious", "person"),), job.data.fingerprint, "m").save(own / "wrong.json")
    with pytest.raises(HFScoreError, match="keeps sample 1000000, which is not trained on"):
        job.samples({"choose": "file", "selection": "wrong.json"})


def test_a_plan_and_its_own_methods_reach_another_process(own):
    plan = Plan(own / "plan.yaml")
    again, cells = pickle.loads(pickle.dumps((plan, plan.cells())))
    assert again.trainers["worst_class"] is cells[1].trainer_class
    assert [cell.key for cell in again.cells()] == [cell.key for cell in plan.cells()]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "there is no Python file"),
        ("1 / 0", "cannot be run .ZeroDivisionError"),
        ("x = 1", "defines no BaselineTrainer"),
        (
            "from hf_score.baselines import BaselineTrainer\nclass T(BaselineTrainer):\n    name = 'erm'",
            "there is a method 'erm' already: give T another",
        ),
    ],
)
def test_a_module_that_gives_no_method_is_refused(tmp_path, code, message):
    if code is not None:
        (tmp_path / "mine.py").write_text(code)
    with pytest.raises(HFScoreError, match=message):
        write_plan(tmp_path, modules=["mine.py"])


# ---- Keys ----


def test_a_changed_default_or_version_is_another_run(tmp_path, monkeypatch):
    from hf_score.bench import configuration
    from hf_score.training import SCORETrainer

    plan = write_plan(tmp_path)
    (before,) = plan.cells()
    said = write_plan(tmp_path, methods=[{"method": "score", "config": {"score_batch_size": 16}}]).cells()[0]
    assert said.key == before.key and said.older_key != before.older_key  # the default, said or not
    monkeypatch.setattr(SCORETrainer, "version", 2, raising=False)
    assert plan.cells()[0].key != before.key and plan.cells()[0].older_key == before.older_key
    monkeypatch.undo()
    config = json.loads(before.settings)["config"]
    fields = configuration.resolved(SCOREConfig, {})
    assert config.keys() == fields.keys() and config["weight_decay"] == 0.0 and config["score_lambda"] == 3.0


def test_rows_of_older_code_are_shown_and_run_again(tmp_path):
    plan = write_plan(tmp_path)
    (cell,) = plan.cells()
    row = {"key": cell.older_key, "settings": cell.older_settings, "name": "score", "title": "t", "ablation": None}
    store = RowFile(tmp_path / "rows.parquet")
    store.add({**row, "seed": 0})
    assert rows_of(plan, RowFile(store.path))["older"].tolist() == [True]
    store.add({**row, "key": cell.key, "settings": cell.settings, "seed": 0})
    found = rows_of(plan, RowFile(store.path))
    assert found["older"].tolist() == [False] and found["key"].tolist() == [cell.key]


def test_rows_of_other_data_are_run_again(own, capsys):
    plan = Plan(own / "plan.yaml")
    only = {"name": ["erm"]}
    run_plan(plan, own / "rows.parquet", cache=own / "cache", only=only)
    assert "0 runs to do" in capsys.readouterr().out
    store = RowFile(own / "rows.parquet")
    store.rows.loc[store.rows["name"] == "erm", "fingerprint"] = "of other images"
    store.path = own / "other.parquet"
    store.write()
    store = run_plan(plan, own / "other.parquet", cache=own / "cache", only=only)
    assert "1 rows are of data that have changed" in capsys.readouterr().out
    assert (store.rows["fingerprint"] != "of other images").all() and len(store.rows) == 3


# ---- Deciders, gates, budgets ----


def test_deciders_choose_what_they_say(tmp_path):
    plan = write_plan(tmp_path)
    job = Job(plan, "fashion", "cnn", 0, tmp_path / "cache")
    base = {"mask_area": 0.1, "num_keep": 6, "threshold": 0.05}
    oracle = job.samples(base)
    wrong = job.samples({**base, "wrong_share": 0.5})
    assert len(wrong) == len(oracle)
    for label in oracle.labels.unique():
        mine = oracle.idx[oracle.labels == label].tolist()
        kept = [idx for idx in wrong.idx[wrong.labels == label].tolist() if idx in mine]
        assert len(kept) >= len(mine) - round(0.5 * len(mine))
    proposals = job.samples({**base, "choose": "proposals"})
    assert len(proposals) <= 12 and not torch.equal(proposals.idx.sort()[0], oracle.idx.sort()[0])
    clusters = job.samples({**base, "choose": "clusters"})
    assert set(clusters.idx.tolist()) <= set(job.chosen.candidates(mask_share=0.95, mask_area=0.1).idx.tolist())


def test_what_is_told_is_in_words():
    assert told({}) == "oracle decisions"
    assert told({"choose": "clusters"}) == "one oracle decision per cluster"
    assert told({"wrong_share": 0.25}) == "oracle decisions, 25 % of them wrong"
    assert told({"object_share": 0.7}) == "oracle decisions + everything except the object"
    assert told({"choose": "random"}) == "which classes have the shortcut"


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"choose": "me"}, "nobody chooses samples by 'me'"),
        ({"chose": "oracle"}, "samples have no field 'chose'"),
        ({"choose": "file"}, "`choose: file` and `selection: PATH` go together"),
        ({"choose": "file", "selection": "nowhere.json"}, "cannot read the selection file"),
    ],
)
def test_samples_that_nobody_can_choose_are_refused_before_anything_runs(tmp_path, samples, message):
    with pytest.raises(HFScoreError, match=message):
        write_plan(tmp_path, methods=[{"method": "score", "samples": samples}]).cells()


def test_a_gate_that_fails_makes_a_run_inactive():
    columns, inactive = judged_gates({"share_of_samples_active": 0.0, "penalty_start": 2.0, "unheard_of": -1.0})
    assert inactive == "share_of_samples_active"
    assert json.loads(columns)["penalty_start"] == {"value": 2.0, "wanted": "> 0", "passed": True}
    assert json.loads(columns)["unheard_of"]["passed"]
    assert judged_gates({"unheard_of": float("nan")})[1] == "unheard_of"
    assert judged_gates({}) == ("{}", "")
    of_class = {"unheard_of": "<= 1", "penalty_start": ">= 3"}
    assert judged_gates({"unheard_of": 2.0, "penalty_start": 2.0}, of_class)[1] == "unheard_of, penalty_start"


def test_a_budget_of_image_passes_is_kept(own):
    more = {**CNN, "finetune": {"num_train_epochs": 9, "learning_rate": 5e-4}}
    content = yaml.safe_load((own / "plan.yaml").read_text())
    plain = {"method": "continued_erm"}
    content |= {"models": {"cnn": more}, "methods": [plain, {**plain, "name": "little", "image_passes": 5}]}
    (own / "budget.yaml").write_text(yaml.safe_dump(content))
    plan = Plan(own / "budget.yaml")
    job = Job(plan, "mine", "cnn", 0, own / "cache")
    cell, little = plan.cells()
    images = len(job.train)
    for budget, epochs in ((int(2.5 * images), 2), (100 * images, 9)):
        assert job._epochs_within(cell, budget) == epochs
    with pytest.raises(HFScoreError, match="5 image passes are less than one epoch of continued ERM"):
        job.run(little)
    assert cell.image_passes is None and json.loads(little.settings)["image_passes"] == 5


def test_a_copy_of_a_model_counts_too():
    import copy

    passes, model = ImagePasses(), torch.nn.Linear(2, 2)
    handle = passes.watch(model)
    model(torch.zeros(3, 2))
    copy.deepcopy(model)(torch.zeros(4, 2))
    handle.remove()
    model(torch.zeros(5, 2))
    assert passes.count == 7


# ---- Grids ----


def test_draws_are_points_of_the_grid_and_the_same_everywhere(tmp_path):
    grid = {"learning_rate": [1e-4, 2e-4, 5e-4], "num_train_epochs": [1, 2, 3]}
    plan = write_plan(tmp_path, seeds=[0, 1], draws=4, methods=[{"method": "continued_erm", "grid": grid}])
    points = {seed: [cell.grid_point for cell in plan.cells() if cell.seed == seed] for seed in (0, 1)}
    assert points[0] == points[1] and len({json.dumps(p) for p in points[0]}) == 4
    assert all(p[name] in values for p in points[0] for name, values in grid.items())
    assert len(write_plan(tmp_path, draws=20, methods=plan.methods).cells()) == 9


def synthetic(selection, worst, **more):
    """Rows of one method: `selection[seed][point]` and `worst[seed][point]`."""
    rows = []
    for seed, estimates in enumerate(selection):
        for point, estimate in enumerate(estimates):
            history = [{"validation": 1 - estimate, "worst_group_accuracy": worst[seed][point], "accuracy": 0.5}]
            rows.append(
                {
                    **{"dataset": "d", "model": "m", "name": "n", "seed": seed, "key": f"{seed}{point}"},
                    **{"selection": estimate, "worst_group_accuracy": worst[seed][point], "accuracy": 0.5},
                    "settings": json.dumps({"seed": seed, "point": point}),
                    "history": json.dumps(history),
                    "mean_group_accuracy": 0.5,
                    **more,
                }
            )
    return pd.DataFrame(rows)


def test_a_half_of_the_seeds_chooses_for_the_other():
    # Seeds 0 and 2 prefer point 0, seeds 1 and 3 point 1: each half reports what the other prefers.
    rows = synthetic([[0.9, 0.1], [0.2, 0.8], [0.7, 0.6], [0.3, 0.4]], [[0.1, 0.2]] * 4)
    found = nested_choice(rows).set_index("seed").sort_index()
    assert found["worst_group_accuracy"].tolist() == [0.2, 0.1, 0.2, 0.1]
    assert found["chosen_on"].tolist() == ["1, 3", "0, 2", "1, 3", "0, 2"]
    by_groups = nested_choice(rows, by="validation").set_index("seed").sort_index()
    assert by_groups["worst_group_accuracy"].tolist() == [0.1, 0.2, 0.1, 0.2]


def test_no_run_is_reported_that_its_own_figure_chose():
    generator = np.random.default_rng(0)
    noise = generator.random((8, 5))
    rows = synthetic(noise.tolist(), noise.tolist())  # the estimate is the figure itself: choosing by it would flatter
    nested = nested_choice(rows)["worst_group_accuracy"].mean()
    assert nested < noise.max(1).mean() - 0.1
    for seed, part in nested_choice(rows).groupby("seed"):
        assert str(seed) not in part["chosen_on"].item().split(", ") and len(part) == 1


def test_inactive_and_unfinished_points_are_not_chosen():
    rows = synthetic([[0.9, 0.1]] * 2, [[0.1, 0.2]] * 2)
    rows["inactive"] = ["gate", "", "gate", ""]
    assert nested_choice(rows)["key"].tolist() == ["01", "11"]
    unfinished = synthetic([[0.5, 0.9], [0.5, 0.9], [0.5, 0.9], [0.5, 0.9]], [[0.1, 0.2]] * 4).drop(index=7)
    found = nested_choice(unfinished).set_index("seed")["key"].to_dict()
    assert found[0] == "00" and found[1] == "11"  # seed 3 lacks point 1, so 1 and 3 cannot choose it
    assert nested_choice(synthetic([[0.1, 0.2]], [[0.3, 0.4]]))["key"].tolist() == ["01"]
