"""From a name or a folder to the rows of each split, as they are: the registry, builders, folders and the Hub.

Reading itself is left to `datasets`; it can stream.
"""

from __future__ import annotations

import glob
import json
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image, load_dataset

from ..errors import DataError, first_line
from ..hub_errors import HUB_ID, hub_problem
from .decode import list_images
from .registry.specs import Benchmark, Counts, compare_counts, find_dataset, list_datasets

logger = logging.getLogger(__name__)

__all__ = ["RECORD", "Source", "counts_of", "open_builder", "read_source"]

#: File in a built folder that says what it is.
RECORD = "build.json"

_SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True)
class Source:
    """What was found under a name.

    Attributes:
        splits: rows under the names `train`, `validation` and `test`; `IterableDataset`s where it was asked to stream.
        where: a Hub page, or in words.
        folders: the folders of each split's images, where they are files.
        benchmark: the registered set it is, or None.
        counts: images per split and group that it has to have.
    """

    splits: dict[str, Any]
    where: str
    folders: dict[str, Path] = field(default_factory=dict)
    benchmark: Benchmark | None = None
    counts: Counts = field(default_factory=dict)


def read_source(
    name: str,
    *,
    data_dir: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    official: bool = True,
) -> Source:
    """Read the splits of a benchmark, a folder or a data set on the Hub.

    Args:
        name: see `load_data`.
        data_dir: see `load_data`.
        revision: revision of a Hub data set.
        streaming: open the rows as streams.
        official: a raw folder has to have a benchmark's official counts.

    Raises:
        DataError: there is nothing to read, or it has no training or no test split.
    """
    if data_dir is None and (Path(name) / RECORD).is_file():
        name, data_dir = _record(Path(name))["benchmark"], name
    benchmark = find_dataset(name)
    if data_dir is not None:
        source = _read_data_dir(name, benchmark, Path(data_dir), streaming, official)
    elif benchmark is not None and benchmark.path is None:
        raise DataError(
            f"'{name}' is made from files of yours: give their folder as data_dir (`hf-score benchmarks {name}` says "
            "what has to be in it)."
        )
    else:
        path = name if benchmark is None or benchmark.path is None else benchmark.path
        source = _read_path(path, benchmark, revision, streaming)
    splits = {
        split: next(source.splits[alias] for alias in aliases if alias in source.splits)
        for split, aliases in _SPLIT_NAMES.items()
        if any(alias in source.splits for alias in aliases)
    }
    folders = dict(source.folders)
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
        if folders:
            folders["test"] = folders.pop("validation")
    for split in ("train", "test"):
        if split not in splits:
            raise DataError(
                f"'{name}' has no {split} split (it has {sorted(source.splits)}); add a folder '{split}/'."
            )
    for split, rows in splits.items():
        if not streaming and len(rows) == 0:
            raise DataError(f"Split '{split}' of '{name}' is empty; add images to it, or remove it.")
    return Source(splits, source.where, folders, benchmark, source.counts)


def open_builder(benchmark: Benchmark, data_dir: Path, *, official: bool, **options: Any) -> Any:
    """The builder of a benchmark on a raw folder; with `official`, its groups have been counted.

    Raises:
        DataError: the folder is not of the builder's layout, or has other counts.
    """
    if benchmark.builder is None:
        raise DataError(
            f"'{benchmark.name}' is included in hf-score: there is nothing to build, and no data_dir to give."
        )
    builder = benchmark.builder(data_dir, **{**benchmark.options, **options})
    if official:  # before any image is made
        compare_counts(benchmark.name, counts_of(builder.plan()), benchmark.counts, benchmark.group_names)
    return builder


def counts_of(plan: dict[str, list[dict[str, Any]]]) -> dict[str, list[int]]:
    """Images per split and group 2 * label + attribute."""
    found = {split: Counter(2 * row["label"] + row["spurious"] for row in rows) for split, rows in plan.items()}
    return {split: [counter[group] for group in range(4)] for split, counter in found.items()}


