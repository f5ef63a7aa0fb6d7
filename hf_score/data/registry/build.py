"""From a raw public folder to an image folder that anything can read: `hf-score build`.

The folder has `train/`, `validation/` and `test/`, each with a `metadata.csv` (file_name, label, spurious and more,
the mask as `..._file_name`), and `build.json`, which says how it was made.
"""

from __future__ import annotations

import csv
import inspect
import os
import shutil
from dataclasses import field, fields, make_dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_type_hints

from datasets import BuilderConfig
from tqdm.auto import tqdm

from ... import __version__
from ...errors import DataError
from ...files import atomic_folder, write_json
from .builders import FolderBuilder, Waterbirds
from .opening import RECORD, counts_of, open_builder
from .specs import Benchmark, find_dataset, list_datasets

__all__ = ["build", "describe", "recipe_of", "registered"]

SCHEMA = "hf-score/build/1"


def build(
    name: str,
    source: str | os.PathLike[str] | None,
    output_dir: str | os.PathLike[str],
    *,
    check_counts: bool = True,
    **options: Any,
) -> Path:
    """Write a benchmark as an image folder, whole or not at all.

    Args:
        name: a registered benchmark.
        source: its raw public folder; None where that is inside the package (`Benchmark.source`).
        output_dir: the new folder; must not be there yet.
        check_counts: it has to have the official counts, unless an option other than the seed is given.
        options: fields of the recipe (`recipe_of`).

    Returns:
        The folder: `load_data(folder)` and `load_data(name, data_dir=folder)` read it.

    Raises:
        DataError: the raw folder lacks something, or there is something at `output_dir`.
    """
    benchmark, folder = registered(name), Path(output_dir)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"There is something at '{folder}' already; remove it, or choose another output_dir.")
    defaults = {item.name: item.default for item in fields(recipe_of(benchmark))}
    strange = sorted(set(options) - set(defaults))
    if strange:
        raise DataError(f"'{name}' has no option '{strange[0]}'; it has {sorted(defaults)}.")
    options = {option: value for option, value in options.items() if value != defaults[option]}
    official = check_counts and set(options) <= {"seed"}
    source = benchmark.source if source is None else source
    if source is None:
        raise DataError(f"'{name}' is made from files of yours: give their folder as source.")
    builder = open_builder(benchmark, Path(source), official=official, **options)
    plan, count = builder.plan(), len(benchmark.spurious_names)
    plan["train"] = [
        row for row in plan["train"] if count * row["label"] + row["spurious"] not in benchmark.drop_groups
    ]
    counts = counts_of(plan, num_attributes=count, num_classes=len(builder.classes()))
    with atomic_folder(folder) as temporary:
        for split, rows in plan.items():
            _write_split(builder, split, rows, temporary)
        if isinstance(builder, Waterbirds):
            _write_published(plan, temporary)
        record = {
            "schema": SCHEMA,
            "benchmark": name,
            "recipe": defaults | options,
            "counts": counts,
            "licence": benchmark.licence,
            "citation": benchmark.citation,
            "hf_score": __version__,
        }
        write_json(temporary / RECORD, record)
    return folder


def registered(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        DataError: there is none.
    """
    benchmark = find_dataset(name)
    if benchmark is None:
        raise DataError(f"There is no benchmark '{name}': use one of {', '.join(b.name for b in list_datasets())}.")
    return benchmark


def describe(benchmark: Benchmark) -> str:
    """All about a benchmark, for a person at a terminal."""
    lines = [benchmark.name, f"    {benchmark.description}", f"licence: {benchmark.licence}"]
    if benchmark.path is not None:
        lines.append("source: included in hf-score" if Path(benchmark.path).is_dir() else f"Hub: {benchmark.path}")
    if benchmark.source is not None:
        lines.append("source: included in hf-score")
    if benchmark.class_names:
        lines.append(f"groups: {'; '.join(benchmark.group_names)}")
    else:
        lines.append(f"classes: the folder's own; attribute: {', '.join(benchmark.spurious_names)}")
    for split, counts in benchmark.counts.items():
        lines.append(f"    {split}: {' / '.join('any' if count is None else str(count) for count in counts)}")
    if benchmark.drop_groups:
        names = " and ".join(f"'{benchmark.group_names[group]}'" for group in benchmark.drop_groups)
        lines.append(f"    then left out of train: {names}")
    if benchmark.builder is not None:
        lines.append(f"raw folder: {inspect.getdoc(benchmark.builder)}")
    return "\n".join([*lines, "citation:", benchmark.citation])


def recipe_of(benchmark: Benchmark) -> type:
    """The options of a benchmark's builder as a dataclass, with the benchmark's own defaults."""
    if benchmark.builder is None:
        return make_dataclass("Recipe", [])
    config = benchmark.builder.BUILDER_CONFIG_CLASS
    common, hints = {item.name for item in fields(BuilderConfig)}, get_type_hints(config)
    return make_dataclass(
        "Recipe",
        [
            (
                item.name,
                hints[item.name],
                field(default=benchmark.options.get(item.name, item.default), metadata=item.metadata),
            )
            for item in fields(config)
            if item.name not in common
        ],
    )


def _write_split(builder: FolderBuilder, split: str, rows: list[dict[str, Any]], folder: Path) -> None:
    mask_column = builder.mask_column
    names = ["file_name", *([f"{mask_column}_file_name"] if mask_column else []), "label", "spurious"]
    (folder / split).mkdir()
    with open(folder / split / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*names, *builder.columns], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in tqdm(rows, desc=f"Building {split}", unit="image"):
            made, line = builder.example(row), {**row, "file_name": _image_name(row)}
            if not builder.class_names:  # names that only the folder knows
                line["label"] = builder.classes()[row["label"]]
            _put(made["image"], folder / split / line["file_name"])
            mask = made[mask_column] if mask_column else None
            if mask is not None:
                line[f"{mask_column}_file_name"] = str(PurePosixPath("masks", row["name"]).with_suffix(".png"))
                _put(mask, folder / split / line[f"{mask_column}_file_name"])
            writer.writerow(line)


def _write_published(plan: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Waterbirds' own metadata.csv on top, so that code for the published tarball reads the folder too."""
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["img_id", "img_filename", "y", "split", "place", "place_filename"])
        for number, (split, rows) in enumerate(plan.items()):
            for row in rows:
                name = f"{split}/{_image_name(row)}"
                writer.writerow([row["img_id"], name, row["label"], number, row["spurious"], row["place_filename"]])


def _image_name(row: dict[str, Any]) -> str:
    name = PurePosixPath("images", row["name"])
    if ".." in name.parts or name.parts[0] != "images":
        raise DataError(f"The file name '{row['name']}' leads out of its folder; correct it.")
    return str(name)


def _put(image: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if image["bytes"] is not None:
        path.write_bytes(image["bytes"])
        return
    try:
        shutil.copyfile(image["path"], path)
    except OSError as error:
        raise DataError(f"Cannot read '{image['path']}' ({type(error).__name__}); restore it.") from error
