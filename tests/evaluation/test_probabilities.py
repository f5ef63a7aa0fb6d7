"""AUROC, calibration error and Brier score against scikit-learn, a second way of computing, and values by hand."""

import numpy as np
import pytest
from scipy.special import softmax

from hf_score.evaluation import auroc, brier_score, calibration_error

metrics = pytest.importorskip("sklearn.metrics")


def made(classes, *, count=300, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = (4 * generator.normal(size=(count, classes))).round() / 4  # with ties
    logits[np.arange(count), labels] += 1
    return logits, labels


def test_auroc_is_scikit_learns():
    logits, labels = made(2)
    assert auroc(logits, labels) == pytest.approx([metrics.roc_auc_score(labels, logits[:, 1] - logits[:, 0])])
    logits, labels = made(5)
    logits += np.random.default_rng(1).normal(size=logits.shape)  # softmax would split ties
    wanted = metrics.roc_auc_score(labels, softmax(logits, axis=1), multi_class="ovr")
    assert auroc(logits, labels) == pytest.approx([wanted])


def test_auroc_of_large_logits_does_not_saturate():
    logits = np.array([[0.0, 900.0], [0.0, 800.0]])
    assert auroc(logits, [1, 0]) == 1
    assert auroc(logits, [0, 1]) == 0
    assert auroc(np.zeros((2, 2)), [0, 1]) == 0.5


def test_weights_are_repeated_images():
    logits, labels = made(3, count=40)
    weights = np.random.default_rng(1).integers(0, 3, (4, 40)).astype(float)
    for measure in (auroc, brier_score, calibration_error):
        repeated = [measure(*(np.repeat(x, row.astype(int), axis=0) for x in (logits, labels)))[0] for row in weights]
        assert measure(logits, labels, weights) == pytest.approx(repeated)


def test_one_class_has_no_area():
    assert np.isnan(auroc(np.zeros((3, 2)), [1, 1]))
    labels, weights = np.array([0, 1]), np.array([[2.0, 0.0]])
    assert np.isnan(auroc(np.eye(2), labels, weights))


def test_brier_is_scikit_learns():
    logits, labels = made(2)
    probabilities = softmax(logits, axis=1)
    assert brier_score(logits, labels) == pytest.approx([2 * metrics.brier_score_loss(labels, probabilities[:, 1])])
    logits, labels = made(5)
    wanted = np.mean(((softmax(logits, axis=1) - np.eye(5)[labels]) ** 2).sum(axis=1))
    assert brier_score(logits, labels) == pytest.approx([wanted])


def test_calibration_error_by_bins():
    logits, labels = made(4, count=500)
    probabilities = softmax(logits, axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    wanted = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            wanted += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert calibration_error(logits, labels) == pytest.approx([wanted])


def test_a_sure_model_that_is_right_is_calibrated():
    logits = 1000 * np.eye(3)
    assert calibration_error(logits, [0, 1, 2]) == pytest.approx(0)
    assert calibration_error(logits, [1, 2, 0]) == pytest.approx(1)
