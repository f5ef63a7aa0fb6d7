"""Group metrics against numbers worked out by hand and against a slow second implementation."""

import json

import numpy as np
import pytest

from hf_score.evaluation import group_metrics

NAMES = ["a0", "a1", "b0", "b1"]


def test_by_hand():
    # groups:        0  0  1  1  1  1  2  2
    predictions = [0, 1, 0, 0, 0, 1, 1, 0]
    labels = [0, 0, 0, 0, 0, 0, 1, 1]
    groups = [0, 0, 1, 1, 1, 1, 2, 2]
    metrics = group_metrics(predictions, labels, groups, group_names=NAMES, train_group_counts=[10, 70, 20, 0])
    assert metrics == {
        "accuracy": 5 / 8,
        "weighted_accuracy": pytest.approx(0.1 * 0.5 + 0.7 * 0.75 + 0.2 * 0.5),
        "mean_group_accuracy": pytest.approx((0.5 + 0.75 + 0.5) / 3),
        "worst_group_accuracy": 0.5,
        "worst_group": "a0",
        "group_accuracy": {"a0": 0.5, "a1": 0.75, "b0": 0.5, "b1": None},
        "group_count": {"a0": 2, "a1": 4, "b0": 2, "b1": 0},
    }
    assert json.loads(json.dumps(metrics)) == metrics


def slow(predictions, labels, groups, names, counts):
    hits = {name: [] for name in names}
    for prediction, label, group in zip(predictions, labels, groups, strict=True):
        hits[names[group]].append(1.0 if prediction == label else 0.0)
    accuracy = {name: sum(values) / len(values) for name, values in hits.items()}
    weighted = sum(count * accuracy[name] for name, count in zip(names, counts, strict=True)) / sum(counts)
    flat = [hit for values in hits.values() for hit in values]
    return sum(flat) / len(flat), weighted, sum(accuracy.values()) / len(names), min(accuracy.values()), accuracy


@pytest.mark.parametrize("seed", range(5))
def test_against_a_slow_implementation(seed):
    rng = np.random.default_rng(seed)
    names = [f"group {g}" for g in range(6)]
    labels = rng.integers(0, 3, 500)
    logits = rng.normal(size=(500, 3)) + np.eye(3)[labels]
    groups, counts = rng.integers(0, 6, 500), rng.integers(1, 100, 6).tolist()
    metrics = group_metrics(logits, labels, groups, group_names=names, train_group_counts=counts)
    plain, weighted, mean, worst, accuracy = slow(logits.argmax(1), labels, groups, names, counts)
    assert metrics["accuracy"] == pytest.approx(plain)
    assert metrics["weighted_accuracy"] == pytest.approx(weighted)
    assert metrics["mean_group_accuracy"] == pytest.approx(mean)
    assert metrics["worst_group_accuracy"] == pytest.approx(worst)
    assert metrics["group_accuracy"] == pytest.approx(accuracy)
    assert accuracy[metrics["worst_group"]] == pytest.approx(worst)


def test_a_training_group_that_is_empty_here_leaves_no_weighted_accuracy():
    metrics = group_metrics([0, 1], [0, 1], [0, 2], group_names=NAMES, train_group_counts=[1, 1, 1, 0])
    assert metrics["weighted_accuracy"] is None
    assert group_metrics([0], [0], [0], group_names=NAMES)["weighted_accuracy"] is None


def test_without_groups_only_plain_accuracy():
    metrics = group_metrics([0, 1], [0, 0], None, group_names=None)
    assert metrics["accuracy"] == 0.5
    assert metrics["worst_group_accuracy"] is None
    assert metrics["group_accuracy"] == {}


def test_nothing_at_all():
    metrics = group_metrics([], [], [], group_names=NAMES, train_group_counts=[1, 1, 1, 1])
    assert metrics["accuracy"] is None
    assert metrics["mean_group_accuracy"] is None
    assert metrics["group_count"] == dict.fromkeys(NAMES, 0)


@pytest.mark.parametrize("groups", [[0, 4], [-1, 0], [0]])
def test_group_ids_that_do_not_fit_are_refused(groups):
    with pytest.raises(ValueError, match="Group ids must be one per image, from 0 to 3"):
        group_metrics([0, 1], [0, 1], groups, group_names=NAMES)


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="give one for each image"):
        group_metrics([0, 1, 1], [0, 1], [0, 1], group_names=NAMES)


def test_training_counts_for_other_groups_are_refused():
    with pytest.raises(ValueError, match="3 training counts for 4 groups; give one for each group"):
        group_metrics([0, 1], [0, 1], [0, 1], group_names=NAMES, train_group_counts=[1, 2, 3])
