"""What the pages call `path/to/data`, `path/to/checkpoint`, `runs/mine` and so on, tiny, and a reader's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from documents import QUICK
from PIL import Image
from raw_folders import write_cub

from hf_score import load_model
from hf_score.cli import main

SIZE = 32


def write_squares(folder: Path, *, label_attribute: bool) -> None:
    """An imagefolder whose class 1 carries a bright square; the attribute is labelled in the test split or nowhere."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 16)):
        (folder / split).mkdir(parents=True)
        labelled = label_attribute and split == "test"
        lines = ["file_name,label,spurious" if labelled else "file_name,label"]
        for i in range(count):
            label = i % 2
            square = label if split == "train" else i // 2 % 2
            image = generator.integers(0, 120, size=(SIZE, SIZE, 3), dtype=np.uint8)
            if square:
                image[:8, :8] = 255
            Image.fromarray(image).save(folder / split / f"{i}.png")
            lines.append(f"{i}.png,{label},{square}" if labelled else f"{i}.png,{label}")
        (folder / split / "metadata.csv").write_text("\n".join(lines) + "\n")


def write_masks(folder: Path, data: Path) -> None:
    """White where the square is, for the images that have one."""
    for path in data.glob("*/*.png"):
        if np.asarray(Image.open(path))[:8, :8].min() == 255:
            mask = np.zeros((SIZE, SIZE), dtype=np.uint8)
            mask[:8, :8] = 255
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(folder / path.parent.name / path.name)


@pytest.fixture(autouse=True)
def programs_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """As this process; a second thread waits for a core that it does not need."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    to = folder / "path" / "to"
    write_squares(to / "data", label_attribute=False)
    write_squares(to / "lesions", label_attribute=True)
    write_masks(to / "masks", to / "data")
    write_cub(to / "raw" / "files", {"001.Black_footed_Albatross": (4, 4), "014.Indigo_Bunting": (4, 4)})
    torch.manual_seed(0)
    model, processor, _ = load_model("test_resnet", class_names=["0", "1"], image_size=SIZE, from_scratch=True)
    for part in (model, processor):
        part.save_pretrained(to / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        where = ["--model", "path/to/checkpoint", "--dataset", "path/to/data", "--masks", "path/to/masks"]
        assert main(["run", *where, *QUICK, "--output_dir", "runs/mine"]) == 0
    shutil.copy(folder / "runs" / "mine" / "selection.json", folder / "mine.json")
    return folder


@pytest.fixture
def reader(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's working folder, this process in it."""
    folder = tmp_path / "reader"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    yield folder
