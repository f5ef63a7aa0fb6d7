"""Knee X-rays with markers: the declared recipe."""

import numpy as np
import pytest
from PIL import Image
from raw_folders import content, write_knee

from hf_score.data import build, list_datasets, load_data
from hf_score.data.registry.builders import Knee, KneeConfig
from hf_score.data.registry.builders.knee import marker_mask
from hf_score.data.registry.opening import counts_of
from hf_score.errors import DataError


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_knee(tmp_path_factory.mktemp("knee"))


def test_counts(raw):
    """16 healthy images, of grades 0 and 1, and 24 of grades 2 to 4 in each split."""
    assert counts_of(Knee(raw).plan()) == {
        "train": [1, 15, 24, 0],
        "validation": [16, 16, 24, 24],
        "test": [16, 16, 24, 24],
    }
    assert counts_of(Knee(raw, share_healthy=0.5, share_diseased=0.25).plan())["train"] == [8, 8, 18, 6]
    assert counts_of(Knee(raw, first_diseased=3).plan())["train"] == [1, 23, 16, 0]
    without = Knee(raw, drop_doubtful=True).plan()
    assert {row["grade"] for rows in without.values() for row in rows} == {0, 2, 3, 4}


def test_the_official_counts_are_those_of_chen_et_al(raw):
    """From the numbers of images per grade."""
    grades = {
        "train": (2286, 1046, 1516, 757, 173),
        "val": (328, 153, 212, 106, 27),
        "test": (639, 296, 447, 223, 51),
    }

    class Listed(Knee):
        def _grade(self, split, grade):
            row = {"path": "", "grade": grade, "label": int(grade >= 2), "spurious": 0}
            return [{**row, "name": f"{grade}/{i}.png"} for i in range(grades[split][grade])]

    official = next(b.counts for b in list_datasets() if b.name == "knee_markers")
    assert counts_of(Listed(raw).plan()) == {split: list(counts) for split, counts in official.items()}


def test_the_mask_is_what_has_changed(raw):
    data = load_data("knee_markers", data_dir=raw, check_counts=False, with_train_groups=True)
    assert data.train.column_names == data.held_out.column_names == ["idx", "image", "label"]
    plan = Knee(raw).plan()
    for split, view in {"train": data.train, "validation": data.validation, "test": data.test}.items():
        for row in view:
            planned = plan[split][row["idx"]]
            region = data.regions(split)(row["idx"])
            changed = np.asarray(row["image"]) != np.asarray(Image.open(planned["path"]))
            assert changed.any() == bool(planned["spurious"]) == (region is not None)
            if region is not None:  # the X-rays have no pixel of the marker's grey value
                assert np.array_equal(np.asarray(region) == 255, changed)
                assert changed.sum() == 25 and changed[:10, :10].sum() == 25
            if split == "train":
                assert not (planned["spurious"] and row["label"] == 1)


def test_validation_and_test_are_pairs(raw):
    for split in ("validation", "test"):
        rows = Knee(raw).plan()[split]
        for without, with_marker in zip(rows[::2], rows[1::2], strict=True):
            assert (without["spurious"], with_marker["spurious"]) == (0, 1)
            assert without["path"] == with_marker["path"]
            assert without["name"] != with_marker["name"]


def test_seed_and_options(raw, tmp_path):
    first, again = (build("knee_markers", raw, tmp_path / name, check_counts=False) for name in ("a", "b"))
    other = build("knee_markers", raw, tmp_path / "c", check_counts=False, seed=1)
    disc = build("knee_markers", raw, tmp_path / "d", shape="disc", size=0.3, place="bottom_right")
    assert content(first) == content(again)
    assert content(first)["train/metadata.csv"] != content(other)["train/metadata.csv"]
    assert b'"shape": "disc"' in content(disc)["build.json"]
    data = load_data("knee_markers", data_dir=disc)
    region = next(data.regions("test")(i) for i in range(2) if data.regions("test")(i) is not None)
    inside = np.argwhere(np.asarray(region) == 255)
    assert inside.min() > 25 and 15 * 15 * 0.7 < len(inside) < 15 * 15 * 0.85
    with pytest.raises(DataError, match="'knee_markers' has no option 'colour'"):
        build("knee_markers", raw, tmp_path / "e", colour="red")


@pytest.mark.parametrize("shape", ["square", "disc", "cross"])
@pytest.mark.parametrize("place", ["top_left", "top_right", "bottom_left", "bottom_right", "any_corner"])
def test_markers_are_inside_the_image(shape, place):
    recipe = KneeConfig(shape=shape, place=place, size=0.2, margin=0.05, jitter=0.05)
    corners = set()
    for seed in range(12):
        mask = np.asarray(marker_mask((60, 40), recipe, np.random.default_rng(seed))) == 255
        rows, columns = np.nonzero(mask)
        assert (np.ptp(rows), np.ptp(columns)) == (7, 7)
        corners.add(("bottom" if rows.mean() > 20 else "top", "right" if columns.mean() > 30 else "left"))
    assert len(corners) > 1 if place == "any_corner" else corners == {tuple(place.split("_"))}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"share_healthy": 1.5}, "share_healthy is 1.5"),
        ({"size": 0.99}, "does not fit"),
        ({"size": 0.0}, "does not fit"),
    ],
)
def test_options_that_are_wrong(raw, options, match):
    with pytest.raises(DataError, match=match):
        Knee(raw, **options).plan()


def test_a_folder_without_grades(tmp_path):
    with pytest.raises(DataError, match=r"has no PNG files in train/0 to train/4"):
        load_data("knee_markers", data_dir=tmp_path)
