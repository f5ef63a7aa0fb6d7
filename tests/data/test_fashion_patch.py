"""The data set inside the package: what its README says, and no way for the square to hide."""

import numpy as np
import pytest

from hf_score.data import dataset_fingerprint, list_datasets, load_data


@pytest.fixture(scope="module")
def fashion_patch():
    return load_data("fashion_patch")


def test_counts_and_names(fashion_patch):
    data = fashion_patch
    assert data.train_group_counts == [30, 570, 570, 30]
    assert len(data.train) + len(data.held_out) == 1200
    assert np.bincount(data.validation["group"]).tolist() == [100] * 4
    assert np.bincount(data.test["group"]).tolist() == [250] * 4
    assert data.group_names == ["pullover, no square", "pullover, red square", "shirt, no square", "shirt, red square"]
    assert (data.name, data.licence) == ("fashion_patch", "MIT")


def test_regions_are_exactly_the_red_pixels(fashion_patch):
    marked = 0
    for split in ("train", "held_out", "validation", "test"):
        regions = fashion_patch.regions(split)
        for row in getattr(fashion_patch, split):
            pixels = np.asarray(row["image"]).astype(int)
            red = pixels[..., 0] - pixels[..., 1] > 60
            region = regions(row["idx"])
            assert red.any() == (region is not None)
            if region is not None:
                assert np.array_equal(np.asarray(region) == 255, red)
                marked += 1
            if "group" in row:
                assert row["group"] == 2 * row["label"] + red.any()
    assert marked == 600 + 200 + 500


def test_fully_correlated_version():
    data = load_data("fashion_patch_100")
    assert data.train_group_counts == [0, 570, 570, 0]
    for row in data.train:
        assert (data.regions("train")(row["idx"]) is not None) == (row["label"] == 0)


def test_no_test_photograph_is_in_training(fashion_patch):
    """By pixels, without the corner in which the square is."""

    def photographs(view):
        return {np.asarray(row["image"])[9:, 9:].tobytes() for row in view}

    train = photographs(fashion_patch.train) | photographs(fashion_patch.held_out)
    assert not train & photographs(fashion_patch.test)
    assert not train & photographs(fashion_patch.validation)


def test_fingerprint_is_pinned(fashion_patch):
    """Selection files name it: it must not change with library versions, nor with the machine."""
    assert fashion_patch.fingerprint == "efe3316333c3c48d4d3ce6301566d7cf017c0128c09be25a0e283164a0b23f99"
    assert fashion_patch.fingerprint != dataset_fingerprint(fashion_patch.train)


def test_registry_rows_are_complete():
    names = [benchmark.name for benchmark in list_datasets()]
    assert len(set(names)) == len(names)
    assert {b.name for b in list_datasets() if b.verified} == {"fashion_patch", "fashion_patch_100"}
