"""What two shortcuts at once cost: the gaps of UrbanCars (Li et al., "A Whac-A-Mole Dilemma", CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["shortcut_gaps"]


def shortcut_gaps(
    predictions: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    train_group_counts: Sequence[int],
) -> dict[str, float | None]:
    """How much accuracy falls where a shortcut says the wrong thing, as shares from -1 to 1; 0 is best.

    Groups are 4 * label + 2 * first attribute + second attribute, each attribute 0 or 1. The value that is commoner
    with a class in training is that class's own.

    Args:
        predictions: (N,) predicted class ids, or (N, K) logits.
        labels: (N,) class ids.
        groups: (N,) group ids.
        train_group_counts: number of training images per group, 4 for each class.

    Returns:
        `first_gap`, accuracy of the images whose first attribute alone is not their class's own, less
        `in_distribution`; `second_gap` and `both_gap` likewise; `in_distribution`, accuracy over groups weighted by
        their training size. None where there are no such images.

    Raises:
        ValueError: the arrays do not go together.
    """
    predicted, truth, ids = (np.asarray(values) for values in (predictions, labels, groups))
    if predicted.ndim == 2:
        predicted = predicted.argmax(axis=1)
    counts = np.asarray(train_group_counts, dtype=np.float64)
    if not predicted.shape == truth.shape == ids.shape:
        raise ValueError(
            f"{predicted.shape} predictions, {truth.shape} labels, {ids.shape} groups; give equally many."
        )
    if counts.size % 4 or (len(ids) and ((ids // 4 != truth).any() or ids.max() >= counts.size)):
        raise ValueError(f"Groups must be 4 * label + 2 * attribute + attribute, below {counts.size}.")
    by_class = counts.reshape(-1, 2, 2)
    own = np.stack([by_class.sum(axis=2).argmax(axis=1), by_class.sum(axis=1).argmax(axis=1)], axis=1)
    attributes = np.stack([ids % 4 // 2, ids % 2], axis=1)
    wrong = attributes != own[truth]
    correct = predicted == truth

    def accuracy(first: bool, second: bool) -> float | None:
        chosen = (wrong == [first, second]).all(axis=1)
        return float(correct[chosen].mean()) if chosen.any() else None

    number = np.bincount(ids, minlength=counts.size)
    hits = np.bincount(ids, weights=correct, minlength=counts.size)
    known = bool(counts.any()) and not ((number == 0) & (counts > 0)).any()
    usual = float((counts * hits / np.maximum(number, 1)).sum() / counts.sum()) if known else None
    gaps: dict[str, float | None] = {"in_distribution": usual}
    for name, where in (("first_gap", (True, False)), ("second_gap", (False, True)), ("both_gap", (True, True))):
        found = accuracy(*where)
        gaps[name] = None if found is None or usual is None else found - usual
    return gaps
