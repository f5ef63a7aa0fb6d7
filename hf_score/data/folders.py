"""Folders and tables of images as people have them, to the rows of each split.

Read here and not by `datasets`' own image folders: those guess the type of a column in every split anew (`NA` becomes
a missing label, `01` becomes 1), take the innermost folder for the class, and drop without a word what they cannot
use.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet
from datasets import Dataset, DatasetDict, Features, Image, Value, load_dataset, load_from_disk

from ..errors import DataError, first_line
from .classes import clean_name
from .decode import list_images

__all__ = ["SPLIT_NAMES", "TABLE_ENDINGS", "Found", "read_folder", "read_table", "split_of"]

#: What people call the splits, in lower case.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
#: Tables that can be given in place of a folder.
TABLE_ENDINGS = (".csv", ".tsv", ".jsonl")

_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE_COLUMNS = ("file_name", "file", "filename", "file_path", "filepath", "path", "image", "image_path", "img_path")
_WHOLE, _DECIMAL = re.compile(r"-?(0|[1-9]\d{0,17})"), re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")

Rows = list[dict[str, Any]]


@dataclass
class Found:
    """Rows of each split, and what there is to say about them.

    Attributes:
        splits: `datasets`, under the names `train`, `validation` and `test` where they have such names.
        folders: the folders that each split's file names are relative to, where there are files.
        skipped: files of each split that are no images, or that its table does not list.
        notes: what a user should know about how the folder was read.
    """

    splits: dict[str, Any]
    folders: dict[str, Path] = field(default_factory=dict)
    skipped: dict[str, list[Path]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """The split that a folder, a column's value or a name on the Hub means."""
    plain = name.strip().casefold()
    return next((split for split, names in SPLIT_NAMES.items() if plain in names), None)


def read_folder(folder: Path) -> Found:
    """The splits of a folder, whatever its layout.

    Raises:
        DataError: it has none that is known, or something in it cannot be told.
    """
    folder = folder.resolve()
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _saved(folder)
    parquet = {file.stem: file for file in sorted(folder.glob("*.parquet")) if file.name not in _METADATA}
    if parquet:
        return Found({split: _parquet(file) for split, file in parquet.items()})
    folders: dict[str, Path] = {}
    for child in _folders_in(folder):
        split = split_of(child.name)
        if split in folders:
            raise DataError(
                f"'{folder}' has two folders of {split} images, '{folders[split].name}' and '{child.name}'."
            )
        if split is not None:
            folders[split] = child
    metadata = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    if folders and "train" not in folders:
        raise DataError(f"'{folder}' has no folder 'train/' with training images; add one.")
    if folders:
        inside = any(_metadata_in(path) for path in folders.values())
        if metadata is not None and not inside and "file_name" in _columns_of(metadata):
            return _by_table(folder, _rows_of(metadata), metadata.name, tuple(folders.values()))
        return _by_splits(folders)
    if metadata is not None:
        return _by_table(folder, _rows_of(metadata), metadata.name, (folder,))
    classes = [child for child in _folders_in(folder) if list_images(child)[0]]
    if len(classes) < 2:
        raise DataError(
            f"'{folder}' has no folder 'train/' with training images, nor one folder of images per class; add them."
        )
    rows, skipped = _class_rows(folder)
    return Found(_typed({"train": rows}), {"train": folder}, {"train": skipped}, [_of_classes(classes)])


def read_table(file: Path) -> Found:
    """The splits of one table: a column of files (absolute, or relative to the table), `label`, perhaps `split`.

    Raises:
        DataError: it cannot be read, or lacks the files.
    """
    return _by_table(file.resolve().parent, _rows_of(file), file.name, ())


# ---- Layouts ----


def _saved(folder: Path) -> Found:
    try:
        saved = load_from_disk(str(folder))
    except Exception as error:  # errors of datasets and of pyarrow
        raise DataError(
            f"Cannot read '{folder}', written by save_to_disk: {first_line(error)}; save it again."
        ) from error
    return Found(dict(saved) if isinstance(saved, DatasetDict) else {"train": saved})


def _parquet(file: Path) -> Dataset:
    try:
        return load_dataset("parquet", data_files={"train": str(file)}, split="train")
    except Exception as error:  # builders raise their own and pyarrow's errors
        raise DataError(f"Cannot read '{file}': {first_line(error.__cause__ or error)}; repair it.") from error


