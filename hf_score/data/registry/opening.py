"""Opening what a benchmark is read from: a raw public folder through its builder, or a folder that was built of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, TypedDict

from ...errors import DataError
from ...files import Index, read_json
from .specs import Benchmark, compare_counts, find_dataset

__all__ = ["RECORD", "counts_of", "open_builder", "read_record"]

#: File in a built folder that says what it is.
RECORD = "build.json"


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
        found = counts_of(
            builder.plan(), num_attributes=len(benchmark.spurious_names), num_classes=len(builder.classes())
        )
        compare_counts(benchmark.name, found, benchmark.counts, benchmark.group_names)
    return builder


def counts_of(
    plan: dict[str, list[dict[str, Any]]], *, num_attributes: int = 2, num_classes: int = 2
) -> dict[str, list[int]]:
    """Images per split and group num_attributes * label + attribute."""
    found = {
        split: Counter(num_attributes * row["label"] + row["spurious"] for row in rows) for split, rows in plan.items()
    }
    groups = range(num_attributes * num_classes)
    return {split: [counter[group] for group in groups] for split, counter in found.items()}


def read_record(folder: Path) -> dict[str, Any]:
    """What a built folder says that it is: `benchmark` and `counts`.

    Raises:
        DataError: it has no such record.
    """
    path = folder / RECORD
    record = read_json(path, _Record, what="record of a build", advice="build the folder again", error=DataError)
    if find_dataset(record["benchmark"]) is None:
        raise DataError(
            f"'{path}' is no record of a build (there is no benchmark {record['benchmark']!r}): build it again."
        )
    return {"benchmark": record["benchmark"], "counts": record["counts"]}


class _Record(TypedDict):
    benchmark: str
    counts: dict[str, list[Index]]
