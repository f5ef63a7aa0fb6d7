"""Layouts of data sets as people have them, each with what happens: rows of the table *Inputs* in the docs.

Pictures of a cat are reddish and those of a dog bluish, so that a class can be held against the picture itself.
`tests/data/test_layouts.py` walks the list.
"""

from __future__ import annotations

import csv
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PILImage

__all__ = ["LAYOUTS", "Layout", "is_cat", "picture_of"]


class Layout(NamedTuple):
    """One layout.

    Attributes:
        name: what it is, in words.
        make: writes it into a folder and returns the arguments of `load_data`.
        expected: `read`, or "refused: " and a part of the sentence.
    """

    name: str
    make: Callable[[Path], dict[str, Any]]
    expected: str = "read"


CAT, DOG = "cat", "dog"


def picture_of(name: str, seed: int) -> PILImage.Image:
    """An 8 x 8 picture of a class, unlike all others."""
    pixels = np.random.default_rng(seed).integers(0, 100, (8, 8, 3), dtype=np.uint8)
    pixels[..., 0 if name == CAT else 2] += 150
    return PILImage.fromarray(pixels)


def is_cat(image: PILImage.Image) -> bool:
    """What the picture itself says."""
    red, _, blue = np.asarray(image.convert("RGB")).reshape(-1, 3).mean(0)
    return red > blue


