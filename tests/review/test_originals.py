"""A real scan of a small folder: what the page tells of the files, and the originals that it zooms into."""

import io
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import tiny_processor, tiny_vit

from hf_score import HFScoreError
from hf_score.data import load_data
from hf_score.detection import Candidates, find_candidates
from hf_score.pipeline import RunFolder, data_of_run
from hf_score.report.templating import how_decided
from hf_score.review import CandidateTable, DecisionStore, export_page
from hf_score.review.describe import describe_table
from hf_score.review.originals import Originals
from hf_score.review.words import TERMS

CLASSES = ("plain", "square")


def colour_of(number: int) -> tuple[int, int, int]:
    return (20 * number + 10, 250 - 20 * number, 100)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory) -> Path:
    """A run folder, beside the data it was made from: 12 training images of 60 × 40, each of a colour of its own."""
    folder = tmp_path_factory.mktemp("scanned")
    for split, count in (("train", 12), ("test", 4)):
        for number in range(count):
            path = folder / "data" / split / CLASSES[number % 2] / f"{split}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = colour_of(number) if split == "train" else (number, 0, 0)
            Image.new("RGB", (60, 40), shade).save(path)
    model = tiny_vit()
    model.save_pretrained(folder / "model")
    tiny_processor().save_pretrained(folder / "model")
    data = load_data(folder / "data")
    found = find_candidates(model, data, processor=tiny_processor(), num_candidates=3)
    found.save(folder / "run" / "candidates")
    options = {"model": str(folder / "model"), "dataset": str(folder / "data")}
    (folder / "run" / "run.yaml").write_text(yaml.safe_dump(options))
    return folder / "run"


def test_file_and_size_are_those_of_the_image_and_survive_saving(scanned):
    candidates = Candidates.load(scanned / "candidates")
    train = load_data(scanned.parent / "data").train
    path_of = {row["idx"]: Path(row["image"]["path"]) for row in train.with_format(None).to_list()}
    assert [one.file for one in candidates.originals] == [path_of[int(idx)].name for idx in candidates.idx]
    assert {(one.width, one.height) for one in candidates.originals} == {(60, 40)}
    assert candidates.take([2, 0]).originals == (candidates.originals[2], candidates.originals[0])
    assert describe_table(CandidateTable.open(scanned))["originals"][0] == (candidates.originals[0].file, 60, 40)


def test_every_score_of_a_scan_is_put_into_words(scanned):
    table = CandidateTable.open(scanned)
    assert {name for cluster in table.clusters for name in cluster.evidence} <= set(TERMS)
    assert len({name for name, _ in TERMS.values()}) == len(TERMS)  # one name for each thing


def test_the_docs_have_the_words_of_the_page():
    page = Path(__file__).parents[2] / "docs" / "how-to" / "review-candidates.md"
    rows = page.read_text(encoding="utf-8").split("## What the words mean")[1].split("\n## ")[0]
    words = [line.split("|")[1].strip() for line in rows.splitlines() if line.startswith("| ")][1:]
    assert words == [name for name, _ in TERMS.values()]


def test_a_shortcut_s_name_stands_where_the_run_is_told(scanned, tmp_path):
    store = DecisionStore(scanned)
    store.decide([0, 1], "spurious", shortcut="red *square*")
    summary = RunFolder(scanned).selection_summary(["plain", "square"])
    label = ["plain", "square"][int(store.table.labels[0])]
    said = how_decided({"selection": summary})
    assert f"in the words of who judged: “red *square*” ({label})" in said
    (scanned / "selection.json").unlink()
    assert "words" not in how_decided({"selection": {**summary, "shortcuts": {}}})


def test_the_original_comes_out_of_the_data_set_at_its_own_size(scanned):
    table = CandidateTable.open(scanned)
    originals = Originals(table, partial(data_of_run, scanned))
    for row in range(len(table)):
        image = Image.open(io.BytesIO(originals.jpeg(row)))
        number = int(Path(table.originals[row][0]).stem.split("_")[1])
        assert image.size == (60, 40)
        assert np.abs(np.asarray(image).mean((0, 1)) - colour_of(number)).max() < 3


def test_of_other_data_no_original_is_shown(scanned, tmp_path):
    asked = []

    def load(verify: bool):
        asked.append(verify)
        return load_data(tmp_path / "data", verify=verify)

    for split in ("train", "test"):
        for number in range(8):
            path = tmp_path / "data" / split / CLASSES[number % 2] / f"{split}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (number, split == "train", 7)).save(path)
    with pytest.raises(HFScoreError, match="has changed since the scan"):
        Originals(CandidateTable.open(scanned), load).jpeg(0)
    assert asked == [False, True]  # with the images that cannot be read left out, it could have been the same


def test_the_command_is_for_this_folder_and_not_in_a_file_for_others(scanned, tmp_path):
    assert describe_table(CandidateTable.open(scanned))["command"] == f"hf-score train {scanned}"
    assert str(scanned) not in export_page(scanned, tmp_path / "page.html").read_text(encoding="utf-8")
