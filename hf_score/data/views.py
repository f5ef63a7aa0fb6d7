"""Data sets of any kind as items that a trainer reads: each is looked at when it is asked for, and nothing is copied.

An item has `image` (a PIL image) or `pixel_values`, `label` (the model's class id) where there is one, and `idx`.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from PIL import Image as PILImage

from ..errors import DataError, first_line
from .classes import class_key, class_names_of, is_unnamed

__all__ = ["ItemReader", "Items", "StreamItems", "is_stream", "kind_of", "picture", "starting"]

#: How many items of a stream are read for images of every class before it is said that a class is missing.
_MOST_READ = 20_000


def is_stream(dataset: Any) -> bool:
    """Whether items come one after the other, and none can be asked for."""
    return isinstance(dataset, IterableDataset | torch.utils.data.IterableDataset)


def kind_of(value: Any) -> str:
    """A value in words for an error."""
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, np.ndarray | torch.Tensor):
        return f"a {name} of shape {tuple(value.shape)} and {value.dtype}"
    return f"a {name}"


def starting(what: str) -> str:
    """A name for a data set at the start of a sentence."""
    return what[0].upper() + what[1:]


def picture(image: Any, position: int, what: str) -> str | PILImage.Image:
    """A PIL image, an array (H, W) or (H, W, 3) of uint8, or a path: as a PIL image, or the whole path.

    Raises:
        DataError: it is something else.
    """
    if isinstance(image, str | os.PathLike):
        return os.path.abspath(image)
    fits = isinstance(image, np.ndarray) and image.dtype == np.uint8
    if fits and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        image = PILImage.fromarray(image)
    if not isinstance(image, PILImage.Image):
        advice = "a PIL image, an array (H, W, 3) of uint8, or a path"
        hint = " (leave ToTensor off: the model's processor makes tensors)" if isinstance(image, torch.Tensor) else ""
        raise DataError(f"Item {position} of {what} has {kind_of(image)} for an image; give {advice}{hint}.")
    return image


@dataclass(frozen=True)
class ItemReader:
    """What a data set gives for an item, as a dict of the keys that training reads.

    Args:
        what: what to call the data set in errors.
        class_names: of the model, in the order of its outputs: words among the labels are looked up here. Empty where
            it is not known; then words are refused.
    """

    what: str
    class_names: tuple[str, ...] = ()

    def __call__(self, item: Any, position: int) -> dict[str, Any]:
        """Of a dict with `image` or `pixel_values`, a pair `(image, label)`, or an image.

        Raises:
            DataError: it is something else, or its image or label cannot be read.
        """
        item = self._named(item, position)
        row = {name: value for name, value in item.items() if name not in ("image", "label", "labels")}
        if "pixel_values" not in row:
            row["image"] = self._opened(item["image"], position)
        name = "labels" if "labels" in item else "label"
        if name in item:
            row["label"] = self.label_id(item[name], position)
        row.setdefault("idx", position)
        return row

    def label_id(self, label: Any, position: int) -> int:
        """The model's class id that a label stands for.

        Raises:
            DataError: a label that is missing, a fraction, a list, or none of the classes.
        """
        arrays = np.ndarray | np.generic | torch.Tensor
        value = label.item() if isinstance(label, arrays) and label.ndim == 0 else label
        if isinstance(value, str):
            found = self._places.get(class_key(value))
            if found is None and value.strip().isdecimal() and is_unnamed(self.class_names):
                found = int(value)  # the model's classes have no names but their numbers
        else:
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            found = int(value) if whole else None
        if found is None or found < 0 or (self.class_names and found >= len(self.class_names)):
            shown = repr(value) if isinstance(value, str | int | float) else kind_of(value)
            said = "no label" if value is None else f"the label {shown}"
            names = f" {list(self.class_names[:12])}" if self.class_names else ""
            raise DataError(
                f"Item {position} of {self.what} has {said}; give the name or the number, from 0, of one of the "
                f"model's classes{names}."
            )
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        return {class_key(name): i for i, name in enumerate(self.class_names)}

    def check_labels(self, labels: Sequence[Any]) -> None:
        """Raise as `label_id` where it would for one of them."""
        seen: set[Any] = set()
        for position, label in enumerate(labels):
            key = label if isinstance(label, str | int | float) else id(label)
            if key not in seen:
                self.label_id(label, position)
                seen.add(key)

    def _named(self, item: Any, position: int) -> Mapping[str, Any]:
        if isinstance(item, Mapping):
            if "image" not in item and "pixel_values" not in item:
                raise DataError(
                    f"Item {position} of {self.what} has the keys {sorted(map(str, item))} and neither 'image' nor "
                    "'pixel_values'; name one so."
                )
            return item
        if isinstance(item, tuple | list):
            if len(item) != 2:
                raise DataError(
                    f"Item {position} of {self.what} has {len(item)} parts; give (image, label) and nothing else."
                )
            return {"image": item[0], "label": item[1]}
        return {"image": item}

    def _opened(self, image: Any, position: int) -> PILImage.Image:
        if isinstance(image, Mapping) and {"bytes", "path"} <= set(image):  # `datasets.Image(decode=False)`
            image = image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])
        source = image if isinstance(image, io.BytesIO) else picture(image, position, self.what)
        if isinstance(source, PILImage.Image):
            return source
        try:
            return PILImage.open(source)
        except OSError as error:
            raise DataError(
                f"The image of item {position} of {self.what} cannot be read ({first_line(error)}); mend it, or leave "
                "it out."
            ) from error


class _Entry(NamedTuple):
    label: int | None
    idx: int


class Items(torch.utils.data.Dataset):
    """An indexable data set read by an `ItemReader`. Like a `datasets.Dataset`, it gives a column for a name.

    Args:
        base: has a length and items.
        reader: reads them.
    """

    def __init__(self, base: Any, reader: ItemReader) -> None:
        self.base, self._reader = base, reader
        first = self[0]
        self.column_names = list(first)
        self.info = getattr(base, "info", None)
        #: Whether all can be looked at without reading images.
        self.is_listed = isinstance(base, list | Dataset)
        words = "label" in first and isinstance(_label_of(base[0]), str)
        #: What the base calls the numbers it gives as labels.
        self.class_names = None if words else class_names_of(base)

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, item: int | str) -> Any:
        return self._column(item) if isinstance(item, str) else self._reader(self.base[item], int(item))

    def _column(self, name: str) -> list[Any]:
        values = self._raw_labels() if name == "label" else None
        if values is not None:
            return [self._reader.label_id(value, i) for i, value in enumerate(values)]
        if isinstance(self.base, Dataset) and name in self.base.column_names:
            return list(self.base.with_format(None)[name])
        if name == "idx" and not isinstance(self.base[0], Mapping):
            return list(range(len(self)))
        if name in ("label", "idx"):
            return [getattr(entry, name) for entry in self._looked_at]
        return [self[i][name] for i in range(len(self))]

    @cached_property
    def _looked_at(self) -> list[_Entry]:
        """Labels and ids of all items, which are read for them: once."""
        items = (self[i] for i in range(len(self)))
        return [_Entry(item.get("label"), item["idx"]) for item in items]

    def _raw_labels(self) -> Sequence[Any] | None:
        """All labels as they stand in the base, where it gives them without its images."""
        if isinstance(self.base, Dataset):
            name = next((name for name in ("labels", "label") if name in self.base.column_names), None)
            return None if name is None else list(self.base.with_format(None)[name])
        if isinstance(self.base, list):
            return [_label_of(item) for item in self.base]
        targets = getattr(self.base, "targets", None)  # torchvision's data sets
        transformed = getattr(self.base, "target_transform", None) is not None
        if targets is None or transformed or len(targets) != len(self.base):
            return None
        return targets.tolist() if hasattr(targets, "tolist") else list(targets)


class StreamItems(torch.utils.data.IterableDataset):
    """A stream read by an `ItemReader`; it has a length where its base has one."""

    def __init__(self, base: Any, reader: ItemReader) -> None:
        self.base, self._reader = base, reader
        first = next(iter(self), None)
        if first is None:
            raise DataError(f"{starting(reader.what)} is empty; give one with images.")
        self.column_names = list(first)
        self.info = getattr(base, "info", None)
        words = isinstance(_label_of(next(iter(base))), str)
        self.class_names = None if words else class_names_of(base)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for position, item in enumerate(self.base):
            yield self._reader(item, position)

    def __len__(self) -> int:
        # A stream without one raises TypeError, as `len` itself does: `transformers` asks in this way.
        return len(self.base)

    def __getitem__(self, name: str) -> list[Any]:
        """A column, for which the stream is read."""
        return [item[name] for item in self]

    def set_epoch(self, epoch: int) -> None:
        """Shuffle anew, where the base does."""
        if hasattr(self.base, "set_epoch"):
            self.base.set_epoch(epoch)

    def first_of_each_class(self, count: int) -> Iterator[dict[str, Any]]:
        """About `count` items from the beginning of the stream, of every class as many where they come early enough.

        The same for every seed: what is shuffled is the stream.
        """
        classes = len(self._reader.class_names)
        share, found = max(1, count // max(1, classes)), Counter[int]()
        for item in islice(self, _MOST_READ):
            if found[item["label"]] < share:
                found[item["label"]] += 1
                yield item
            if found.total() == share * classes:
                return


def _label_of(item: Any) -> Any:
    if isinstance(item, Mapping):
        return item.get("labels", item.get("label"))
    return item[1] if isinstance(item, tuple | list) and len(item) == 2 else None
