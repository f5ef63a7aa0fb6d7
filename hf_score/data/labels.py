"""Labels and groups as they stand in the data, to ids and names: read in one way for all splits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset

from ..errors import DataError
from .classes import (
    ClassNames,
    checked_names,
    class_key,
    clean_name,
    is_automatic,
    is_unnamed,
    label_numbers,
    labelled_names,
    match_classes,
    sorted_names,
)

__all__ = ["Groups", "in_order", "read_groups", "read_labels"]

#: What `group_column` is to say that no column holds groups.
NO_GROUPS = "none"


def read_labels(
    splits: Mapping[str, Dataset], column: str, class_names: Sequence[str] | None, name: str
) -> tuple[dict[str, np.ndarray], ClassNames]:
    """Label ids of each split, and the names of the classes.

    Numbers from 0 are label ids, named by `class_names` in their order. Words, the names of a `ClassLabel` and numbers
    from 1 are names: sorted (numbers by value, words as text), or in the order in which `class_names` has them.

    Raises:
        DataError: a label is missing, is spelled in two ways, or is none of the classes; there is but one class.
    """
    given = None if class_names is None else checked_names(class_names, "class_names")
    read = {split: _label_texts(rows, column, f"split '{split}' of '{name}'") for split, rows in splits.items()}
    texts = {split: found for split, (found, _) in read.items()}
    feature = splits["train"].features[column]
    numeric = all(number for _, number in read.values())
    own: ClassNames | None = None
    if isinstance(feature, ClassLabel):
        own = labelled_names(feature, f"'{name}'")
    elif not numeric or _from_one(texts["train"]):
        own = sorted_names(checked_names(dict.fromkeys(texts["train"]), f"'{name}'"))
    names = _named(own, given, texts["train"])
    if own is None or _renamed(own, given):
        labels = {split: _as_ids(found, split, names, column, name) for split, found in texts.items()}
    else:
        ids = {class_key(label): i for i, label in enumerate(names)}
        labels = {}
        for split, found in texts.items():
            unknown = next((label for label in dict.fromkeys(found) if class_key(label) not in ids), None)
            if unknown is not None:
                raise DataError(
                    f"Split '{split}' of '{name}' has the label '{unknown}', which is not one of the classes "
                    f"{list(names)}; correct it, or add training images of it."
                )
            labels[split] = np.array([ids[class_key(label)] for label in found], dtype=np.int64)
    if len(np.unique(labels["train"])) < 2:
        only = names[int(labels["train"][0])]
        raise DataError(f"All training images of '{name}' are of one class, '{only}'; add images of another class.")
    return labels, names


def _named(own: ClassNames | None, given: list[str] | None, train: list[str]) -> ClassNames:
    """The classes' names by id, where the data call them `own` (None: their labels are ids)."""
    if given is not None:
        return ClassNames(given)
    if own is not None:
        return own
    highest = max((int(text) for text in set(train) if re.fullmatch(r"\d+", text)), default=0)
    return ClassNames(f"class {i}" for i in range(highest + 1))


def _renamed(own: ClassNames, given: list[str] | None) -> bool:
    """Whether the given names say what the numbers 0, 1, ... stand for."""
    counts = label_numbers(own) == list(range(len(own)))
    return given is not None and counts and label_numbers(given) is None


def _from_one(train: list[str]) -> bool:
    """Whether labels are numbers from 1 on: names of classes, and no ids."""
    found = set(train)
    return len(found) > 1 and all(re.fullmatch(r"[1-9]\d*", text) for text in found)


def _as_ids(found: list[str], split: str, names: ClassNames, column: str, name: str) -> np.ndarray:
    numbers = {text: number for text in set(found) if (number := _id_of(text)) is not None and number < len(names)}
    unknown = next((text for text in found if text not in numbers), None)
    if unknown is not None:
        raise DataError(
            f"Split '{split}' of '{name}' has the label {unknown}, but with {len(names)} classes label ids are 0 to "
            f"{len(names) - 1}; correct the column '{column}' or the class names."
        )
    return np.array([numbers[text] for text in found], dtype=np.int64)


def _id_of(text: str) -> int | None:
    match = re.fullmatch(r"(?:(?:label|class)[ _-]?)?(\d+)", class_key(text))
    return int(match.group(1)) if match else None


def _label_texts(rows: Dataset, column: str, where: str) -> tuple[list[str], bool]:
    """The labels of one split as text, none missing, and whether they are numbers."""
    if column not in rows.column_names:
        raise DataError(
            f"The {where} has no column '{column}' (its columns are {rows.column_names}); add it to the metadata, or "
            "name the label column."
        )
    feature, raw = rows.features[column], rows[column][:]
    if isinstance(feature, ClassLabel):
        raw = [None if value is None or value < 0 else feature.names[value] for value in raw]
    texts = [_text(value) for value in raw]
    lacking = next((i for i, text in enumerate(texts) if not text), None)
    if lacking is not None:
        raise DataError(f"Row {lacking} of {where} has no label; fill in its '{column}'.")
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in raw)
    return texts, numeric


