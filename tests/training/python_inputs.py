"""Training sets as Python hands them over, each with what happens: rows of the table *Inputs*, walked by a test.

A row is a name, a function that makes the training set of the six `PICTURES` in a folder and returns the keywords of
the trainer, and what is expected: `read`, or `refused: ` and a part of the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, IterableDataset
from datasets import Image as ImageFeature
from PIL import Image
from tiny import tiny_processor
from torchvision.datasets import ImageFolder

__all__ = ["CLASSES", "LABELS", "PICTURES", "PYTHON_INPUTS", "PythonInput"]


class PythonInput(NamedTuple):
    name: str
    make: Callable[[Path], dict[str, Any]]
    expected: str


#: The classes of the model, `tiny.tiny_vit`.
CLASSES = ["plain", "square"]
LABELS = [0, 1, 1, 0, 1, 0]
WORDS = [CLASSES[label] for label in LABELS]
#: Each grey of its own, so that it tells its label.
PICTURES = [Image.new("RGB", (40, 36), (level, level, level)) for level in range(20, 260, 40)]
ARRAYS = [np.asarray(image) for image in PICTURES]


class Pairs(torch.utils.data.Dataset):
    """Items as they are given, each made when it is asked for; as torchvision's data sets, it has `classes`."""

    def __init__(self, items: list[Any], classes: list[str] | None = None) -> None:
        self.items, self.classes = items, classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> Any:
        return self.items[item]