def _read_data_dir(name: str, benchmark: Benchmark | None, data_dir: Path, streaming: bool, official: bool) -> Source:
    if benchmark is None:
        raise DataError(f"data_dir goes with the name of a benchmark, not with '{name}'; give the folder alone.")
    if (data_dir / RECORD).is_file():
        record = _record(data_dir)
        if record["benchmark"] != benchmark.name:
            raise DataError(f"'{data_dir}' was built as '{record['benchmark']}', not as '{name}'; load it as that.")
        splits, folders = _read_folder(data_dir, streaming)
        return Source(splits, "local folder", folders, counts=record["counts"])
    builder = open_builder(benchmark, data_dir, official=official)
    if streaming:
        return Source(builder.as_streaming_dataset(), "local folder")
    builder.download_and_prepare()
    return Source(dict(builder.as_dataset()), "local folder", counts=benchmark.counts if official else {})


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if find_dataset(record["benchmark"]) is None:
            raise ValueError(f"there is no benchmark {record['benchmark']!r}")
        return {"benchmark": record["benchmark"], "counts": record["counts"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"'{folder / RECORD}' is no record of a build ({error}); build the folder again.") from error


def _read_path(path: str, benchmark: Benchmark | None, revision: str | None, streaming: bool) -> Source:
    counts = benchmark.counts if benchmark else {}
    if Path(path).is_dir():
        splits, folders = _read_folder(Path(path), streaming)
        return Source(splits, "included in hf-score" if benchmark else "local folder", folders, counts=counts)
    if Path(path).exists() or not HUB_ID.fullmatch(path):
        known = ", ".join(b.name for b in list_datasets())
        raise DataError(
            f"There is no data folder '{path}'; give an existing folder, a Hub id such as 'user/name', or one of: "
            f"{known}."
        )
    try:
        splits = dict(load_dataset(path, revision=revision, streaming=streaming))
    except Exception as error:  # load_dataset lets errors of a dozen libraries through
        raise DataError(
            f"Cannot load the data set '{path}', which is no local folder: {hub_problem(error)}."
        ) from error
    if benchmark is not None:
        splits = {split: _renamed(rows, benchmark) for split, rows in splits.items()}
    return Source(splits, f"https://huggingface.co/datasets/{path}", counts=counts)


def _renamed(rows: Any, benchmark: Benchmark) -> Any:
    """The rows of a benchmark on the Hub, with the columns `label` and `spurious`."""
    names = dict(zip(benchmark.hub_columns, ("label", "spurious"), strict=True))
    lacking = sorted(set(names) - set(rows.column_names))
    if lacking:
        raise DataError(
            f"'{benchmark.path}' has no column '{lacking[0]}' (its columns are {rows.column_names}); give the raw "
            "folder as data_dir."
        )
    return rows.rename_columns({old: new for old, new in names.items() if old != new})


def _read_folder(folder: Path, streaming: bool) -> tuple[dict[str, Any], dict[str, Path]]:
    """The splits of a folder of parquet files or of image folders, and in the second case the images' folders."""
    folder = folder.resolve()
    parquet = {file.stem: file for file in sorted(folder.glob("*.parquet"))}
    if parquet:
        return {split: _load_split("parquet", file, str(file), streaming) for split, file in parquet.items()}, {}
    folders = {
        split: next(folder / alias for alias in aliases if (folder / alias).is_dir())
        for split, aliases in _SPLIT_NAMES.items()
        if any((folder / alias).is_dir() for alias in aliases)
    }
    if "train" not in folders:
        raise DataError(f"'{folder}' has no folder 'train/' with training images; add one.")
    splits = {}
    with_metadata = any((path / name).is_file() for path in folders.values() for name in _METADATA)
    for split, path in folders.items():
        if with_metadata and not any((path / name).is_file() for name in _METADATA):
            raise DataError(f"'{path}' has no metadata.csv, unlike another split; add one.")
        if not with_metadata and not any(child.is_dir() for child in path.iterdir()):
            raise DataError(
                f"'{path}' has neither a metadata.csv nor one sub-folder per class; add a metadata.csv with the "
                "columns file_name and label."
            )
        if not with_metadata and not streaming:
            splits[split] = _class_folders(path)
            continue
        # One split at a time: together they would have to have the same columns, and training data has no groups.
        files = f"{glob.escape(str(path))}/**"
        splits[split] = _load_split(
            "imagefolder", path, files, streaming, drop_labels=None if with_metadata else False
        )
    return splits, folders


def _class_folders(path: Path) -> Dataset:
    """The images of a folder with one sub-folder per class, DICOM and HEIC too; other files are counted in a warning.

    Raises:
        DataError: there are none.
    """
    images, others = list_images(path)
    if others:
        logger.warning(f"{len(others)} files in '{path}' are no images and are skipped; the first: {others[0]}")
    if not images:
        raise DataError(f"'{path}' holds no images; add some.")
    names = sorted({image.parent.name for image in images})
    return Dataset.from_dict(
        {"image": [str(image) for image in images], "label": [names.index(image.parent.name) for image in images]},
        features=Features({"image": Image(), "label": ClassLabel(names=names)}),
    )


def _load_split(builder: str, path: Path, files: str, streaming: bool, **options: Any) -> Any:
    try:
        return load_dataset(builder, data_files={"train": files}, split="train", streaming=streaming, **options)
    except Exception as error:  # builders raise their own and pyarrow's errors
        raise DataError(f"Cannot read '{path}': {first_line(error.__cause__ or error)}; repair it.") from error
