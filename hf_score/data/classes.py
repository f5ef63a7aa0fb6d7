"""Names of classes: when two are the same, in which order they stand, and the files that are called after them.

Data, options and models all name classes, and each may spell and order them in its own way. Everything that compares
them does it here: by name, never by position, and an order that nobody has stated is not trusted.
"""

from __future__ import annotations

import csv
import logging
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from datasets import ClassLabel

from ..errors import DataError, ModelError

__all__ = [
    "ClassNames",
    "checked_names",
    "class_key",
    "class_names_of",
    "clean_name",
    "file_names",
    "is_automatic",
    "is_unnamed",
    "label_numbers",
    "labelled_names",
    "match_classes",
    "natural_order",
    "parse_class_names",
    "sorted_names",
]

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"(?:(?:label|class)[ _-]?)?(\d+)")
#: Names that no system but Unix allows for a file, whatever its ending.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
_FILE_NAME_LENGTH = 60


class ClassNames(list[str]):
    """Names in the order of the label ids, and whether somebody stated that order.

    A person, a benchmark or the data's own label ids state it. Folder names and words in a table do not: they were
    sorted, and the order cannot be held against a model that does not name its classes. A list of another type counts
    as stated.
    """

    def __init__(self, names: Iterable[str] = (), *, stated: bool = True) -> None:
        super().__init__(names)
        self.stated = stated


def clean_name(name: object) -> str:
    """A name as it is kept and shown: composed (NFC), without blanks around it."""
    return unicodedata.normalize("NFC", str(name)).strip().strip("\ufeff")


def class_key(name: object) -> str:
    """What two names of the same class have in common, whatever their capitals, blanks and encoding of accents."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", str(name)).casefold())
    return " ".join(folded.replace("\ufeff", "").split())


def checked_names(names: Iterable[object], where: str) -> list[str]:
    """The names, cleaned.

    Args:
        names: of different classes.
        where: what names them so, for the error.

    Raises:
        DataError: one is empty, or two are the same but for spelling.
    """
    seen: dict[str, str] = {}
    for name in names:
        clean, key = clean_name(name), class_key(name)
        if not key:
            raise DataError(f"One of the class names of {where} is empty; name every class.")
        if key in seen:
            raise DataError(
                f"The class names '{seen[key]}' and '{clean}' of {where} are the same but for capitals, blanks or the "
                "encoding of accents; spell one class in one way, and two classes in two."
            )
        seen[key] = clean
    return list(seen.values())


def parse_class_names(text: str) -> list[str]:
    """The names of a command line's list: commas between, blanks around them do not count, quotes may hold a comma."""
    return [clean_name(name) for name in next(csv.reader([text], skipinitialspace=True), [])]


def sorted_names(names: Iterable[str]) -> ClassNames:
    """Names that come without an order: numbers by their value, words as text (as torchvision and `datasets` do).

    The order counts as stated only where the names are the numbers from 0 and every way of sorting agrees.
    """
    names = list(names)
    if all(re.fullmatch(r"\d+", name) for name in names):
        ordered = sorted(names, key=lambda name: (int(name), name))
        stated = [int(name) for name in ordered] == list(range(len(names))) and ordered == sorted(names)
        return ClassNames(ordered, stated=stated)
    return ClassNames(sorted(names), stated=False)


def natural_order(names: Iterable[str]) -> list[str]:
    """The names sorted with the numbers in them by value, as timm does: stage2 before stage10."""
    return sorted(names, key=lambda name: [(part.isdigit(), part.zfill(20)) for part in re.split(r"(\d+)", name)])


def labelled_names(feature: ClassLabel, where: str) -> ClassNames:
    """The names of a label column that has them: its ids state their order, unless it is sorted in a doubtful way."""
    names = checked_names(feature.names, where)
    return ClassNames(names, stated=names != sorted(names) or names == natural_order(names))


