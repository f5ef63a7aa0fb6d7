"""Small image folders to load, and a private cache to load them through."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory):
    """Keep the tests' data sets out of the user's cache."""
    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets_cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


TRAIN = [1] * 18 + [2] * 18 + [0, 0, 3, 3]  # groups: 2 * label + spurious


@pytest.fixture
def rows_of() -> Callable[..., list[dict]]:
    """A maker of metadata rows, one for each group id, with some of the columns label, spurious, group, minority."""

    def make(prefix: str, groups: list[int] = TRAIN, columns: str = "label spurious group") -> list[dict]:
        rows = []
        for i, group in enumerate(groups):
            values = {"label": group // 2, "spurious": group % 2, "group": group, "minority": int(group in (0, 3))}
            rows.append(
                {"file_name": f"{prefix}{i:03d}.png", **{column: values[column] for column in columns.split()}}
            )
        return rows

    return make


@pytest.fixture
def image_folder(tmp_path, rows_of) -> Callable[..., Path]:
    """A maker of data folders: `image_folder(train=rows, validation=None)`; None leaves the split out."""

    def make(**splits: list[dict] | None) -> Path:
        folder = tmp_path / "birds [set]"  # brackets must not be taken for a pattern
        shutil.rmtree(folder, ignore_errors=True)
        splits = {
            "train": rows_of("tr", columns="label spurious group minority"),
            "validation": rows_of("va", [0, 1, 2, 3] * 2),
            "test": rows_of("te", [0, 1, 2, 3] * 3),
            **splits,
        }
        for split, rows in splits.items():
            if rows is not None:
                write_split(folder / split, rows)
        return folder

    return make


def write_split(folder: Path, rows: list[dict]) -> None:
    """A distinct PNG of 8 x 6 pixels for each row, and a metadata.csv."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(folder.name))
    for row in rows:
        Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(folder / row["file_name"])
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
