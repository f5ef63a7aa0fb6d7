"""CelebA in both forms of its lists."""

import numpy as np
import pytest
from PIL import Image
from raw_folders import write_celeba

from hf_score.data import load_data
from hf_score.errors import DataError


@pytest.mark.parametrize("kind", ["csv", "txt"])
def test_layout(tmp_path, kind):
    folder = write_celeba(tmp_path, kind=kind)
    if kind == "csv":  # some copies have the folder of images twice
        (folder / "img_align_celeba").rename(folder / "images")
        (folder / "img_align_celeba").mkdir()
        (folder / "images").rename(folder / "img_align_celeba" / "img_align_celeba")
    data = load_data("celeba", data_dir=folder, check_counts=False, with_train_groups=True)
    assert data.class_names == ["not blond", "blond"]
    assert data.group_names[1] == "not blond, male"
    assert data.train_group_counts == [4, 4, 4, 4]
    assert data.train_groups == {idx: idx % 4 for idx in range(16)}
    assert data.validation["group"][:] == data.test["group"][:] == [0, 1, 2, 3]
    assert data.train.column_names == ["idx", "image", "label"]
    assert not data.has_regions
    first = next(path for path in folder.rglob("000017.jpg"))
    assert np.array_equal(np.asarray(data.validation[0]["image"]), np.asarray(Image.open(first)))


def test_official_counts_are_insisted_on(tmp_path):
    with pytest.raises(DataError, match=r"'not blond, female' of split 'train' of 'celeba' has 4 images .* 71629"):
        load_data("celeba", data_dir=write_celeba(tmp_path, kind="csv"))


def test_lists_that_are_wrong(tmp_path):
    folder = write_celeba(tmp_path, kind="csv")
    attributes = folder / "list_attr_celeba.csv"
    good = attributes.read_text()
    attributes.write_text(good.replace("Male", "Female"))
    with pytest.raises(DataError, match="no number as its Blond_Hair or Male"):
        load_data("celeba", data_dir=folder)
    attributes.write_text("\n".join(good.splitlines()[:-1]))
    with pytest.raises(DataError, match=r"'000024.jpg' is in list_eval_partition but not in list_attr_celeba"):
        load_data("celeba", data_dir=folder)
    attributes.unlink()
    with pytest.raises(DataError, match=r"neither list_attr_celeba.csv nor list_attr_celeba.txt"):
        load_data("celeba", data_dir=folder)
