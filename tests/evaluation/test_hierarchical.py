"""Intervals over seeds and images hold the truth as often as they say; tests reject as rarely as they say."""

import time

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from hf_score.evaluation.hierarchical import Draws, Mean, holm, mean_over_seeds

SEED_SD, IMAGE_SD = 0.3, 0.7


def runs_of(generator, means, *, seeds, per_group, image=None):
    """(S, N) bool: a probit model with an effect of each seed and of each image (given to pair two methods)."""
    groups = np.repeat(np.arange(len(means)), per_group)
    image = generator.normal(0, IMAGE_SD, len(groups)) if image is None else image
    score = np.asarray(means)[groups] + generator.normal(0, SEED_SD, (seeds, 1)) + image
    return score + generator.normal(size=score.shape) > 0, groups


def true_accuracy(mean):
    return norm.cdf(mean / np.sqrt(1 + SEED_SD**2 + IMAGE_SD**2))


def worst_of(right, groups):
    return np.min([right[:, groups == group].mean(axis=1) for group in np.unique(groups)], axis=0)


@pytest.mark.parametrize("seeds", [3, 12])
def test_the_worst_group_lies_in_its_interval_about_as_often_as_it_should(seeds):
    generator, held = np.random.default_rng(0), []
    for trial in range(150):
        right, groups = runs_of(generator, [0.0, 1.5], seeds=seeds, per_group=80)
        draws = Draws(groups, np.arange(len(groups)), resamples=400, seed=trial)
        found = mean_over_seeds(worst_of(right, groups), draws.worst_group(right)).interval()
        held.append(found.low <= true_accuracy(0.0) <= found.high)
    assert 0.9 <= np.mean(held) < 1


def test_two_equal_methods_are_seldom_called_different_and_often_equivalent_when_they_are():
    generator, better, equivalent_at_bound = np.random.default_rng(0), [], []
    apart = true_accuracy(0.0) - true_accuracy(-0.2)
    for trial in range(150):
        image = generator.normal(0, IMAGE_SD, 160)
        runs = [runs_of(generator, [mean, 1.5], seeds=8, per_group=80, image=image)[0] for mean in (0.0, 0.0, -0.2)]
        groups = np.repeat([0, 1], 80)
        draws = Draws(groups, np.arange(160), resamples=400, seed=trial)
        worst, replicates = zip(*((worst_of(run, groups), draws.worst_group(run)) for run in runs), strict=True)
        better.append(mean_over_seeds(worst[0] - worst[1], replicates[0] - replicates[1]).p_better() <= 0.05)
        third = mean_over_seeds(worst[0] - worst[2], replicates[0] - replicates[2])
        equivalent_at_bound.append(third.p_equivalent(apart) <= 0.05)
    # Twice the one-sided p: 2.5 %; on the very bound of equivalence 5 %. Standard errors: 1.3 and 1.8 %.
    assert np.mean(better) <= 0.06
    assert np.mean(equivalent_at_bound) <= 0.09


def test_images_alone_have_the_standard_error_of_a_share():
    right = np.random.default_rng(0).random((1, 400)) < 0.3
    replicates = Draws(np.zeros(400), np.arange(400)).worst_group(right)
    share = right.mean()
    assert replicates.std() == pytest.approx((share * (1 - share) / 400) ** 0.5, rel=0.08)
    assert replicates.mean() == pytest.approx(share, abs=0.003)


def test_seeds_alone_have_the_standard_error_of_a_mean():
    values = np.array([0.2, 0.5, 0.9])
    found = mean_over_seeds(values, np.tile(values, (20000, 1)))
    assert found.error == pytest.approx(values.std(ddof=1) / 3**0.5, rel=0.03)
    interval, wanted = found.interval(), ttest_1samp(values, 0).confidence_interval()
    assert wanted.high > 1 == interval.high  # within what a share can be
    assert found.interval(lowest=-1).low == pytest.approx(wanted.low, abs=0.03)
    assert found.p_better(0.1) == pytest.approx(ttest_1samp(values, 0.1).pvalue, rel=0.05)


def test_images_of_one_source_come_and_go_together():
    right, groups = runs_of(np.random.default_rng(0), [0.0, 0.3], seeds=2, per_group=50)
    once = Draws(groups, np.arange(100)).worst_group(right)
    twice = Draws(np.tile(groups, 2), np.tile(np.arange(100), 2)).worst_group(np.tile(right, (1, 2)))
    assert np.array_equal(once, twice)
    apart = Draws(np.tile(groups, 2), np.arange(200)).worst_group(np.tile(right, (1, 2)))
    assert apart.std(axis=0) == pytest.approx(once.std(axis=0) / 2**0.5, rel=0.15)


def test_a_group_that_was_not_drawn_counts_in_no_resample():
    right = np.array([[True] * 30 + [False]])
    replicates = Draws([0] * 30 + [1], np.arange(31)).worst_group(right)
    assert set(np.unique(replicates)) == {0.0, 1.0}


def test_the_same_seed_draws_the_same_for_every_method():
    right, groups = runs_of(np.random.default_rng(0), [0.0, 0.3], seeds=4, per_group=50)
    draws = Draws(groups, np.arange(100))
    assert np.array_equal(draws.worst_group(right), Draws(groups, np.arange(100)).worst_group(right))
    assert mean_over_seeds(np.zeros(4), draws.worst_group(right) - draws.worst_group(right)).error == 0


def test_equivalence_is_a_90_percent_interval_within_the_margin():
    for value, error in ((0.01, 0.02), (0.03, 0.02), (-0.02, 0.01), (0.0, 0.1)):
        mean = Mean(value, error, 12, 11)
        interval = mean.interval(lowest=-1, level=0.9)
        assert (mean.p_equivalent(0.05) < 0.05) == (interval.low > -0.05 and interval.high < 0.05)


def test_no_difference_at_all_is_equivalent_and_not_better():
    same = Mean(0.0, 0.0, 5, 4)
    assert (same.p_better(), same.p_equivalent(0.05)) == (1.0, 0.0)
    assert Mean(-0.2, 0.05, 5, 4).p_better() > 0.99
    with pytest.raises(ValueError, match="one seed"):
        Mean(0.3, 0.1, 1, np.inf).p_better()


def test_holm_is_that_of_statsmodels():
    # statsmodels.stats.multitest.multipletests([.01, .04, .03, .005], method="holm")[1], and by hand:
    # .005 · 4, .01 · 3, .03 · 2, and .04 · 1 raised to the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_twelve_seeds_of_a_thousand_images_take_seconds():
    right, groups = runs_of(np.random.default_rng(0), [0.0, 0.5, 0.5, 1.0], seeds=12, per_group=250)
    began = time.process_time()
    mean_over_seeds(worst_of(right, groups), Draws(groups, np.arange(1000)).worst_group(right))
    assert time.process_time() - began < 5
