"""The training set as a stream, for scans of sets that are too large to load: no groups, nothing held out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from datasets import ClassLabel, Features, Image, IterableDataset, Value

from ..errors import DataError
from .classes import checked_names, class_key, is_unnamed
from .sources import read_source

__all__ = ["stream_train"]


def stream_train(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    label_column: str = "label",
    class_names: Sequence[str] | None = None,
    revision: str | None = None,
    config_name: str | None = None,
    check_counts: bool = True,
) -> IterableDataset:
    """The training split as a stream with the columns `idx` (where a builder gives it), `image` and `label` alone.

    [`find_candidates`][hf_score.detection.find_candidates] takes it as it is.

    Args:
        name_or_path: see `load_data`.
        data_dir: see `load_data`.
        label_column: column of the label.
        class_names: order of the classes, where labels are names; a stream cannot know them all.
        revision: revision of a Hub data set.
        config_name: configuration of a Hub data set.
        check_counts: a benchmark's raw folder has to have the official counts. Streams of the Hub are not counted.

    Raises:
        DataError: there is no such data set, or it lacks the columns.
    """
    source = read_source(
        os.fspath(name_or_path),
        data_dir=None if data_dir is None else os.fspath(data_dir),
        revision=revision,
        config_name=config_name,
        streaming=True,
        official=check_counts,
    )
    rows, benchmark = source.splits["train"], source.benchmark
    features = rows.features or {}
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    image = "image" if "image" in images else next(iter(images), None)
    if image is None or label_column not in features:
        raise DataError(
            f"The training stream of '{name_or_path}' has the columns {list(features)}; it needs images and "
            f"'{label_column}'."
        )
    names = {image: "image", label_column: "label"}
    rows = rows.cast_column(image, Image(decode=False))
    if benchmark is not None and benchmark.drop_groups:
        attributes = len(benchmark.spurious_names)
        rows = rows.filter(
            lambda label, spurious: attributes * int(label) + int(spurious) not in benchmark.drop_groups,
            input_columns=[label_column, "spurious"],
        )
    rows = rows.select_columns([*(["idx"] if "idx" in features else []), *names])
    rows = rows.rename_columns({old: new for old, new in names.items() if old != new})
    rows = _numbered(rows, features[label_column], class_names or (benchmark.class_names if benchmark else None))
    return rows.cast_column("image", Image())


def _numbered(rows: IterableDataset, feature: Any, class_names: Sequence[str] | None) -> IterableDataset:
    """The stream with labels as numbers, in the order that `load_data` gives them."""
    own = list(feature.names) if isinstance(feature, ClassLabel) else None
    words = feature in (Value("string"), Value("large_string"))
    if own is None and not words:
        return rows
    if own is not None and (class_names is None or list(class_names) == own):
        return rows
    if class_names is None:
        raise DataError("Labels are names, and a stream does not know them all: give class_names.")
    names = checked_names(class_names, "class_names")
    ids = {class_key(name): i for i, name in enumerate(names)}
    if own is not None and is_unnamed(own) and len(own) == len(names):
        ids |= {class_key(name): i for i, name in enumerate(own) if not is_unnamed(names)}
    unknown = next((name for name in own or () if class_key(name) not in ids), None)
    if unknown is not None:
        raise DataError(
            f"The stream has the class '{unknown}', which is not one of the classes {names}; correct them."
        )

    def number(row: dict[str, Any]) -> dict[str, Any]:
        name = own[row["label"]] if own is not None else row["label"]
        if class_key(name) not in ids:
            raise DataError(f"The stream has the label '{name}', which is not one of the classes {names}.")
        return {"label": ids[class_key(name)]}

    assert rows.features is not None
    return rows.map(number, features=Features(rows.features | {"label": ClassLabel(names=names)}))
