"""The share of positive relevance inside a region."""

import numpy as np
import pytest

from hf_score.evaluation import relevance_in_region


def test_by_hand():
    heatmap = np.array([[[3.0, -5.0], [1.0, 4.0]]])
    region = np.array([[[1, 1], [0, 0.5]]])
    assert relevance_in_region(heatmap, region) == pytest.approx([(3 + 0.5 * 4) / 8])


def test_boolean_regions_and_scale_do_not_matter():
    rng = np.random.default_rng(0)
    heatmaps, regions = rng.normal(size=(5, 7, 9)), rng.random((5, 7, 9)) > 0.6
    shares = relevance_in_region(heatmaps, regions)
    for share, heatmap, region in zip(shares, heatmaps, regions, strict=True):
        assert share == pytest.approx(heatmap[region & (heatmap > 0)].sum() / heatmap[heatmap > 0].sum())
    assert relevance_in_region(heatmaps.astype(np.float32) * 1e-6, regions) == pytest.approx(shares, rel=1e-5)
    assert relevance_in_region(heatmaps, ~regions) == pytest.approx(1 - shares)


def test_no_positive_relevance_and_nan_give_nan_and_touch_no_other_image():
    heatmaps = np.stack([-np.ones((2, 2)), np.zeros((2, 2)), np.full((2, 2), np.nan), np.ones((2, 2))])
    shares = relevance_in_region(heatmaps, np.ones((4, 2, 2)))
    assert np.isnan(shares).tolist() == [True, True, True, False]
    assert shares[3] == 1


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"must both be the same \(B, H, W\)"):
        relevance_in_region(np.ones((2, 3, 3)), np.ones((2, 4, 4)))
