"""What people have in Python, to a `datasets.Dataset`: torchvision data sets, arrays, lists, formatted data sets."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value

from ..errors import DataError
from .pixels import PixelDataset
from .views import ItemReader, Items, StreamItems, is_stream, kind_of, picture, starting

__all__ = ["as_dataset", "as_scannable", "as_splits", "as_trainable"]

logger = logging.getLogger(__name__)


def as_splits(given: Any) -> dict[str, Dataset]:
    """A `DatasetDict`, a dict of splits, or one data set as the training split.

    Raises:
        DataError: as `as_dataset`.
    """
    if isinstance(given, Mapping):
        return {str(split): as_dataset(rows, what=f"split '{split}'") for split, rows in given.items()}
    return {"train": as_dataset(given)}


def as_dataset(given: Any, *, what: str = "the data set") -> Dataset:
    """The data set with the column `image`, and `label` where there is one.

    Args:
        given: a `datasets.Dataset` (a format or transform of it is left off); a torchvision data set; any indexable
            data set of `(image, label)` or of dicts with `image` and `label`; a pair `(images, labels)`; a list of
            images. An image is a PIL image, an array (H, W) or (H, W, 3) of uint8, or a path. Labels are numbers or
            words.
        what: what to call it in errors.

    Raises:
        DataError: it is something else, which the message names.
    """
    if isinstance(given, Dataset):
        if given.format["type"] is not None:
            logger.info("%s is read without its format or transform", what)
        return given.with_format(None)
    if isinstance(given, IterableDataset):
        raise DataError(
            f"{starting(what)} is a stream (IterableDataset), which has no splits to make and no length; give it to "
            "find_candidates as it is, or collect it with Dataset.from_list(list(stream))."
        )
    if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        raise DataError(f"{starting(what)} is {kind_of(given)}; give a datasets.Dataset, or items of image and label.")
    if len(given) == 0:
        raise DataError(f"{starting(what)} is empty; give one with images.")
    images, labels = _columns(given, what)
    columns: dict[str, Any] = {"image": [_encoded(image, i, what) for i, image in enumerate(images)]}
    features: dict[str, Any] = {"image": Image(decode=False)}
    if labels is not None:
        values = [value.item() if hasattr(value, "item") else value for value in labels]
        names = getattr(given, "classes", None)
        numbers = all(isinstance(value, int) for value in values)
        if not numbers and not all(isinstance(value, str) for value in values):
            raise DataError(f"The labels of {what} are neither all whole numbers nor all words; make them so.")
        columns["label"] = values
        features["label"] = Value("int64") if numbers else Value("string")
        if numbers and names and min(values) >= 0 and max(values) < len(names):
            features["label"] = ClassLabel(names=[str(name) for name in names])
    return Dataset.from_dict(columns, features=Features(features)).cast_column("image", Image())


def as_scannable(given: Any, processor: Any) -> Any:
    """A data set that `scan` reads: as it is where it can be, adapted by `as_dataset` where not.

    Raises:
        DataError: as `as_dataset`.
    """
    if isinstance(given, Dataset | IterableDataset):
        kind = given.format["type"] if isinstance(given, Dataset) else None
        if kind is None or (kind == "custom" and processor is None):
            return given
        logger.info("the data set is read without its format or transform: the processor prepares the images")
        return given.with_format(None)
    if isinstance(given, PixelDataset):
        return given
    if hasattr(given, "__len__") and hasattr(given, "__getitem__") and not isinstance(given, Mapping) and len(given):
        first = given[0]
        if isinstance(first, Mapping) and ("pixel_values" in first or "image" in first):
            return given
    return as_dataset(given)


def as_trainable(given: Any, *, what: str, class_names: Sequence[str] = (), labelled: bool = True) -> Any:
    """A data set whose items a trainer reads: as it is where it can be, else a view of it that copies nothing.

    Args:
        given: a `PixelDataset`; a `datasets.Dataset`, whose format is left off (`with_format("torch")`) and whose
            transform is kept (`with_transform`), for it may augment; a stream; a torchvision data set, with its
            transforms, which must give images and no tensors; any indexable data set or list of `(image, label)`, of
            dicts with `image` or `pixel_values` and `label`, or of images; a pair `(images, labels)`. An image is as
            for `as_dataset`. `pixel_values` are what the model takes: the processor does not see them.
        what: what to call it in errors.
        class_names: of the model, by which labels that are words are mapped, and others checked.
        labelled: whether it has to have labels.

    Raises:
        DataError: it is something else, which the message names; it is empty; a label is missing or none of the
            classes.
    """
    if given is None or isinstance(given, Items | StreamItems):
        return given
    if isinstance(given, Mapping):
        raise DataError(
            f"{starting(what)} is {kind_of(given)} of {list(given)}; give one split, such as data['train']."
        )
    reader = ItemReader(what, tuple(class_names))
    if isinstance(given, PixelDataset):
        reader.check_labels(given.labels.tolist())
        return given
    if is_stream(given):
        # Tensors of images are what `with_format("torch")` makes; `pixel_values` are tensors anyway.
        plain = isinstance(given, IterableDataset) and "pixel_values" not in (given.column_names or ())
        view: Any = StreamItems(given.with_format(None) if plain else given, reader)
    else:
        view = _indexable(given, reader)
    if labelled and not {"label", "labels"} & set(view.column_names):
        raise DataError(
            f"{starting(what)} has no label, only {', '.join(view.column_names)}; give every image one, in a column "
            "'label' or as (image, label)."
        )
    return view


def _indexable(given: Any, reader: ItemReader) -> Any:
    what = reader.what
    if isinstance(given, str | bytes) or not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        raise DataError(f"{starting(what)} is {kind_of(given)}; give a datasets.Dataset, or items of image and label.")
    if len(given) == 0:
        raise DataError(f"{starting(what)} is empty; give one with images.")
    if isinstance(given, tuple):
        pair = len(given) == 2 and _is_many(given[0]) and _is_many(given[1])
        given = list(zip(*_columns(given, what), strict=True)) if pair else list(given)  # type: ignore[arg-type]
    if not isinstance(given, Dataset):
        view = Items(given, reader)
        if view.is_listed and "label" in view.column_names:
            reader.check_labels(view["label"])
        return view
    columns, features = given.column_names, given.features
    transformed = given.format["type"] == "custom"
    if not transformed and "pixel_values" not in columns:
        given = given.with_format(None)
    name = next((name for name in ("labels", "label") if name in columns), None)
    if name is not None:
        labels = given.with_format(None)[name][:]
        reader.check_labels(labels)
        words = any(isinstance(label, str) for label in labels)
    read = "pixel_values" in columns or (isinstance(features.get("image"), Image) and features["image"].decode)
    return given if read and not transformed and not (name and words) else Items(given, reader)


def _columns(given: Any, what: str) -> tuple[Sequence[Any], Sequence[Any] | None]:
    """Images and labels."""
    paths = getattr(given, "samples", None)
    if isinstance(paths, list) and paths and isinstance(paths[0], tuple) and len(paths[0]) == 2:
        return [path for path, _ in paths], [label for _, label in paths]  # torchvision's folders: files as they are
    if isinstance(given, tuple) and len(given) == 2 and _is_many(given[0]) and _is_many(given[1]):
        if len(given[0]) != len(given[1]):
            raise DataError(
                f"{starting(what)} has {len(given[0])} images and {len(given[1])} labels; give one for each."
            )
        return list(given[0]), list(given[1])
    items = list(_items(given))
    if all(isinstance(item, Mapping) for item in items):
        odd = next((item for item in items if "image" not in item), None)
        if odd is not None:
            raise DataError(f"An item of {what} has the keys {sorted(odd)} and no 'image'; name one so.")
        return [item["image"] for item in items], _labels_of(items, what)
    if all(isinstance(item, tuple) and len(item) == 2 for item in items):
        return [image for image, _ in items], [label for _, label in items]
    return items, None


def _labels_of(items: Sequence[Mapping[str, Any]], what: str) -> list[Any] | None:
    name = next((name for name in ("label", "labels") if any(name in item for item in items)), None)
    if name is None:
        return None
    lacking = next((i for i, item in enumerate(items) if item.get(name) is None), None)
    if lacking is not None:
        raise DataError(f"Item {lacking} of {what} has no '{name}', unlike others; fill it in.")
    return [item[name] for item in items]


def _items(given: Any) -> Iterator[Any]:
    return (given[i] for i in range(len(given)))


def _is_many(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping)


def _encoded(image: Any, i: int, what: str) -> dict[str, Any]:
    """An image as `datasets` stores it."""
    image = picture(image, i, what)
    if isinstance(image, str):
        return {"bytes": None, "path": image}
    buffer = io.BytesIO()
    image.save(buffer, format="TIFF" if image.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV") else "PNG")
    return {"bytes": buffer.getvalue(), "path": None}
