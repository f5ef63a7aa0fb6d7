"""From a name or a folder to the rows of each split, as they are: the registry, builders, folders and the Hub.

Reading itself is left to `datasets`; it can stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import load_dataset

from ..errors import DataError
from ..hub_errors import HUB_ID, hub_problem
from .folders import SPLIT_NAMES, TABLE_ENDINGS, Found, read_folder, read_table, split_of
from .registry.opening import RECORD, open_builder, read_record
from .registry.specs import Benchmark, Counts, find_dataset, list_datasets

__all__ = ["Source", "named_splits", "read_source"]


@dataclass(frozen=True)
class Source:
    """What was found under a name.

    Attributes:
        splits: rows under the names `train`, `validation` and `test`; `IterableDataset`s where it was asked to stream.
            Without streaming there may be no test split.
        where: a Hub page, or in words.
        folders: the folders of each split's images, where they are files.
        benchmark: the registered set it is, or None.
        counts: images per split and group that it has to have.
        skipped: files of each split that are no images, or that its table does not list.
        notes: what a user should know about how it was read.
    """

    splits: dict[str, Any]
    where: str
    folders: dict[str, Path] = field(default_factory=dict)
    benchmark: Benchmark | None = None
    counts: Counts = field(default_factory=dict)
    skipped: dict[str, list[Path]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_source(
    name: str,
    *,
    data_dir: str | None = None,
    revision: str | None = None,
    config_name: str | None = None,
    streaming: bool = False,
    official: bool = True,
) -> Source:
    """Read the splits of a benchmark, a folder, a table or a data set on the Hub.

    Args:
        name: see `load_data`.
        data_dir: see `load_data`.
        revision: revision of a Hub data set.
        config_name: configuration of a Hub data set.
        streaming: open the rows as streams.
        official: a raw folder has to have a benchmark's official counts.

    Raises:
        DataError: there is nothing to read, or it has no training split; with streaming, or no test split.
    """
    if data_dir is None and (Path(name) / RECORD).is_file():
        name, data_dir = read_record(Path(name))["benchmark"], name
    benchmark = find_dataset(name)
    if data_dir is None and benchmark is not None:
        data_dir = benchmark.source
    if data_dir is not None:
        source = _read_data_dir(name, benchmark, Path(data_dir), streaming, official)
    elif benchmark is not None and benchmark.path is None:
        raise DataError(
            f"'{name}' is made from files of yours: give their folder as data_dir (`hf-score benchmarks {name}` says "
            "what has to be in it)."
        )
    else:
        path = name if benchmark is None or benchmark.path is None else benchmark.path
        source = _read_path(path, benchmark, revision, config_name, streaming)
    source = replace(named_splits(source, name), benchmark=benchmark)
    if streaming and "test" not in source.splits:
        raise DataError(f"'{name}' has no test split (it has {sorted(source.splits)}); add a folder 'test/'.")
    return source


def named_splits(source: Source, name: str) -> Source:
    """The source with its splits under the names `train`, `validation` and `test`, none of them empty.

    Without a test split, the validation split is the test split.

    Raises:
        DataError: no split is for training, two have the same meaning, or one is empty.
    """
    splits: dict[str, Any] = {}
    for given, rows in source.splits.items():
        split = split_of(str(given))
        if split in splits:
            raise DataError(f"'{name}' has two {split} splits ({sorted(map(str, source.splits))}); give one.")
        if split is not None:
            splits[split] = rows
    folders, skipped = dict(source.folders), dict(source.skipped)
    if "test" not in splits and "validation" in splits:
        every: list[Any] = [splits, folders, skipped]
        for by_split in every:
            if "validation" in by_split:
                by_split["test"] = by_split.pop("validation")
    if "train" not in splits:
        raise DataError(
            f"'{name}' has no train split (it has {sorted(map(str, source.splits))}); add a folder 'train/'."
        )
    left_out = [str(given) for given in source.splits if split_of(str(given)) is None]
    notes = list(source.notes)
    if left_out:
        known = ", ".join(other for names in SPLIT_NAMES.values() for other in names)
        notes.append(f"the splits {left_out} of '{name}' are not used; names that are: {known}")
    splits = {split: splits[split] for split in SPLIT_NAMES if split in splits}
    for split, rows in splits.items():
        if hasattr(rows, "__len__") and len(rows) == 0:
            raise DataError(f"Split '{split}' of '{name}' is empty; add images to it, or remove it.")
    return replace(source, splits=splits, folders=folders, skipped=skipped, notes=notes)


def _read_data_dir(name: str, benchmark: Benchmark | None, data_dir: Path, streaming: bool, official: bool) -> Source:
    if benchmark is None:
        raise DataError(f"data_dir goes with the name of a benchmark, not with '{name}'; give the folder alone.")
    if (data_dir / RECORD).is_file():
        record = read_record(data_dir)
        if record["benchmark"] != benchmark.name:
            raise DataError(f"'{data_dir}' was built as '{record['benchmark']}', not as '{name}'; load it as that.")
        return _local(read_folder(data_dir), streaming, counts=record["counts"])
    builder = open_builder(benchmark, data_dir, official=official)
    if streaming:
        return Source(builder.as_streaming_dataset(), "local folder")
    builder.download_and_prepare()
    return Source(dict(builder.as_dataset()), "local folder", counts=benchmark.counts if official else {})


def _read_path(
    path: str, benchmark: Benchmark | None, revision: str | None, config_name: str | None, streaming: bool
) -> Source:
    counts = benchmark.counts if benchmark else {}
    if Path(path).is_dir():
        where = "included in hf-score" if benchmark else "local folder"
        return _local(read_folder(Path(path)), streaming, where=where, counts=counts)
    if Path(path).is_file() and Path(path).suffix.lower() in TABLE_ENDINGS:
        return _local(read_table(Path(path)), streaming, where="local table")
    repository, _, named = path.partition(":")
    if Path(path).exists() or not HUB_ID.fullmatch(repository):
        known = ", ".join(b.name for b in list_datasets())
        raise DataError(
            f"There is no data folder '{path}'; give an existing folder or table ({', '.join(TABLE_ENDINGS)}), a Hub "
            f"id such as 'user/name' or 'user/name:configuration', or one of: {known}."
        )
    try:
        splits = dict(load_dataset(repository, named or config_name, revision=revision, streaming=streaming))
    except Exception as error:  # load_dataset lets errors of a dozen libraries through
        raise DataError(
            f"Cannot load the data set '{path}', which is no local folder: {hub_problem(error)}."
        ) from error
    if benchmark is not None:
        splits = {split: _renamed(rows, benchmark) for split, rows in splits.items()}
    return Source(splits, f"https://huggingface.co/datasets/{repository}", counts=counts)


def _local(found: Found, streaming: bool, *, where: str = "local folder", counts: Counts | None = None) -> Source:
    splits = {split: rows.to_iterable_dataset() if streaming else rows for split, rows in found.splits.items()}
    return Source(splits, where, found.folders, counts=counts or {}, skipped=found.skipped, notes=found.notes)


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
