"""Measures beside the worst group are scikit-learn's, and chance is what coins reach."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from hf_score.evaluation import auroc_within_attribute, balanced_accuracy, chance_levels
from hf_score.evaluation.beside_worst_group import attributes_of


@pytest.fixture
def drawn():
    generator = np.random.default_rng(0)
    labels = generator.choice(3, 300, p=[0.6, 0.3, 0.1])
    attributes = np.where(generator.random(300) < 0.7, labels % 2, generator.integers(0, 2, 300))
    return generator.normal(size=(300, 3)) + np.eye(3)[labels], labels, attributes


def test_balanced_accuracy_is_scikit_learns(drawn):
    logits, labels, _ = drawn
    predictions = logits.argmax(axis=1)
    assert balanced_accuracy(predictions, labels) == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert balanced_accuracy([0, 1, 1], [0, 0, 2]) == pytest.approx(0.25)  # a class that does not occur is in no mean


def test_auroc_within_attribute_is_scikit_learns_for_each_value(drawn):
    logits, labels, attributes = drawn
    binary = labels < 2
    logits, labels, attributes = logits[binary, :2], labels[binary], attributes[binary]
    wanted = [
        roc_auc_score(labels[attributes == a], logits[attributes == a, 1] - logits[attributes == a, 0]) for a in (0, 1)
    ]
    assert auroc_within_attribute(logits, labels, labels * 2 + attributes) == pytest.approx(np.mean(wanted))


def test_a_model_that_reads_the_attribute_alone_has_no_area_within_it(drawn):
    _, labels, attributes = drawn
    labels, groups = labels % 2, (labels % 2) * 2 + attributes
    logits = np.eye(2)[attributes]
    assert auroc_within_attribute(logits, labels, groups) == 0.5
    assert auroc_within_attribute(np.eye(2)[labels], labels, groups) == 1.0


def test_attributes_are_read_off_the_groups(drawn):
    _, labels, attributes = drawn
    three = np.random.default_rng(1).integers(0, 3, 300)
    for values, attribute in ((2, attributes), (3, three)):
        assert np.array_equal(attributes_of(labels * values + attribute, labels), attribute)
    seen = ~((labels == 2) & (attributes == 1))  # the last group is empty
    assert np.array_equal(attributes_of((labels * 2 + attributes)[seen], labels[seen]), attributes[seen])
    assert attributes_of([0, 1, 0], [1, 0, 1]) is None
    assert attributes_of(labels * 5 + attributes, labels) is None  # 4 values or 5
    assert auroc_within_attribute(np.zeros((3, 2)), [1, 0, 1], [0, 1, 0]) is None
    assert auroc_within_attribute(np.zeros((2, 2)), [0, 1], [0, 3]) is None  # no value has two classes


def test_chance_is_what_coins_reach():
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    even, uneven = chance_levels(labels, 3)
    assert even.worst_group_accuracy == even.accuracy == pytest.approx(1 / 3)
    drawn = np.random.default_rng(0).choice(labels, (2000, len(labels)))
    right = drawn == labels
    assert uneven.worst_group_accuracy == pytest.approx(min(right[:, labels == c].mean() for c in range(3)), abs=0.002)
    assert uneven.accuracy == pytest.approx(right.mean(), abs=0.002)
    assert uneven.balanced_accuracy == pytest.approx(1 / 3)
    assert len(chance_levels([0, 1, 0, 1], 2)) == 1