def put(folder: Path, name: str, count: int, *, prefix: str = "") -> list[str]:
    """Write pictures of a class into a folder; their file names."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(str(folder.relative_to(folder.anchor)).encode())
    files = [f"{prefix}{name}{i}.png" for i in range(count)]
    for i, file in enumerate(files):
        picture_of(name, seed + 1000 * (name == DOG) + i).save(folder / file)
    return files


def class_folders(folder: Path, *, cat: str = CAT, dog: str = DOG, count: int = 10) -> Path:
    put(folder / cat, CAT, count)
    put(folder / dog, DOG, count)
    return folder


def split_folders(*names: str, **options: Any) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        for name in names:
            class_folders(folder / name, **options)
        return {"name_or_path": folder}

    return make


def table(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def with_metadata(
    labels: tuple[Any, Any], *, extra: Callable[[int], dict[str, Any]] = lambda i: {}, **options: Any
) -> Callable[[Path], dict[str, Any]]:
    """Folders of splits, each with a metadata.csv that calls cat and dog by these labels."""

    def make(folder: Path) -> dict[str, Any]:
        for split in ("train", "test"):
            rows = []
            for name, label in zip((CAT, DOG), labels, strict=True):
                files = put(folder / split, name, 8)
                rows += [{"file_name": file, "label": label, **extra(i)} for i, file in enumerate(files)]
            table(folder / split / "metadata.csv", rows)
        return {"name_or_path": folder, **options}

    return make


def one_csv(*, absolute: bool = True, split: bool = True) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        rows = []
        for name in (CAT, DOG):
            for i, file in enumerate(put(folder / "images", name, 12)):
                path = folder / "images" / file if absolute else f"images/{file}"
                rows.append(
                    {"path": path, "label": name} | ({"split": ("Train", "val", "TEST")[i % 3]} if split else {})
                )
        table(folder / "data.csv", rows)
        return {"name_or_path": folder / "data.csv"}

    return make


def in_memory(count: int = 10) -> Dataset:
    names = [CAT] * count + [DOG] * count
    features = Features(image=Image(), label=ClassLabel(names=[CAT, DOG]))
    pictures = [picture_of(name, i) for i, name in enumerate(names)]
    return Dataset.from_dict({"image": pictures, "label": [name == DOG for name in names]}, features=features)


def saved(folder: Path, *, as_dict: bool) -> dict[str, Any]:
    data = in_memory()
    if as_dict:
        data = DatasetDict(data.train_test_split(0.3, seed=0, stratify_by_column="label"))
    data.save_to_disk(str(folder / "saved"))
    return {"name_or_path": folder / "saved"}


def parquet(folder: Path) -> dict[str, Any]:
    for split, rows in in_memory().train_test_split(0.3, seed=0, stratify_by_column="label").items():
        rows.to_parquet(folder / f"{split}.parquet")
    return {"name_or_path": folder}


def root_table(folder: Path) -> dict[str, Any]:
    class_folders(folder)
    files = [f"{name}/{name}{i}.png" for name in (CAT, DOG) for i in range(10)]
    table(folder / "metadata.csv", [{"file_name": file, "patient": f"p{i // 2}"} for i, file in enumerate(files)])
    return {"name_or_path": folder, "split_by": "patient"}


def words_as_labels(folder: Path) -> dict[str, Any]:
    names = [CAT, DOG] * 10
    rows = {"image": [picture_of(name, i) for i, name in enumerate(names)], "label": names}
    return {
        "name_or_path": Dataset.from_dict(rows, features=Features(image=Image(), label=Value("string"))),
    }


def nested(folder: Path) -> dict[str, Any]:
    for patient in ("p1", "p2"):
        put(folder / CAT / patient, CAT, 5, prefix=patient)
    put(folder / DOG / "p3", DOG, 10)
    return {"name_or_path": folder}


def sources_first(folder: Path) -> dict[str, Any]:
    for hospital in ("north", "south"):
        class_folders(folder / hospital)
    return {"name_or_path": folder}


def swapped_option(folder: Path) -> dict[str, Any]:
    class_folders(folder / "train")
    class_folders(folder / "test")
    return {"name_or_path": folder, "class_names": [" DOG", "Cat "]}


def models_order(folder: Path) -> dict[str, Any]:
    class_folders(folder / "train")
    class_folders(folder / "test")
    return {"name_or_path": folder, "model_classes": ["Dog", "Cat"]}


def other_names(folder: Path) -> dict[str, Any]:
    class_folders(folder / "train")
    class_folders(folder / "test")
    return {"name_or_path": folder, "class_names": ["lion", "wolf"]}


def one_class(folder: Path) -> dict[str, Any]:
    for split in ("train", "test"):
        put(folder / split / CAT, CAT, 5)
    return {"name_or_path": folder}


def unknown_in_test(folder: Path) -> dict[str, Any]:
    class_folders(folder / "train")
    class_folders(folder / "test", dog="wolf")
    return {"name_or_path": folder}


def same_file_twice(folder: Path) -> dict[str, Any]:
    class_folders(folder / "train")
    class_folders(folder / "test")
    shutil.copy(folder / "train" / CAT / "cat0.png", folder / "test" / DOG / "copy.png")
    return {"name_or_path": folder, "strict": True}


def label_missing(folder: Path) -> dict[str, Any]:
    given = with_metadata((CAT, DOG))(folder)
    file = folder / "train" / "metadata.csv"
    file.write_text(file.read_text().replace("cat3.png,cat", "cat3.png,"))
    return given


def empty_folder(folder: Path) -> dict[str, Any]:
    (folder / "train" / CAT).mkdir(parents=True)
    return {"name_or_path": folder}


LAYOUTS = [
    Layout(
        "class folders alone (a share is set aside for testing, said)", lambda f: {"name_or_path": class_folders(f)}
    ),
    Layout("train/ and test/ with class folders", split_folders("train", "test")),
    Layout("train/ and val/: val is the test split", split_folders("train", "val")),
    Layout("Train/ and TEST/ in capitals", split_folders("Train", "TEST")),
    Layout("train/ alone (a share is set aside for testing, said)", split_folders("train")),
    Layout("folders in class folders: the first level is the class, said", nested),
    Layout("class folders in folders of sources", sources_first, "refused: which of the two are the classes"),
    Layout("class folders with accents in two encodings", split_folders("train", "test", dog="me\u0301lanome")),
    Layout("class folders with capitals and blanks", split_folders("train", "test", cat="Cat ", dog="DOG")),
    Layout("class folders named NA and None", split_folders("train", "test", cat="NA", dog="None")),
    Layout("class folders named 0 and 1", split_folders("train", "test", cat="0", dog="1")),
    Layout("metadata.csv, labels as words", with_metadata((CAT, DOG))),
    Layout("metadata.csv, labels as numbers", with_metadata((0, 1))),
    Layout("metadata.csv, labels as text that looks like numbers (01, 02)", with_metadata(("01", "02"))),
    Layout("metadata.csv, labels NA and None", with_metadata(("NA", "None"))),
    Layout("metadata.csv, labels true and false", with_metadata(("true", "false"))),
    Layout(
        "metadata.csv with an attribute in words", with_metadata((CAT, DOG), extra=lambda i: {"spurious": "ab"[i % 2]})
    ),
    Layout(
        "metadata.csv with a column group that is none",
        with_metadata((CAT, DOG), extra=lambda i: {"group": f"g{i}"}, group_column="none"),
    ),
    Layout("a label missing in a table", label_missing, "refused: has no label"),
    Layout("metadata.csv beside class folders, split by patient", root_table),
    Layout("one CSV file with split column and absolute paths", one_csv()),
    Layout("one CSV file with relative paths, no splits", one_csv(absolute=False, split=False)),
    Layout("train.parquet and test.parquet", parquet),
    Layout("what Dataset.save_to_disk wrote", lambda f: saved(f, as_dict=False)),
    Layout("what DatasetDict.save_to_disk wrote", lambda f: saved(f, as_dict=True)),
    Layout("a Dataset in memory", lambda f: {"name_or_path": in_memory()}),
    Layout("a DatasetDict in memory", lambda f: {"name_or_path": DatasetDict(train=in_memory(), test=in_memory(4))}),
    Layout("a Dataset in memory with labels as words", words_as_labels),
    Layout("class names given in another order, capitals and blanks", swapped_option),
    Layout("a model with the same classes in another order: the data take its order", models_order),
    Layout("class names given that the data do not have", other_names, "refused: "),
    Layout("one class", one_class, "refused: of one class"),
    Layout("a class in test/ that train/ does not have", unknown_in_test, "refused: which is not one of the classes"),
    Layout("the same file in two classes, with strict", same_file_twice, "refused: are in two classes"),
    Layout("an empty class folder", empty_folder, "refused: "),
    Layout(
        "a folder that is not there", lambda f: {"name_or_path": f / "nowhere"}, "refused: There is no data folder"
    ),
]
