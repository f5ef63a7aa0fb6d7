"""Fashion garments with a background and an object: the declared recipe."""

import numpy as np
import pytest
from datasets import Dataset
from raw_folders import content

from hf_score.data import build, load_data, stream_train
from hf_score.data.registry.builders import FashionTwoCues
from hf_score.data.registry.builders.two_cues import COLOURS, SQUARE, STRIPE, paint
from hf_score.data.registry.specs import find_dataset
from hf_score.errors import DataError

#: Values of a channel outside of the garment.
VALUES = {0, STRIPE, *(value for colour in COLOURS for value in colour)}
SOURCE = find_dataset("fashion_two_cues").source


def test_each_cue_is_right_in_95_percent_whatever_the_other():
    rows = FashionTwoCues(SOURCE).plan()["train"]
    for label in (0, 1):
        own = [row for row in rows if row["label"] == label]
        right = np.array([(row["background"] == label, row["object"] == label) for row in own])
        assert right.mean(axis=0).tolist() == [0.95, 0.95]
        assert right.all(axis=1).sum() == 542  # 0.9025 of 600
        assert len({row["source_index"] for row in own}) == 600
    only = FashionTwoCues(SOURCE, background_correlation=1.0, object_correlation=0.5).plan()["train"]
    shirts = [row for row in only if row["label"] == 1]
    assert all(row["background"] for row in shirts) and sum(row["object"] for row in shirts) == 300


def test_test_garments_are_there_in_all_ways_and_in_no_other_split():
    plan = FashionTwoCues(SOURCE).plan()
    for split in ("validation", "test"):
        by_garment = {}
        for row in plan[split]:
            by_garment.setdefault(row["source_index"], []).append((row["background"], row["object"]))
        assert all(sorted(ways) == [(0, 0), (0, 1), (1, 0), (1, 1)] for ways in by_garment.values())
    training = {row["source_index"] for row in plan["train"]}
    assert not training & {row["source_index"] for row in plan["validation"]}  # both of Fashion-MNIST's training set


def test_painting():
    """The same pixels whether the garment came with a square or without, and the garment stays."""
    garment = np.zeros((32, 32, 3), np.uint8)
    garment[6:26, 6:26] = 100
    garment[12:15, 12:15] = 3  # a dark spot is garment
    marked = garment.copy()
    marked[SQUARE] = (255, 40, 40)
    for background in (0, 1):
        for kind in (0, 1):
            image, mask = paint(garment, background, kind)
            assert np.array_equal(image, paint(marked, background, kind)[0])
            assert (image[SQUARE] == COLOURS[kind]).all() and (mask[SQUARE] == 255).all()
            assert np.array_equal(image[mask == 0], garment[mask == 0])
            assert (garment[mask == 0] > 0).all() and (mask == 0).sum() == 400 - 4
            around = image[28:, :, 0] if background else image[:, 28:, 0].T
            assert np.array_equal(around, np.broadcast_to([0, 0, STRIPE, STRIPE] * 8, (4, 32)))


def test_it_is_there_without_a_folder():
    """All counts are those of the registry, before the first image."""
    stream = stream_train("fashion_two_cues")
    first = next(iter(stream))
    assert set(first) == {"idx", "image", "label"}
    assert first["image"].size == (32, 32)
    assert np.asarray(first["image"])[SQUARE][0, 0].tolist() in [list(colour) for colour in COLOURS]


def test_building(tmp_path):
    """From a few of the garments."""
    (tmp_path / "raw").mkdir()
    for split in ("train", "validation", "test"):
        rows = Dataset.from_parquet(f"{SOURCE}/{split}.parquet")
        labels = np.array(rows["label"][:])
        few = np.concatenate([np.flatnonzero(labels == label)[:20] for label in (0, 1)])
        rows.select(few).to_parquet(f"{tmp_path}/raw/{split}.parquet")
    with pytest.raises(DataError, match="instead of 542"):
        build("fashion_two_cues", tmp_path / "raw", tmp_path / "a")
    folder, again = (
        build("fashion_two_cues", tmp_path / "raw", tmp_path / name, check_counts=False) for name in ("a", "b")
    )
    assert content(folder) == content(again)
    built = load_data(folder)
    assert built.train_group_counts == [18, 1, 1, 0, 0, 1, 1, 18]
    assert built.cues == ("background", "object")
    assert built.group_names[4] == "shirt, across, red"
    for idx in range(len(built.test)):
        region = np.asarray(built.regions("test")(idx)) == 255
        assert region[SQUARE].all() and set(np.unique(np.asarray(built.test[idx]["image"])[region])) <= VALUES


def test_what_is_wrong(tmp_path):
    with pytest.raises(DataError, match="object_correlation is 2"):
        FashionTwoCues(SOURCE, object_correlation=2.0).plan()
    with pytest.raises(DataError, match=r"Cannot read .*train.parquet"):
        FashionTwoCues(tmp_path).plan()
    with pytest.raises(DataError, match="give their folder as source"):
        build("mark", None, tmp_path / "out")
