"""What is told beside the worst group, from logits and groups: balanced accuracy, AUROC within attribute, chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .probabilities import auroc

__all__ = ["Chance", "attributes_of", "auroc_within_attribute", "balanced_accuracy", "chance_levels"]


def balanced_accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Mean over the classes that occur of the share of their images that are right: each class weighs the same.

    Args:
        predictions: (N,) predicted class ids, N ≥ 1.
        labels: (N,) class ids.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    members = np.unique(labels, return_inverse=True)[1]
    return float(np.mean(np.bincount(members, weights=predictions == labels) / np.bincount(members)))


def attributes_of(groups: ArrayLike, labels: ArrayLike) -> np.ndarray | None:
    """The spurious attribute of each image, of groups that are `label · number of attribute values + attribute`.

    The number of values is the one with which every group has its label.

    Args:
        groups: (N,) group ids.
        labels: (N,) class ids.

    Returns:
        (N,) attribute ids; None where the groups are others, or several numbers come into question, as so few groups
        have images.
    """
    pairs = np.unique(np.stack([np.asarray(groups), np.asarray(labels)]), axis=1)
    possible = [n for n in range(1, int(pairs[0].max()) + 2) if np.array_equal(pairs[0] // n, pairs[1])]
    return np.asarray(groups) % possible[0] if len(possible) == 1 else None


def auroc_within_attribute(logits: ArrayLike, labels: ArrayLike, groups: ArrayLike) -> float | None:
    """`auroc` among the images with the same value of the spurious attribute, mean over its values.

    What the attribute says of the class can neither help nor harm it, and no threshold enters: a model whose worst
    group is low although this is high tells the classes apart and is off by a shift. A value with one class alone
    counts in no mean.

    Args:
        logits: (N, K).
        labels: (N,) class ids.
        groups: (N,) group ids, `label · number of attribute values + attribute`.

    Returns:
        None where `attributes_of` cannot tell them, or where no value has two classes.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    attributes = attributes_of(groups, labels)
    if attributes is None:
        return None
    areas = [auroc(logits[attributes == a], labels[attributes == a])[0] for a in np.unique(attributes)]
    known = [area for area in areas if np.isfinite(area)]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class Chance:
    """What answers that do not look at the picture reach, on average over their draws."""

    name: str
    worst_group_accuracy: float
    balanced_accuracy: float
    accuracy: float


def chance_levels(labels: ArrayLike, num_classes: int) -> list[Chance]:
    """A coin with a side for each class, which has 1/K in every group, and one as uneven as the classes.

    No other coin has a higher worst group than the first: a class that is drawn more seldom is right more seldom. One
    answer for all has a worst group of 0.

    Args:
        labels: (N,) class ids, N ≥ 1.
        num_classes: K.

    Returns:
        Both, or the first alone where the classes are equally frequent.
    """
    shares = np.bincount(np.asarray(labels), minlength=num_classes) / len(np.asarray(labels))
    even = 1 / num_classes
    coins = [Chance("a coin", even, even, even)]
    if not np.allclose(shares, even):
        present = shares[shares > 0]
        coins.append(
            Chance(
                "a coin as uneven as the classes", float(present.min()), 1 / len(present), float((present**2).sum())
            )
        )
    return coins