def _by_splits(folders: Mapping[str, Path]) -> Found:
    """A folder for each split, each with a table or with a folder for each class."""
    with_metadata = any(_metadata_in(path) for path in folders.values())
    found, tables = Found({}, dict(folders)), {}
    for split, path in folders.items():
        metadata = _metadata_in(path)
        if with_metadata and not metadata:
            raise DataError(f"'{path}' has no metadata.csv, unlike another split; add one.")
        if not with_metadata:
            classes = _folders_in(path)
            if not classes:
                raise DataError(
                    f"'{path}' has neither a metadata.csv nor one sub-folder per class; add a metadata.csv with the "
                    "columns file_name and label."
                )
            tables[split], found.skipped[split] = _class_rows(path)
            continue
        rows: Rows = []
        for file in metadata:
            rows += _with_images(_rows_of(file), file.parent, path, required="file_name")
        tables[split], found.skipped[split] = rows, _unlisted(path, rows)
    _label_by_folder(tables, folders)
    found.splits = _typed(tables)
    return found


def _by_table(base: Path, rows: Rows, name: str, searched: Iterable[Path]) -> Found:
    """One table for all splits: by its column `split`, or by the first folder of the file names."""
    rows = _with_images(rows, base, base / name)
    tables: dict[str, Rows] = {}
    for number, row in enumerate(rows):
        inside = Path(row["image"]).relative_to(base).parts if Path(row["image"]).is_relative_to(base) else ()
        given = row.pop("split") if "split" in row else None
        split = split_of(str(given)) if given is not None else split_of(inside[0]) if len(inside) > 1 else None
        if split is None and given is not None:
            raise DataError(
                f"Row {number} of '{base / name}' has the split '{given}', which is none of train, validation and "
                "test; correct it."
            )
        tables.setdefault(split or "", []).append(row)
    if "" in tables and len(tables) > 1:
        raise DataError(f"'{base / name}' says of {len(tables[''])} images not in which split they are; fill it in.")
    if "" in tables:
        tables = {"train": tables.pop("")}
    homes = {split: next((path for path in searched if split_of(path.name) == split), base) for split in tables}
    skipped: dict[str, list[Path]] = {split: [] for split in tables}
    for path in searched:
        split = split_of(path.name) or "train"
        rows_of_all = [row for part in tables.values() for row in part]
        skipped[split] = skipped.get(split, []) + _unlisted(path, rows_of_all)
    _label_by_folder(tables, homes)
    return Found(_typed(tables), homes, skipped)


def _class_rows(folder: Path) -> tuple[Rows, list[Path]]:
    """One row for each image below a folder of classes, and the files that are no such images."""
    classes = _folders_in(folder)
    below = {child.name: frozenset(inner.name for inner in _folders_in(child)) for child in classes}
    kinds = set(below.values())
    repeated = next(iter(kinds)) if len(kinds) == 1 and len(below) > 1 else frozenset()
    if len(repeated) > 1:
        raise DataError(
            f"In '{folder}' the folders {', '.join(sorted(below)[:3])} all have the same folders "
            f"{', '.join(sorted(repeated)[:3])}: which of the two are the classes cannot be told; give a metadata.csv."
        )
    images, others = list_images(folder)
    inside = [path for path in images if path.parent != folder]
    if not inside:
        raise DataError(f"'{folder}' holds no images; add some.")
    rows = [{"image": _File(path), "label": clean_name(path.relative_to(folder).parts[0])} for path in inside]
    return rows, sorted([*others, *(path for path in images if path.parent == folder)])


def _of_classes(classes: list[Path]) -> str:
    nested = any(_folders_in(path) for path in classes)
    inner = ", and the folders in them as parts of it" if nested else ""
    return f"each of the {len(classes)} folders is taken as a class{inner}"


def _label_by_folder(tables: Mapping[str, Rows], homes: Mapping[str, Path]) -> None:
    """Where no table has labels and the images lie in folders of classes: the first folder is the label."""
    if any("label" in row for rows in tables.values() for row in rows):
        return
    labels = {}
    for split, rows in tables.items():
        inside = [Path(row["image"]) for row in rows]
        if not all(path.is_relative_to(homes[split]) for path in inside):
            return
        labels[split] = [path.relative_to(homes[split]).parts for path in inside]
    folders = {parts[0] for of_split in labels.values() for parts in of_split if len(parts) > 1}
    if len(folders) < 2 or any(len(parts) < 2 for of_split in labels.values() for parts in of_split):
        return
    for split, rows in tables.items():
        for row, parts in zip(rows, labels[split], strict=True):
            row["label"] = clean_name(parts[0])


# ---- Files and tables ----