def _text(value: Any) -> str:
    """A value as it would be written: 1.0 is 1; nothing for what is missing."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return clean_name(value)


# ---- Groups ----


@dataclass(frozen=True)
class Groups:
    """Groups of the splits that have them.

    Attributes:
        ids: split → (n,) group ids.
        names: by group id; None where the test split has no groups.
        num_attributes: where a group is label * `num_attributes` + attribute, else None.
    """

    ids: dict[str, np.ndarray]
    names: list[str] | None = None
    num_attributes: int | None = None

    @property
    def counts(self) -> dict[str, list[int]]:
        """Images per split and group."""
        return {split: np.bincount(ids, minlength=len(self.names or ())).tolist() for split, ids in self.ids.items()}

    def reordered(self, new_ids: np.ndarray, class_names: Sequence[str], old_names: Sequence[str]) -> Groups:
        """The groups of the same images after their label ids have changed: old id → new id."""
        if self.names is None or self.num_attributes is None:
            return self
        count = self.num_attributes
        ids = {split: new_ids[found // count] * count + found % count for split, found in self.ids.items()}
        names = list(self.names)
        for old, new in enumerate(new_ids.tolist()):
            for attribute in range(count):
                said = self.names[old * count + attribute].removeprefix(f"{old_names[old]}, ")
                names[new * count + attribute] = f"{class_names[new]}, {said}"
        return Groups(ids, names, count)


def read_groups(
    splits: Mapping[str, Dataset],
    labels: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    *,
    group_column: str | None,
    spurious_column: str,
    spurious_names: Sequence[str] | None,
    name: str,
) -> Groups:
    """Groups of the splits that have them; none where the test split has none or `group_column` is 'none'.

    Numbers from 0 are ids. Words get the ids of their sorted order, over all splits.

    Raises:
        DataError: there is no such column, a value is missing, or a number is negative or a fraction.
    """
    if group_column is not None and group_column.casefold() == NO_GROUPS and NO_GROUPS not in splits["test"].features:
        return Groups({})
    wanted = [group_column] if group_column else ["group", spurious_column]
    column = next((c for c in wanted if c in splits["test"].column_names), None)
    if column is None:
        if group_column:
            raise DataError(f"The test split of '{name}' has no column '{group_column}' of groups; name one it has.")
        return Groups({})
    having = {split: rows for split, rows in splits.items() if column in rows.column_names}
    values, words = _attributes(having, column, name)
    highest = len(words) - 1 if words else max(int(found.max()) for found in values.values())
    if column == spurious_column:
        count = max(2, highest + 1)
        if words:
            spurious_names = words if len(words) == count else [*words, f"not {words[0]}"]
        values = {split: labels[split] * count + found for split, found in values.items()}
    elif words:
        return Groups(values, words)
    else:
        count = -(-(highest + 1) // len(class_names))
        if any((found // count != labels[split]).any() for split, found in values.items()):
            return Groups(values, [f"group {g}" for g in range(highest + 1)])
    if spurious_names is None or len(spurious_names) != count:
        spurious_names = [f"spurious={a}" for a in range(count)]
    return Groups(values, [f"{label}, {attribute}" for label in class_names for attribute in spurious_names], count)


def _attributes(splits: Mapping[str, Dataset], column: str, name: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The values of a column as numbers, and what they stand for where they are words."""
    texts = {}
    for split, rows in splits.items():
        feature, raw = rows.features[column], rows[column][:]
        if isinstance(feature, ClassLabel):
            raw = [None if value is None or value < 0 else feature.names[value] for value in raw]
        texts[split] = [_text(value) for value in raw]
        lacking = next((i for i, text in enumerate(texts[split]) if not text), None)
        if lacking is not None:
            raise DataError(f"Row {lacking} of split '{split}' of '{name}' has no '{column}'; fill it in.")
    every = dict.fromkeys(text for found in texts.values() for text in found)
    if all(re.fullmatch(r"0|[1-9]\d*", text) for text in every):
        return {split: np.array([int(text) for text in found], dtype=np.int64) for split, found in texts.items()}, []
    _refuse_odd_numbers(every, column, name)
    words = list(sorted_names(checked_names(every, f"column '{column}'")))
    ids = {class_key(word): i for i, word in enumerate(words)}
    return {split: np.array([ids[class_key(text)] for text in found]) for split, found in texts.items()}, words


def _refuse_odd_numbers(every: Iterable[str], column: str, name: str) -> None:
    odd = next((text for text in every if re.fullmatch(r"-\d+|-?\d+\.\d+", text)), None)
    if odd is not None:
        raise DataError(f"Column '{column}' of '{name}' must hold whole numbers from 0, or words, and not {odd}.")


# ---- In a model's order ----


def in_order(
    labels: dict[str, np.ndarray], names: ClassNames, groups: Groups, order: Sequence[str]
) -> tuple[dict[str, np.ndarray], ClassNames, Groups]:
    """Labels, names and groups with the label ids in a model's order of the same classes, and its spelling.

    As they were where the model has another number of classes, and so gets a new head, or does not name them: then
    `load_model` sees to it.

    Raises:
        ModelError: the names are of other classes.
    """
    order = checked_names(order, "the model")
    same_numbers = sorted(label_numbers(names) or ()) == list(range(len(order)))
    if len(order) != len(names) or is_automatic(order) or (is_unnamed(order) and not same_numbers):
        return labels, names, groups
    places = match_classes(names, order)
    new_ids = np.empty(len(places), dtype=np.int64)
    new_ids[places] = np.arange(len(places))
    groups = groups.reordered(new_ids, order, names)
    return {split: new_ids[ids] for split, ids in labels.items()}, ClassNames(order), groups
