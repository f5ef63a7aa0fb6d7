import json
import os
import pickle

import numpy as np
import pytest
from datasets import Array2D, Dataset, Features, Image
from processes import run_as_one_of_two
from tiny import square_images, tiny_vit

from hf_score.detection import Candidates, find_candidates
from hf_score.detection.candidates import _ARRAYS
from hf_score.detection.packed import HEATMAP, MASK, PackedArrays


@pytest.mark.parametrize("unit", [0.0, 1e-12, 1.0, 3e7])
def test_a_heatmap_keeps_eleven_bits_of_its_largest_value_whatever_that_is(unit):
    heatmap = (unit * np.random.default_rng(0).normal(size=(9, 7))).astype(np.float32)
    found = HEATMAP.unpack(content := HEATMAP.pack(heatmap), (9, 7))
    assert found.dtype == np.float32 and len(content) == HEATMAP.size((9, 7))
    assert np.abs(found - heatmap).max() <= 2**-11 * np.abs(heatmap).max()
    assert HEATMAP.pack(found) == content  # packed again it loses no more


def test_packed_arrays_are_read_like_one_array():
    masks = np.random.default_rng(0).random((6, 5, 3)) > 0.5
    found = PackedArrays([MASK.pack(mask) for mask in masks], MASK, (5, 3))
    assert found.shape == masks.shape and found.dtype == bool and len(found) == 6
    for chosen in (2, -1, np.int64(3), [4, 0], slice(1, 4), np.array([True, False] * 3), []):
        expected = masks[chosen] if not isinstance(chosen, list) else masks[np.asarray(chosen, int)]
        assert np.array_equal(found[chosen], expected)
    assert np.array_equal(np.asarray(found), masks) and np.array_equal(np.stack(list(found)), masks)
    with pytest.raises(IndexError):
        found[6]


def found_in(images) -> Candidates:
    return find_candidates(tiny_vit(), images, dataset_fingerprint="x", layer="block1", num_candidates=9, batch_size=4)


def test_candidates_come_back_as_they_were_saved_and_a_folder_of_before_too(tmp_path):
    found = found_in(square_images())
    loaded = Candidates.load(found.save(tmp_path / "new"))
    again = Candidates.load(loaded.save(tmp_path / "again"))
    for other in (loaded, again):
        for name in _ARRAYS:
            assert np.array_equal(getattr(other, name), getattr(found, name)), name
        assert np.array_equal(other.pixels, found.pixels)
    # as the schema before had them
    table = Dataset.load_from_disk(str(tmp_path / "new"))
    types = {"heatmaps": Array2D((32, 32), "float32"), "masks": Array2D((32, 32), "bool"), "image": Image()}
    features = Features({name: types.get(name, feature) for name, feature in table.features.items()})
    columns = {name: list(getattr(found, name)) for name in _ARRAYS} | {"image": list(found.images)}
    Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "old")
    about = json.loads((tmp_path / "new" / "candidates.json").read_text())
    del about["shape"]
    (tmp_path / "old" / "candidates.json").write_text(json.dumps(about | {"schema": "hf-score/candidates/2"}))
    old = Candidates.load(tmp_path / "old")
    for name in _ARRAYS:
        assert np.array_equal(getattr(old, name), getattr(found, name)), name
    assert np.array_equal(old.pixels, found.pixels)
    assert np.array_equal(old.take([3, 1]).masks, found.masks[[3, 1]])


def test_maps_take_a_tenth_of_a_mebibyte():
    """Of 224 pixels; a picture of so many takes about as much again."""
    assert HEATMAP.size((224, 224)) + MASK.size((224, 224)) < 0.11 * 2**20


def find_into(folder, rank, count) -> None:
    found = found_in(square_images(count))
    arrays = {name: np.asarray(getattr(found, name)) for name in _ARRAYS} | {"pixels": found.pixels}
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(arrays))


@pytest.mark.parametrize("count", [3, 32])
@pytest.mark.parametrize("shared", [True, False])
def test_processes_put_their_parts_together_with_a_disk_that_all_see_and_without(tmp_path, monkeypatch, count, shared):
    """Of three images there is one part, and so none for the second process."""
    if not shared:
        monkeypatch.setattr("hf_score.detection.find.Path.is_file", lambda path: False)
    run_as_one_of_two(find_into, lambda rank: (tmp_path, rank, count))
    find_into(tmp_path, "one", count)
    one, *others = (pickle.loads((tmp_path / f"{name}.pickle").read_bytes()) for name in ("one", 0, 1))
    for other in others:
        for name, value in one.items():
            assert np.array_equal(other[name], value), name
    assert os.listdir(tmp_path)
