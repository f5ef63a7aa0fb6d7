"""What a classifier's probabilities are worth: AUROC, expected calibration error, Brier score.

Each takes weights of the images too, for the bootstrap (`hf_score.evaluation.intervals.bootstrap`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

__all__ = ["auroc", "brier_score", "calibration_error"]

BINS = 15


def auroc(logits: ArrayLike, labels: ArrayLike, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve, each class against the rest, mean over the classes that occur.

    The share of pairs of an image of the class and another one in which the former has the higher log-odds of the
    class (Mann and Whitney's U); ties count one half. With two classes both have the same area.

    Args:
        logits: (N, K), K ≥ 2.
        labels: (N,).
        weights: (b, N), how often each image counts; default: once.

    Returns:
        (b,), or (1,) without weights; nan where fewer than two classes occur.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    weights = np.ones((1, len(labels))) if weights is None else weights
    present = np.unique(labels)
    areas = []
    for label in present[1:] if logits.shape[1] == 2 else present:
        rest = np.logaddexp.reduce(np.delete(logits, label, axis=1), axis=1)
        areas.append(_area(logits[:, label] - rest, labels == label, weights))
    return np.mean(areas, axis=0) if len(present) > 1 else np.full(len(weights), np.nan)


def _area(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(b,): U / (weight of the positive · weight of the negative)."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) != 0)  # of runs of equal scores
    above = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    below = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    lower = np.cumsum(below, axis=1) - below
    pairs = above.sum(axis=1) * below.sum(axis=1)
    won = (above * (lower + below / 2)).sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def calibration_error(logits: ArrayLike, labels: ArrayLike, weights: np.ndarray | None = None) -> np.ndarray:
    """Expected calibration error: mean distance of confidence and accuracy, over 15 bins of equal width.

    Of the confidence in the answer (Guo et al., 2017, arXiv 1706.04599). Arguments and shape as of `auroc`.
    """
    probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    confidence = probabilities.max(axis=1)
    gap = confidence - (probabilities.argmax(axis=1) == np.asarray(labels))
    weights = np.ones((1, len(gap))) if weights is None else weights
    member = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)  # a bin holds its upper end
    of_bin = np.zeros((len(gap), BINS))
    of_bin[np.arange(len(gap)), member] = gap
    return np.abs(weights @ of_bin).sum(axis=1) / weights.sum(axis=1)


def brier_score(logits: ArrayLike, labels: ArrayLike, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 to 2 (Brier, 1950).

    With two classes it is twice the score that looks at one of them alone. Arguments and shape as of `auroc`.
    """
    probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    distance = probabilities.copy()
    distance[np.arange(len(distance)), np.asarray(labels)] -= 1
    squared = (distance**2).sum(axis=1)
    weights = np.ones((1, len(squared))) if weights is None else weights
    return (weights @ squared) / weights.sum(axis=1)
