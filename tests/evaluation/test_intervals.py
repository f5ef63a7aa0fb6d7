"""Intervals hold the truth about as often as they say, and are the same for the same seed."""

import numpy as np
import pytest
from scipy.stats import binomtest

from hf_score.evaluation.intervals import bootstrap, means_of_clusters, paired_difference, percentiles, share


@pytest.mark.parametrize(("hits", "count"), [(0, 12), (5, 40), (40, 40)])
def test_wilson_is_scipys(hits, count):
    found = share(np.arange(count) < hits)
    wanted = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert (found.value, found.count) == (hits / count, count)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


def test_a_share_lies_in_its_interval_about_as_often_as_it_should():
    generator = np.random.default_rng(0)
    held = [(e := share(generator.random(60) < 0.1)).low <= 0.1 <= e.high for _ in range(2000)]
    assert 0.93 < np.mean(held) < 0.98


def test_a_paired_difference_lies_in_its_interval_about_as_often_as_it_should():
    generator, held, apart = np.random.default_rng(0), [], []
    for _ in range(2000):
        kind = generator.choice(4, 80, p=[0.5, 0.1, 0.25, 0.15])  # neither, gained, lost, both
        before, after = np.isin(kind, (2, 3)), np.isin(kind, (1, 3))
        found = paired_difference(before, after)
        held.append(found.low <= -0.15 <= found.high)
        swapped = paired_difference(after, before)
        apart.append((swapped.value + found.value, swapped.low + found.high))
    assert 0.93 < np.mean(held) < 0.98
    assert np.allclose(apart, 0)


def test_no_change_in_few_pictures_is_not_sure_and_in_many_it_is():
    few, many = (paired_difference(np.zeros(n, bool), np.zeros(n, bool)) for n in (10, 1000))
    assert few.low < -0.05 and few.high > 0.05
    assert -0.01 < many.low < 0 < many.high < 0.01


def test_the_bootstrap_has_the_standard_error_of_a_mean_and_one_outcome_per_seed():
    values = np.random.default_rng(0).normal(size=400)

    def replicates(seed):
        return bootstrap(lambda weights: weights @ values / len(values), len(values), seed=seed)

    assert replicates(3).std() == pytest.approx(values.std() / 20, rel=0.1)
    assert np.array_equal(replicates(3), replicates(3)) and not np.array_equal(replicates(3), replicates(4))
    found = percentiles(values.mean(), replicates(0), 400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_what_is_not_defined_in_a_resample_is_left_out():
    found = percentiles(0.5, np.array([np.nan, 0.4, 0.6]), 3)
    assert 0.4 <= found.low <= found.high <= 0.6


def test_values_of_one_picture_count_once():
    assert means_of_clusters([1, 0, 1, 1], [7, 7, 7, 2]).tolist() == pytest.approx([1, 2 / 3])
