"""Birds with the cue reversed: the declared recipe."""

import csv

import numpy as np
import pytest
from PIL import Image
from raw_folders import content, write_birds, write_csv

from hf_score.data import build, load_data
from hf_score.data.registry.builders import BirdsReversed
from hf_score.data.registry.opening import counts_of
from hf_score.errors import DataError


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_birds(tmp_path_factory.mktemp("birds") / "birds")


def test_each_class_is_on_the_others_background(raw):
    """20 species of each class with 2 birds: 12, 2 and 6 of them; 1 of 24 birds (5 % are 1.2) is where it belongs."""
    assert counts_of(BirdsReversed(raw).plan()) == {
        "train": [1, 23, 23, 1],
        "validation": [4, 4, 4, 4],
        "test": [12, 12, 12, 12],
    }
    all_reversed = BirdsReversed(raw, correlation=1.0).plan()
    assert counts_of(all_reversed)["train"] == [0, 24, 24, 0]
    assert not any(row["minority"] for row in all_reversed["train"])
    assert counts_of(BirdsReversed(raw, correlation=0.75).plan())["train"] == [6, 18, 18, 6]


def test_species_are_apart_and_birds_come_in_pairs(raw):
    for seed in range(5):
        plan = BirdsReversed(raw, seed=seed).plan()
        species = [{row["species"] for row in rows} for rows in plan.values()]
        assert sum(map(len, species)) == len(set.union(*species)) == 40
        assert len({row["bird_id"] for row in plan["train"]}) == len(plan["train"])
        for split in ("validation", "test"):
            pairs = {(row["bird_id"], row["spurious"]) for row in plan[split]}
            assert len(pairs) == len(plan[split]) == 2 * len({bird for bird, _ in pairs})
        assert not any(row["bird_id"].endswith("__2") for rows in plan.values() for row in rows)  # on one background


def test_images_are_where_the_rows_say(raw, tmp_path):
    folder = build("birds_reversed", raw, tmp_path / "a", seed=3)
    assert content(folder) == content(build("birds_reversed", raw, tmp_path / "b", seed=3))
    data = load_data(folder)
    assert data.train_group_counts == [1, 23, 23, 1]
    assert data.group_names[:2] == ["landbird, land", "landbird, water"]
    for row in data.test:
        pixels, region = np.asarray(row["image"]).astype(int), np.asarray(data.regions("test")(row["idx"])) == 255
        bird = pixels[..., 0] > 100
        assert np.array_equal(region, ~bird)
        assert (pixels[region][:, 2] > 0).all() == bool(row["group"] % 2)  # water is blue
    dropped = load_data(folder, drop_minority=True, with_train_groups=True)
    assert set(dropped.train_groups.values()) == {1, 2}


def test_what_is_wrong_with_a_folder(tmp_path):
    folder = write_birds(tmp_path / "birds", species=4)
    path = folder / "train" / "metadata.csv"
    with open(path) as file:
        rows = list(csv.DictReader(file))
    write_csv(path, [{**rows[0], "label": "2"}, *rows[1:]])
    with pytest.raises(DataError, match=r"Line 2 of .* has a label or spurious that is not 0 or 1"):
        BirdsReversed(folder).plan()
    write_csv(path, [{**rows[0], "species": "other"}, *rows[1:]])
    with pytest.raises(DataError, match="has two labels or species"):
        BirdsReversed(folder).plan()
    write_csv(path, [{key: row[key] for key in row if key != "species"} for row in rows])
    with pytest.raises(DataError, match="has no column 'species'"):
        BirdsReversed(folder).plan()
    for split in ("train", "test"):
        write_csv(folder / split / "metadata.csv", [row for row in rows if row["spurious"] == "0"])
    with pytest.raises(DataError, match=r"No bird in .* is on both backgrounds"):
        BirdsReversed(folder).plan()
    write_csv(path, rows)
    for share, match in ((1.5, "test_share is 1.5: give a share"), (0.95, "leave nothing to train on")):
        with pytest.raises(DataError, match=match):
            BirdsReversed(folder, test_share=share).plan()
    with pytest.raises(DataError, match="too few for a test split"):
        BirdsReversed(folder, test_share=0.01).plan()


def test_without_masks(tmp_path):
    folder = write_birds(tmp_path / "birds", species=10)
    (tmp_path / "birds_masks").rename(tmp_path / "elsewhere")
    assert not load_data("birds_reversed", data_dir=folder).has_regions
    (tmp_path / "elsewhere").rename(folder / "masks")
    data = load_data("birds_reversed", data_dir=folder)
    assert data.has_regions
    assert isinstance(data.regions("test")(0), Image.Image)
