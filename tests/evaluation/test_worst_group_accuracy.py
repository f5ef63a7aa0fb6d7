"""The `evaluate` metric, loaded by its path as a user loads it, against scikit-learn and a loop in plain Python."""

import doctest
import math
import re
import threading
from pathlib import Path

import evaluate
import gradio as gr
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score

from hf_score.evaluation import worst_group_accuracy

FOLDER = Path(worst_group_accuracy.__file__).parent


def load(cache, **settings):
    return evaluate.load(str(FOLDER), cache_dir=str(cache), **settings)


@pytest.fixture
def metric(tmp_path):
    return load(tmp_path)


def draw(seed, *, size=400, groups=6, empty=()):
    """Three classes with two groups each (0 and 1 are of class 0, and so on); `empty` groups have no rows."""
    rng = np.random.default_rng(seed)
    group = rng.choice([g for g in range(groups) if g not in empty], size)
    label = group // 2
    prediction = np.where(rng.random(size) < 0.3 + 0.1 * group, label, rng.integers(0, 3, size))
    return {"predictions": prediction.tolist(), "references": label.tolist(), "groups": group.tolist()}


def by_loop(predictions, references, groups, counts, names):
    """The definitions, one image after the other."""
    hits, sizes = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    right = 0
    for prediction, reference, group in zip(predictions, references, groups, strict=True):
        sizes[names[group]] += 1
        if prediction == reference:
            hits[names[group]] += 1
            right += 1
    accuracy = {name: hits[name] / sizes[name] for name in names if sizes[name]}
    weighted = 0.0
    for name, count in zip(names, counts, strict=True):
        if count:
            weighted += count / sum(counts) * accuracy.get(name, math.nan)
    return {
        "accuracy": right / len(references),
        "worst_group_accuracy": min(accuracy.values()),
        "mean_group_accuracy": sum(accuracy.values()) / len(accuracy),
        "weighted_accuracy": weighted,
        **{f"group_accuracy/{name}": accuracy.get(name, math.nan) for name in names},
    }


@pytest.mark.parametrize(
    ("seed", "empty", "counts"),
    [
        (0, (), [10, 20, 30, 40, 50, 60]),
        (1, (), [0, 0, 1, 0, 0, 5]),
        (2, (3,), [10, 20, 30, 0, 50, 60]),  # empty here and in training
        (3, (0, 5), [10, 20, 30, 40, 50, 60]),  # empty here alone: no weighted accuracy
    ],
)
def test_equal_to_a_plain_loop(metric, seed, empty, counts):
    names = [f"group {g}" for g in range(6)]
    data = draw(seed, empty=empty)
    measured = metric.compute(**data, train_group_counts=counts, group_names=names)
    assert measured == pytest.approx(by_loop(**data, counts=counts, names=names), abs=1e-12, nan_ok=True)
    assert all(type(value) is float for value in measured.values())


@pytest.mark.parametrize("empty", [(), (1, 4)])
def test_equal_to_scikit_learn_group_by_group(metric, empty):
    """A group of one class has its class's recall among the group's rows as accuracy."""
    data = draw(7, empty=empty)
    columns = [np.array(data[name]) for name in ("predictions", "references", "groups")]
    accuracies, recalls = {}, {}
    for group in set(data["groups"]):
        prediction, label = (column[columns[2] == group] for column in columns[:2])
        accuracies[group] = accuracy_score(label, prediction)
        recalls[group] = recall_score(label, prediction, labels=[label[0]], average="macro")
    measured = metric.compute(**data)
    assert measured["accuracy"] == pytest.approx(accuracy_score(data["references"], data["predictions"]))
    for group, accuracy in accuracies.items():
        assert measured[f"group_accuracy/{group}"] == pytest.approx(accuracy) == recalls[group]
    assert measured["worst_group_accuracy"] == pytest.approx(min(accuracies.values()))
    assert measured["mean_group_accuracy"] == pytest.approx(np.mean(list(accuracies.values())))
    assert "weighted_accuracy" not in measured


def test_parts_equal_the_whole(tmp_path):
    data = draw(11)
    whole = load(tmp_path).compute(**data)
    parts = load(tmp_path / "parts")
    for start in range(0, 400, 130):
        parts.add_batch(**{name: values[start : start + 130] for name, values in data.items()})
    assert parts.compute() == whole
    single = load(tmp_path / "single")
    for prediction, reference, group in zip(*data.values(), strict=True):
        single.add(predictions=prediction, references=reference, groups=group)
    assert single.compute() == whole


def test_two_workers_share_one_result(tmp_path):
    data = draw(13)
    halves = [{name: values[part::2] for name, values in data.items()} for part in range(2)]
    results = {}

    def work(number):
        metric = load(tmp_path, num_process=2, process_id=number, experiment_id="shared")
        results[number] = metric.compute(**halves[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results == {0: load(tmp_path / "alone").compute(**data), 1: None}


def test_without_rows_everything_is_unknown(metric):
    measured = metric.compute(predictions=[], references=[], groups=[], group_names=["a"], train_group_counts=[3])
    assert measured.keys() == {
        "accuracy",
        "worst_group_accuracy",
        "mean_group_accuracy",
        "weighted_accuracy",
        "group_accuracy/a",
    }
    assert all(math.isnan(value) for value in measured.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group_names": ["a", "b"]}, "Group ids must be one per image, from 0 to 1"),
        ({"train_group_counts": [1, 2, 3, 4], "group_names": ["a", "b", "c"]}, "4 training counts for 3 groups"),
    ],
)
def test_groups_that_do_not_fit_are_refused(metric, settings, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=[0, 1], references=[0, 1], groups=[0, 2], **settings)


def test_the_examples_of_the_documentation_run(metric, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    examples = doctest.DocTestParser().get_doctest(metric.inputs_description, {}, "metric", None, None)
    assert doctest.DocTestRunner().run(examples) == doctest.TestResults(failed=0, attempted=4)
    assert "@inproceedings{sagawa2020distributionally" in metric.citation


def test_the_readme_says_what_the_metric_returns(metric, monkeypatch):
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    monkeypatch.setattr(evaluate, "load", lambda name: {"OWNER/worst_group_accuracy": metric}[name])
    names = {}
    exec(code.replace("metric.compute(", "result = metric.compute("), names)
    documented = set(re.findall(r"^\| `(\w+)", text, flags=re.MULTILINE))
    assert {name.split("/")[0] for name in names["result"]} == documented


def test_the_space_measures_a_table():
    from hf_score.evaluation.worst_group_accuracy.app import EXAMPLE, measure

    assert measure(EXAMPLE, "") == [
        ["accuracy", "83.3"],
        ["worst_group_accuracy", "50.0"],
        ["mean_group_accuracy", "83.3"],
        ["group_accuracy/0", "100.0"],
        ["group_accuracy/1", "50.0"],
        ["group_accuracy/2", "100.0"],
    ]
    assert ["weighted_accuracy", "60.0"] in measure(EXAMPLE, "10, 80, 10")
    for cell in ("", None, float("nan")):
        with pytest.raises(gr.Error, match="Fill every cell with a whole number"):
            measure([[cell, 0, 0]], "")