class Stream(torch.utils.data.IterableDataset):
    """Items one after the other; no length."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class StreamWithLength(Stream):
    def __len__(self) -> int:
        return len(self.items)


def rows(labels: list[Any] = LABELS, **more: Any) -> list[dict[str, Any]]:
    columns = {"image": PICTURES, "label": labels, **more}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def table(labels: list[Any] | None = LABELS, feature: Any = None, **more: Any) -> Dataset:
    columns = {"image": PICTURES, **({} if labels is None else {"label": labels}), **more}
    dataset = Dataset.from_dict(columns).cast_column("image", ImageFeature())
    return dataset if feature is None else dataset.cast_column("label", feature)


def files(folder: Path) -> list[str]:
    for i, image in enumerate(PICTURES):
        image.save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(len(PICTURES))]


def class_folders(folder: Path, transform: Callable | None = None) -> ImageFolder:
    for i, (image, word) in enumerate(zip(PICTURES, WORDS, strict=True)):
        (folder / word).mkdir(exist_ok=True)
        image.save(folder / word / f"{i}.png")
    return ImageFolder(str(folder), transform=transform)


def prepared(batch: dict[str, Any]) -> dict[str, Any]:
    pixels = tiny_processor()(images=batch["image"], return_tensors="pt")["pixel_values"]
    return {"pixel_values": list(pixels), "label": batch["label"]}


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def stream(dataset: Dataset) -> IterableDataset:
    return dataset.to_iterable_dataset()


def of_generator(items: list[dict[str, Any]]) -> IterableDataset:
    """A stream that does not know its columns."""
    return IterableDataset.from_generator(lambda: iter(items))


def given(make: Callable[[], Any], **config: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"train_dataset": make(), **config}


def row(name: str, make: Callable[[], Any], expected: str = "read", **config: Any) -> PythonInput:
    return PythonInput(name, given(make, **config), expected)


PYTHON_INPUTS = [
    row("a Dataset", table),
    row("a Dataset whose labels name the model's classes", lambda: table(feature=ClassLabel(names=CLASSES))),
    row(
        "a Dataset whose labels name them in another order",
        lambda: table(feature=ClassLabel(names=CLASSES[::-1])),
        "refused: label ids of the model and of the training set differ",
    ),
    row("a Dataset, labels as words", lambda: table(WORDS)),
    row("a Dataset, labels as words in capitals and blanks", lambda: table([f" {word.upper()}" for word in WORDS])),
    row("a Dataset, labels as other words", lambda: table(["cat", "dog"] * 3), "refused: has the label 'cat'"),
    row("a Dataset, labels from 1", lambda: table([1 + label for label in LABELS]), "refused: has the label 2"),
    row("a Dataset, labels as 0.0 and 1.0", lambda: table([float(label) for label in LABELS])),
    row("a Dataset, labels as fractions", lambda: table([0.2, 0.9] * 3), "refused: has the label 0.2"),
    row("a Dataset, labels one-hot", lambda: table([[1, 0], [0, 1]] * 3), "refused: has the label a list"),
    row("a Dataset, a label missing", lambda: table([0, 1, None, 0, 1, 0]), "refused: the training set has no label"),
    row("a Dataset without labels", lambda: table(None), "refused: has no label"),
    row("a Dataset with a column group", lambda: table(group=[0, 1] * 3), "refused: must not reach training"),
    row("a Dataset of undecoded images", lambda: table().cast_column("image", ImageFeature(decode=False))),
    row('a Dataset, with_format("torch")', lambda: table().with_format("torch")),
    row('a Dataset, with_format("numpy")', lambda: table(WORDS).with_format("numpy")),
    row("a Dataset, with_transform that makes pixel_values", lambda: table().with_transform(prepared)),
    row("a Dataset, with_transform, labels as words", lambda: table(WORDS).with_transform(prepared)),
    row(
        "a Dataset, with_transform that makes tensors of images",
        lambda: table().with_transform(lambda b: {"image": [to_tensor(i) for i in b["image"]], "label": b["label"]}),
        "refused: leave ToTensor off",
    ),
    row(
        "a Dataset, with_transform that adds a group",
        lambda: table().with_transform(lambda b: {**b, "group": b["label"]}),
        "refused: must not reach training",
    ),
    row("a DatasetDict", lambda: DatasetDict(train=table(), test=table()), "refused: give one split, such as data"),
    row("a dict of data sets", lambda: {"train": table(), "test": table()}, "refused: give one split, such as data"),
    row("an empty Dataset", lambda: table().select([]), "refused: is empty"),
    row("a list of dicts", rows),
    row("a list of dicts, labels as words", lambda: rows(WORDS)),
    row(
        "a list of dicts, one with a group", lambda: [*rows()[:5], {**rows()[5], "group": 1}], "refused: column group"
    ),
    row("a list of dicts, a label missing", lambda: [*rows()[:5], {"image": PICTURES[5]}], "refused: has no label"),
    row("a list of dicts, an idx twice", lambda: rows(idx=[0, 1, 2, 3, 4, 0]), "refused: has the idx 0 twice"),
    row(
        "a list of dicts without image",
        lambda: [{"picture": image, "label": 0} for image in PICTURES],
        "refused: has the column picture",
    ),
    row("a list of (image, label)", lambda: list(zip(PICTURES, LABELS, strict=True))),
    row(
        "a list of (image, label, group)",
        lambda: list(zip(PICTURES, LABELS, LABELS, strict=True)),
        "refused: has 3 parts",
    ),
    row("a list of (array, label)", lambda: list(zip(ARRAYS, LABELS, strict=True))),
    row("a list of images", lambda: list(PICTURES), "refused: has no label"),
    row("a pair of lists, images and labels", lambda: (PICTURES, LABELS)),
    row("a pair of arrays, images and labels", lambda: (np.stack(ARRAYS), np.array(LABELS))),
    row("a pair of lists of other lengths", lambda: (PICTURES, LABELS[:5]), "refused: 6 images and 5 labels"),
    PythonInput(
        "a list of (path, label)", lambda f: {"train_dataset": list(zip(files(f), LABELS, strict=True))}, "read"
    ),
    PythonInput(
        "a list of (path, word)", lambda f: {"train_dataset": list(zip(files(f), WORDS, strict=True))}, "read"
    ),
    PythonInput("a list of paths", lambda f: {"train_dataset": files(f)}, "refused: has no label"),
    PythonInput(
        "a path that is not there",
        lambda f: {"train_dataset": [(str(f / "no.png"), 0)] * 6},
        "refused: cannot be read",
    ),
    PythonInput("a path", lambda f: {"train_dataset": str(f)}, "refused: is a str"),
    PythonInput("torchvision's ImageFolder", lambda f: {"train_dataset": class_folders(f)}, "read"),
    PythonInput(
        "torchvision's ImageFolder with a transform that gives images",
        lambda f: {"train_dataset": class_folders(f, lambda image: image.copy())},
        "read",
    ),
    PythonInput(
        "torchvision's ImageFolder with ToTensor",
        lambda f: {"train_dataset": class_folders(f, to_tensor)},
        "refused: leave ToTensor off",
    ),
    row("a torch Dataset of (image, label)", lambda: Pairs(list(zip(PICTURES, LABELS, strict=True)), CLASSES)),
    row(
        "a torch Dataset with its classes in another order",
        lambda: Pairs(list(zip(PICTURES, LABELS, strict=True)), CLASSES[::-1]),
        "refused: label ids of the model and of the training set differ",
    ),
    row(
        "a torch Dataset of (image, label tensor)",
        lambda: Pairs(list(zip(PICTURES, torch.tensor(LABELS), strict=True))),
    ),
    row(
        "a torch Dataset of (tensor, label)",
        lambda: torch.utils.data.TensorDataset(torch.zeros(6, 3, 32, 32), torch.tensor(LABELS)),
        "refused: leave ToTensor off",
    ),
    row("a torch Dataset of dicts", lambda: Pairs(rows(WORDS))),
    row("an IterableDataset", lambda: stream(table()), max_steps=1),
    row("an IterableDataset, labels as words", lambda: stream(table(WORDS)), max_steps=1),
    row('an IterableDataset, with_format("torch")', lambda: stream(table()).with_format("torch"), max_steps=1),
    row("an IterableDataset of a generator", lambda: of_generator(rows()), max_steps=1),
    row("an IterableDataset without max_steps", lambda: stream(table()), "refused: set max_steps", max_steps=-1),
    row("an IterableDataset, class_balanced", lambda: stream(table()), "refused: is a stream", class_balanced=True),
    row("an IterableDataset without labels", lambda: stream(table(None)), "refused: has no label"),
    row("an IterableDataset with a group", lambda: stream(table(group=LABELS)), "refused: must not reach training"),
    row(
        "an IterableDataset of a generator, with a group",
        lambda: of_generator(rows(group=LABELS)),
        "refused: must not reach training",
    ),
    row("a torch IterableDataset of (image, label)", lambda: Stream(list(zip(PICTURES, LABELS, strict=True)))),
    row("a torch IterableDataset with length, no max_steps", lambda: StreamWithLength(rows()), max_steps=-1),
    row("an empty stream", lambda: Stream([]), "refused: is empty"),
    row("a generator", lambda: (item for item in rows()), "refused: is a generator"),
]