def _folders_in(folder: Path) -> list[Path]:
    children = (child for child in folder.iterdir() if child.is_dir())
    return sorted(child for child in children if not child.name.startswith((".", "__")))


def _files_in(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, in the order of their paths."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _metadata_in(folder: Path) -> list[Path]:
    return [path for path in _files_in(folder) if path.name in _METADATA]


def _unlisted(folder: Path, rows: Rows) -> list[Path]:
    """The files below a folder that no row names, the tables themselves apart."""
    named = {str(Path(value)) for row in rows for value in row.values() if isinstance(value, _File)}
    return [path for path in _files_in(folder) if path.name not in _METADATA and str(path) not in named]


def _with_images(rows: Rows, base: Path, where: Path, required: str | None = None) -> Rows:
    """The rows with the column `image` and one for each `..._file_name`, as paths that need not exist."""
    columns = list(rows[0]) if rows else []
    known = next((name for name in ([required] if required else _FILE_COLUMNS) if name in columns), None)
    if known is None:
        raise DataError(f"Cannot read '{where}': its table has no column 'file_name' (it has {columns}); add it.")
    images = {known: "image"} | {c: c.removesuffix("_file_name") for c in columns if c.endswith("_file_name")}
    made = []
    for number, row in enumerate(rows):
        if not row[known]:
            raise DataError(f"Row {number} of the table of '{where}' names no file; fill it in, or remove the row.")
        paths = {new: _File(base / row[old]) if row[old] else None for old, new in images.items()}
        made.append(paths | {name: value for name, value in row.items() if name not in images})
    return made


def _columns_of(file: Path) -> list[str]:
    rows = _rows_of(file)
    return list(rows[0]) if rows else []


def _rows_of(file: Path) -> Rows:
    """The rows of a table; of a CSV file all values are text, or None where they are empty."""
    try:
        if file.suffix.lower() == ".parquet":
            return pyarrow.parquet.read_table(file).to_pylist()
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return list(_csv_rows(text, file))
    except DataError:
        raise
    except Exception as error:  # not UTF-8, not JSON, or pyarrow's own errors
        raise DataError(f"Cannot read the table '{file}' ({first_line(error)}); repair it.") from error


class _Text(str):
    """A value of a CSV file, of which it is not known what it is."""


class _File(str):
    """A path of a file."""


def _csv_rows(text: str, file: Path) -> Iterator[dict[str, Any]]:
    first = text.split("\n", 1)[0]
    delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    header = [name.strip() for name in next(reader, [])]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"'{file}' has two columns '{repeated[0]}'; rename one.")
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(
                f"Line {reader.line_num} of '{file}' has {len(row)} values, and the header {len(header)} columns; "
                "correct it."
            )
        yield {name: _Text(value) if value.strip() else None for name, value in zip(header, row, strict=True)}


def _typed(tables: Mapping[str, Rows]) -> dict[str, Dataset]:
    """The splits as `datasets`, where each column has one type in all of them."""
    values: dict[str, list[Any]] = {}
    for row in (row for rows in tables.values() for row in rows):
        for name, value in row.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    kinds = {name: _kind(present) for name, present in values.items()}
    splits = {}
    for split, rows in tables.items():
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns: dict[str, Any] = {}
        features: dict[str, Any] = {}
        for name in names:
            feature, read = kinds.get(name, _KINDS["string"])
            columns[name] = [None if (value := row.get(name)) is None else read(value) for row in rows]
            if feature is not None:
                features[name] = feature
        # what a JSON or parquet table holds has its types already
        free = Dataset.from_dict({name: columns[name] for name in names if name not in features}).features
        splits[split] = Dataset.from_dict(columns, features=Features({n: features.get(n, free.get(n)) for n in names}))
    return splits


_KINDS: dict[str, tuple[Any, Any]] = {
    "image": (Image(decode=False), str),
    "whole": (Value("int64"), int),
    "decimal": (Value("float64"), float),
    "string": (Value("string"), str),
    "own": (None, lambda value: value),
}


def _kind(present: list[Any]) -> tuple[Any, Any]:
    """The type of a column and how to read it: files, numbers that are written as numbers are, words, or as it is."""
    if any(isinstance(value, _File) for value in present):
        return _KINDS["image"]
    if not all(isinstance(value, _Text) for value in present):
        return _KINDS["own"]
    if all(_WHOLE.fullmatch(value) for value in present):
        return _KINDS["whole"]
    if all(_DECIMAL.fullmatch(value) for value in present):
        return _KINDS["decimal"]
    return _KINDS["string"]
