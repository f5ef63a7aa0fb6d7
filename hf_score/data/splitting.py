"""Draws of rows: stratified by class, seeded, and for a test split by a column of patients or sources too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from ..errors import DataError
from .identity import same_content

__all__ = ["stratified", "test_split"]


def stratified(rows: np.ndarray, labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A sorted draw of `share` of each class's rows, at least one and never all of them unless share is 0 or 1."""
    if not 0 <= share < 1:
        raise DataError(f"A share of the training images must be at least 0 and below 1, not {share}; correct it.")
    drawn = []
    for label in np.unique(labels[rows]):
        members = rng.permutation(rows[labels[rows] == label])
        count = round(share * len(members))
        drawn.append(members[: max(count, 1) if share > 0 and len(members) > 1 else count])
    return np.sort(np.concatenate(drawn)) if drawn else rows[:0]


def test_split(
    rows: Dataset,
    labels: np.ndarray,
    *,
    share: float,
    split_by: str | None,
    name: str,
    class_names: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, str]:
    """The rows to train on, the rows to test on, and what to say of it.

    The same for the same data, whatever the seed of anything else. About `share` of each class is for testing; rows
    with the same value of `split_by`, or without it with the same file, stay together.

    Raises:
        DataError: there is no such column, or a class would be missing on one side.
    """
    if not 0 < share < 1:
        raise DataError(f"The share of images for testing must be between 0 and 1, not {share}; correct it.")
    if split_by is None:
        units = same_content(rows.select_columns(["image"])["image"])
    elif split_by in rows.column_names:
        values = [str(value) for value in rows[split_by][:]]
        units = np.unique(values, return_inverse=True)[1]
    else:
        raise DataError(
            f"'{name}' has no column '{split_by}' to split by (it has {rows.column_names}); name one it has."
        )
    counts = np.bincount(labels)
    wanted = np.where(counts > 0, np.maximum(np.round(share * counts), 1), 0)
    taken = np.zeros(len(wanted))
    members: dict[int, list[int]] = {}
    for row, unit in enumerate(units.tolist()):
        members.setdefault(unit, []).append(row)
    chosen: list[int] = []
    order = np.random.default_rng(0).permutation(sorted(members))
    for unit in order.tolist():
        counts = np.bincount(labels[members[unit]], minlength=len(wanted))
        # taken where it brings the classes nearer to their shares
        if np.abs(taken + counts - wanted).sum() < np.abs(taken - wanted).sum():
            chosen += members[unit]
            taken += counts
    test = np.sort(np.array(chosen, dtype=np.int64))
    train = np.setdiff1d(np.arange(len(rows)), test)
    present = np.unique(labels)
    for part, side in ((train, "training"), (test, "testing")):
        lacking = np.setdiff1d(present, labels[part])
        if len(lacking):
            kept = f" with all rows of one '{split_by}' on one side" if split_by else ""
            raise DataError(
                f"'{name}' has no test split, and one cannot be made of it{kept}: no image of "
                f"'{class_names[lacking[0]]}' would be left for {side}; give a folder 'test/', or more images."
            )
    by = f", whole values of '{split_by}' on one side" if split_by else ", equal files on one side"
    note = (
        f"'{name}' has no test split: {len(test)} of its {len(rows)} images were set aside for testing ({share:.0%} "
        f"of each class{by}; always the same ones)"
    )
    return train, test, note
