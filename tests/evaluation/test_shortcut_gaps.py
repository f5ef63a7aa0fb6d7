"""The gaps of UrbanCars against counting by hand."""

import numpy as np
import pytest

from hf_score.evaluation import shortcut_gaps

#: Class 0 goes with background 0 and object 0; class 1 with background 1 and object 1.
COUNTS = [90, 5, 4, 1, 1, 4, 5, 90]


def test_by_hand():
    """Ten test images in each group, of which so many are right."""
    right = [10, 9, 4, 1, 2, 5, 8, 10]
    groups = np.repeat(np.arange(8), 10)
    labels = groups // 4
    correct = np.concatenate([np.arange(10) < count for count in right])
    gaps = shortcut_gaps(np.where(correct, labels, 1 - labels), labels, groups, train_group_counts=COUNTS)
    usual = sum(count * share / 10 for count, share in zip(COUNTS, right, strict=True)) / 200
    assert gaps["in_distribution"] == pytest.approx(usual)
    assert gaps["first_gap"] == pytest.approx((4 + 5) / 20 - usual)  # groups 2 and 5: the background alone is wrong
    assert gaps["second_gap"] == pytest.approx((9 + 8) / 20 - usual)  # groups 1 and 6
    assert gaps["both_gap"] == pytest.approx((1 + 2) / 20 - usual)  # groups 3 and 4


def test_who_reads_the_background_alone_has_that_gap_alone():
    groups = np.repeat(np.arange(8), 5)
    gaps = shortcut_gaps(groups % 4 // 2, groups // 4, groups, train_group_counts=[95, 0, 5, 0, 0, 5, 0, 95])
    assert gaps["in_distribution"] == pytest.approx(0.95)
    assert gaps["first_gap"] == gaps["both_gap"] == pytest.approx(-0.95)
    assert gaps["second_gap"] == pytest.approx(0.05)
    logits = np.eye(2)[groups % 4 // 2]
    assert shortcut_gaps(logits, groups // 4, groups, train_group_counts=[95, 0, 5, 0, 0, 5, 0, 95]) == gaps


def test_names_of_attributes_do_not_matter():
    """Swapping what the background's 0 and 1 stand for, in images and counts."""
    rng = np.random.default_rng(0)
    groups, predictions = rng.integers(0, 8, 300), rng.integers(0, 2, 300)
    swapped = np.array(COUNTS).reshape(2, 2, 2)[:, ::-1].reshape(-1)
    first = shortcut_gaps(predictions, groups // 4, groups, train_group_counts=COUNTS)
    assert shortcut_gaps(predictions, groups // 4, groups ^ 2, train_group_counts=swapped) == pytest.approx(first)


def test_what_is_not_there_is_none():
    groups = np.array([0, 7])
    gaps = shortcut_gaps(groups // 4, groups // 4, groups, train_group_counts=[1, 0, 0, 0, 0, 0, 0, 1])
    assert gaps == {"in_distribution": 1.0, "first_gap": None, "second_gap": None, "both_gap": None}
    assert shortcut_gaps([0], [0], [0], train_group_counts=COUNTS)["in_distribution"] is None  # groups are missing


def test_what_does_not_go_together():
    for labels, groups, counts in (([0], [5], COUNTS), ([0], [0], [1, 2]), ([0, 1], [0], COUNTS)):
        with pytest.raises(ValueError, match=r"Groups must|equally many"):
            shortcut_gaps([0], labels, groups, train_group_counts=counts)