def class_names_of(dataset: Any) -> list[str] | None:
    """What a data set calls its label ids, None where it does not say."""
    features = getattr(dataset, "features", None) or {}
    for column in ("label", "labels"):
        if isinstance(features.get(column), ClassLabel):
            return list(features[column].names)
    names = getattr(dataset, "class_names", None) or getattr(dataset, "classes", None)
    return [str(name) for name in names] if isinstance(names, list | tuple) else None


def label_numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers of names that say nothing else ('3', 'LABEL_3', 'class 3'), None where one says more."""
    found = [_NUMBER.fullmatch(class_key(name)) for name in names]
    numbers = [int(match.group(1)) for match in found if match]
    return numbers if len(set(numbers)) == len(names) else None


def is_unnamed(names: Sequence[str]) -> bool:
    """Whether names say no more than the label ids 0, 1, ... themselves."""
    return label_numbers(names) == list(range(len(names)))


def is_automatic(names: Sequence[str]) -> bool:
    """Whether names are those that transformers makes up (`LABEL_0`): then even the numbers say nothing."""
    return is_unnamed(names) and all(class_key(name).startswith("label") for name in names)


def match_classes(ours: Sequence[str], theirs: Sequence[str], *, model: str = "the model") -> list[int]:
    """For each of a model's classes, the label id that the data give the same class.

    Args:
        ours: names of the data's label ids; `ClassNames` know whether their order was stated.
        theirs: names of the model's label ids.
        model: what to call it in errors.

    Returns:
        `order`: `theirs[i]` is `ours[order[i]]`. Identity where both have the same order.

    Raises:
        ModelError: the names are not of the same classes, or cannot tell.
    """
    names, own = checked_names(ours, "the data"), checked_names(theirs, f"'{model}'")
    places, identity = {class_key(name): i for i, name in enumerate(names)}, list(range(len(names)))
    stated = getattr(ours, "stated", True)
    if len(names) != len(own):
        raise ModelError(f"'{model}' has {len(own)} classes and the data {len(names)}; give a model for these data.")
    if places.keys() == {class_key(name) for name in own}:
        return [places[class_key(name)] for name in own]
    our_numbers, their_numbers = label_numbers(names), label_numbers(own)
    same_numbers = our_numbers and their_numbers and sorted(our_numbers) == sorted(their_numbers)
    if our_numbers and their_numbers and same_numbers and not is_automatic(own):
        return [our_numbers.index(number) for number in their_numbers]
    if their_numbers == identity:
        if not stated or (our_numbers and not same_numbers):
            raise ModelError(
                f"'{model}' does not name its classes, and the order of the data's ({_listed(names)}) is only that of "
                "sorting; state with class_names the order in which the model was trained."
            )
        if our_numbers != identity:
            logger.warning("'%s' calls its classes %s; they are taken to be %s, in this order.", model, own, names)
        return identity
    if our_numbers:
        raise ModelError(
            f"The data's labels are numbers ({_listed(names)}), and '{model}' calls its classes {_listed(own)}; say "
            "with class_names what the numbers stand for, in their order."
        )
    different = next(name for name in names if class_key(name) not in {class_key(name) for name in own})
    raise ModelError(
        f"The data's class '{different}' is none of the classes of '{model}' ({_listed(own)}); call the data's "
        "classes as the model does where they are the same, or give another model."
    )


def file_names(class_names: Sequence[str]) -> list[str]:
    """A file name without ending for each class: unique, short, and of letters, digits and '-' alone."""
    slugs = []
    for number, name in enumerate(class_names):
        plain = unicodedata.normalize("NFKD", str(name)).encode("ascii", "ignore").decode().casefold()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_FILE_NAME_LENGTH].strip("-")
        slugs.append(f"class-{slug or number}" if not slug or slug in _RESERVED else slug)
    repeated = {slug for slug in slugs if slugs.count(slug) > 1}
    taken = set(slugs) - repeated
    unique = []
    for number, slug in enumerate(slugs):
        if slug in repeated:
            slug = f"{slug}-{number}"
            while slug in taken:
                slug += "-x"
            taken.add(slug)
        unique.append(slug)
    return unique


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
