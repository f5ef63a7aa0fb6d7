"""Which images are the same, and which have the same id: what would make a decision act on another image."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..errors import DataError
from .views import is_stream

__all__ = ["check_same_files", "check_unique_idx", "encoded_bytes", "same_content"]

logger = logging.getLogger(__name__)


def encoded_bytes(image: Mapping[str, Any]) -> bytes:
    """The file of an image that was not decoded."""
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


def check_unique_idx(dataset: Any, what: str) -> None:
    """Refuse a data set in which an `idx` is there twice, where that can be seen without reading images.

    Raises:
        DataError: one is.
    """
    if is_stream(dataset) or dataset is None:
        return
    if "idx" in (getattr(dataset, "column_names", None) or ()):
        found = np.asarray(dataset["idx"][:])
    elif hasattr(dataset, "idx") and hasattr(dataset.idx, "tolist"):
        found = np.asarray(dataset.idx.tolist())
    else:
        return
    values, counts = np.unique(found, return_counts=True)
    if (counts > 1).any():
        refuse_repeated_idx(int(values[counts > 1][0]), what)


def refuse_repeated_idx(idx: int, what: str) -> None:
    """The one sentence for it."""
    raise DataError(
        f"{what} has the idx {idx} twice, and a decision about it would act on two images; give every image an idx of "
        "its own (put files together before loading them, or renumber the column)."
    )


def same_content(images: Sequence[Mapping[str, Any] | None]) -> np.ndarray:
    """(n,): the number of the first image with the same file content, for each image.

    Only files of the same size are read. What cannot be read is like nothing else.
    """
    sizes = [_size(image) for image in images]
    common = Counter(size for size in sizes if size is not None)
    first: dict[bytes, int] = {}
    same = np.arange(len(images))
    for i, (image, size) in enumerate(zip(images, sizes, strict=True)):
        if image is None or size is None or common[size] < 2:
            continue
        try:
            digest = hashlib.sha256(encoded_bytes(image)).digest()
        except OSError:
            continue
        same[i] = first.setdefault(digest, i)
    return same


def check_same_files(
    splits: Mapping[str, Dataset], labels: Mapping[str, np.ndarray], *, name: str, strict: bool
) -> None:
    """Name images that are there in two classes, or in training and in another split too.

    Raises:
        DataError: with `strict`, there are any.
    """
    names = list(splits)
    images = [image for split in names for image in splits[split].select_columns(["image"])["image"]]
    of_split = np.concatenate([np.full(len(splits[split]), i) for i, split in enumerate(names)])
    of_class = np.concatenate([labels[split] for split in names])
    row = np.concatenate([np.arange(len(splits[split])) for split in names])
    same = same_content(images)
    again = np.flatnonzero(same != np.arange(len(same)))
    in_two_classes = again[of_class[again] != of_class[same[again]]]
    train = names.index("train")
    in_two_splits = again[(of_split[again] != of_split[same[again]]) & (of_split[same[again]] == train)]
    for found, kind in ((in_two_classes, "two classes"), (in_two_splits, "the training split and another")):
        if not len(found):
            continue
        places = [f"{_where(images[i])} (row {row[i]} of {names[of_split[i]]})" for i in (same[found[0]], found[0])]
        said = f"{len(found)} images of '{name}' are in {kind}: the first is {places[0]}, again as {places[1]}"
        if strict:
            raise DataError(f"{said}; remove one of each, or load without strict.")
        logger.warning(said)


def _size(image: Mapping[str, Any] | None) -> int | None:
    if image is None:
        return None
    if image["bytes"] is not None:
        return len(image["bytes"])
    try:
        return os.stat(image["path"]).st_size
    except OSError:
        return None


def _where(image: Mapping[str, Any] | None) -> str:
    return str((image or {}).get("path") or "an image without a file name")
