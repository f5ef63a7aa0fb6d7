"""Accuracy per group, and the averages and the worst case over groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["group_metrics"]


def group_metrics(
    predictions: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike | None,
    *,
    group_names: Sequence[str] | None,
    train_group_counts: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Accuracy in its three usual conventions, per group, and in the worst group, as shares from 0 to 1.

    Args:
        predictions: (N,) predicted class ids, or (N, K) logits.
        labels: (N,) class ids.
        groups: (N,) group ids from 0, or None where the data set has no groups.
        group_names: Name of each group id.
        train_group_counts: Number of training images per group, for `weighted_accuracy`.

    Returns:
        A dictionary that can be written as JSON: `accuracy`, over all images; `mean_group_accuracy`, over groups;
        `weighted_accuracy`, over groups weighted by their training size (Sagawa et al., 2020; None where that is
        unknown, or where a group with training images is empty here); `worst_group_accuracy` and `worst_group`;
        `group_accuracy` and `group_count` by name. Empty groups have the accuracy None and count in no average.
    """
    predicted, truth = np.asarray(predictions), np.asarray(labels)
    if predicted.ndim == 2:
        predicted = predicted.argmax(axis=1)
    if predicted.shape != truth.shape or truth.ndim != 1:
        raise ValueError(f"{predicted.shape} predictions for {truth.shape} labels; give one for each image.")
    correct = predicted == truth
    result: dict[str, Any] = {
        "accuracy": float(correct.mean()) if len(correct) else None,
        "weighted_accuracy": None,
        "mean_group_accuracy": None,
        "worst_group_accuracy": None,
        "worst_group": None,
        "group_accuracy": {},
        "group_count": {},
    }
    if groups is None or group_names is None:
        return result
    ids = np.asarray(groups, dtype=np.int64)
    if ids.shape != truth.shape or (len(ids) and not 0 <= ids.min() <= ids.max() < len(group_names)):
        raise ValueError(f"Group ids must be one per image, from 0 to {len(group_names) - 1}.")
    counts = np.bincount(ids, minlength=len(group_names))
    hits = np.bincount(ids, weights=correct, minlength=len(group_names))
    per_group = [float(hit / count) if count else None for hit, count in zip(hits, counts, strict=True)]
    known = {name: accuracy for name, accuracy in zip(group_names, per_group, strict=True) if accuracy is not None}
    result["group_accuracy"] = dict(zip(group_names, per_group, strict=True))
    result["group_count"] = dict(zip(group_names, counts.tolist(), strict=True))
    if known:
        result["mean_group_accuracy"] = float(np.mean(list(known.values())))
        result["worst_group"] = min(known, key=lambda name: known[name])
        result["worst_group_accuracy"] = known[result["worst_group"]]
    if train_group_counts is not None:
        weights = np.asarray(train_group_counts, dtype=np.float64)
        if weights.shape != counts.shape:
            raise ValueError(f"{weights.size} training counts for {counts.size} groups; give one for each group.")
        if weights.any() and not ((counts == 0) & (weights > 0)).any():
            shares = np.array([accuracy or 0.0 for accuracy in per_group])
            result["weighted_accuracy"] = float((weights * shares).sum() / weights.sum())
    return result
