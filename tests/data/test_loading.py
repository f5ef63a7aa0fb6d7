"""`load_data`: label-free views, stable ids, seeded splits, groups, and every way in which a folder can be wrong."""

import csv
import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage

from hf_score.data import dataset_fingerprint, load_data
from hf_score.errors import DataError


def test_training_views_carry_no_groups(image_folder):
    data = load_data(image_folder())
    for view in (data.train, data.held_out):
        assert view.column_names == ["idx", "image", "label"]
    for view in (data.validation, data.test):
        assert view.column_names == ["idx", "image", "label", "group"]
    assert data.train[0]["image"].size == (8, 6)
    assert data.train_group_counts == [2, 18, 18, 2]
    assert data.group_names == [f"class {label}, spurious={a}" for label in (0, 1) for a in (0, 1)]
    assert (data.name, data.source, data.licence) == ("birds [set]", "local folder", None)
    assert not data.has_regions
    assert data.regions("test")(0) is None


def test_idx_is_the_row_of_the_file_whatever_the_split(image_folder):
    folder = image_folder()
    with open(folder / "train" / "metadata.csv") as file:
        rows = list(csv.DictReader(file))
    for seed in (0, 1):
        data = load_data(folder, seed=seed)
        assert sorted([*data.train["idx"], *data.held_out["idx"]]) == list(range(len(rows)))
        for row in data.held_out:
            original = rows[row["idx"]]
            pixels = np.asarray(PILImage.open(folder / "train" / original["file_name"]))
            assert np.array_equal(np.asarray(row["image"]), pixels)
            assert row["label"] == int(original["label"])


def test_held_out_is_seeded_and_stratified_by_label(image_folder):
    folder = image_folder()
    first, again, other = (load_data(folder, seed=seed, held_out=0.25) for seed in (3, 3, 4))
    assert first.held_out["idx"][:] == again.held_out["idx"][:]
    assert first.held_out["idx"][:] != other.held_out["idx"][:]
    assert np.bincount(first.held_out["label"]).tolist() == [5, 5]
    assert first.fingerprint == other.fingerprint  # the split is no part of the data set
    assert len(load_data(folder, held_out=0).held_out) == 0


def test_num_train_keeps_the_balance_of_classes(image_folder):
    data = load_data(image_folder(), num_train=20, held_out=0.2)
    assert np.bincount([*data.train["label"], *data.held_out["label"]]).tolist() == [10, 10]
    assert sum(data.train_group_counts) == 20


def test_drop_minority(image_folder):
    folder = image_folder()
    data = load_data(folder, drop_minority=True)
    assert data.train_group_counts == [0, 18, 18, 0]
    assert sorted([*data.train["idx"], *data.held_out["idx"]]) == list(range(36))  # the last four are the minority
    assert data.fingerprint != load_data(folder).fingerprint


def test_training_data_without_group_columns(image_folder, rows_of):
    data = load_data(image_folder(train=rows_of("tr", columns="label")))
    assert data.train_group_counts is None
    assert len(data.group_names) == 4
    assert data.test["group"][:] == [0, 1, 2, 3] * 3


def test_training_groups_only_where_they_are_asked_for(image_folder, rows_of):
    folder = image_folder()
    assert load_data(folder).train_groups is None
    data = load_data(folder, drop_minority=True, num_train=20, with_train_groups=True)
    for view in (data.train, data.held_out):
        assert view.column_names == ["idx", "image", "label"]
    groups = [1] * 18 + [2] * 18 + [0, 0, 3, 3]
    kept = sorted([*data.train["idx"], *data.held_out["idx"]])
    assert data.train_groups == {idx: groups[idx] for idx in kept}
    folder = image_folder(train=rows_of("tr", columns="label"))
    refused("training images of .* has no column of groups", folder, with_train_groups=True)


def test_groups_from_the_spurious_column(image_folder, rows_of):
    columns = "label spurious"
    folder = image_folder(
        train=rows_of("tr", columns=columns), validation=None, test=rows_of("te", [3, 0, 1], columns=columns)
    )
    data = load_data(folder)
    assert data.test["group"][:] == [3, 0, 1]
    assert data.train_group_counts == [2, 18, 18, 2]


def test_no_groups_at_all(image_folder, rows_of):
    folder = image_folder(**{split: rows_of(split, columns="label") for split in ("train", "validation", "test")})
    data = load_data(folder)
    assert data.group_names is None
    assert data.test.column_names == ["idx", "image", "label"]
    refused("The test split of .* has no column 'sex'", folder, group_column="sex")


def test_groups_outside_the_test_split_are_not_kept(image_folder, rows_of):
    data = load_data(image_folder(test=rows_of("te", [0, 1, 2], columns="label")))
    assert (data.group_names, data.train_group_counts) == (None, None)
    assert "group" not in data.validation.column_names


def test_a_third_attribute_value_has_its_own_groups(image_folder):
    def rows(prefix, count):
        return [{"file_name": f"{prefix}{i}.png", "label": i % 2, "spurious": i % 3} for i in range(count)]

    data = load_data(image_folder(train=rows("tr", 12), validation=None, test=rows("te", 6)))
    assert data.test["group"][:] == [0, 4, 2, 3, 1, 5]
    assert data.group_names[4] == "class 1, spurious=1"


def test_groups_that_cross_labels_are_named_by_number(image_folder, rows_of):
    test = [{**row, "group": i % 3} for i, row in enumerate(rows_of("te", [0, 1, 2, 3]))]
    assert load_data(image_folder(train=rows_of("tr", columns="label"), test=test)).group_names == [
        f"group {g}" for g in range(4)
    ]


def test_labels_by_name_are_sorted_unless_an_order_is_given(image_folder):
    def rows(prefix, count):
        return [{"file_name": f"{prefix}{i}.png", "label": ("water", "land")[i % 2]} for i in range(count)]

    folder = image_folder(train=rows("tr", 8), validation=None, test=rows("te", 2))
    data = load_data(folder)
    assert data.class_names == ["land", "water"]
    assert data.test["label"][:] == [1, 0]
    assert load_data(folder, class_names=["water", "land"]).test["label"][:] == [0, 1]
    refused("has the label 'water', which is not one of the classes", folder, class_names=["lake", "land"])


def test_class_folders_without_metadata(tmp_path):
    for split, names in {"train": ("cat", "dog"), "val": ("dog",)}.items():
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(4):
                PILImage.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / split / name / f"{i}.png")
    data = load_data(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert data.validation is None  # the one evaluation split is the test split
    assert data.test["label"][:] == [1] * 4  # by name, although this split has only one class
    assert sorted(data.train["label"][:] + data.held_out["label"][:]) == [0] * 4 + [1] * 4


def test_parquet_with_its_own_class_names(tmp_path):
    buffer = io.BytesIO()
    PILImage.new("RGB", (8, 8)).save(buffer, format="PNG")
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"]), "group": Value("int64")})
    for split, count in {"train": 8, "test": 2}.items():
        rows = [
            {"image": {"bytes": buffer.getvalue(), "path": None}, "label": i % 2, "group": i % 2} for i in range(count)
        ]
        Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / f"{split}.parquet"))
    assert load_data(tmp_path).class_names == ["cat", "dog"]
    assert load_data(tmp_path, class_names=["dog", "cat"]).test["label"][:] == [1, 0]
    refused("has the label 'cat', which is not one of the classes", tmp_path, class_names=["chat", "chien"])


def test_fingerprint_depends_on_content_and_not_on_place(image_folder, tmp_path):
    first = load_data(image_folder())
    moved = image_folder().rename(tmp_path / "moved")
    assert load_data(moved).fingerprint == first.fingerprint
    PILImage.new("RGB", (8, 6)).save(moved / "train" / "tr017.png")  # below 256 images each one counts
    assert load_data(moved).fingerprint != first.fingerprint


def test_fingerprint_depends_on_labels(image_folder):
    train = load_data(image_folder()).train
    labels = [1 - label for label in train["label"]]
    assert dataset_fingerprint(train.remove_columns("label").add_column("label", labels)) != dataset_fingerprint(train)


# ---- what can be wrong ----


def refused(match, *arguments, **options):
    with pytest.raises(DataError, match=match) as caught:
        load_data(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "nothing", "a/b/c"])
def test_no_such_folder(name):
    refused("There is no data folder .* fashion_patch", name)


def test_a_hub_id_without_the_hub():
    refused("data set 'user/name', which is no local folder: the Hub cannot be reached", "user/name")


def test_no_label_column(image_folder, rows_of):
    refused("has no column 'label' .*group", image_folder(train=rows_of("tr", columns="group")))


def test_a_missing_label(image_folder, rows_of):
    rows = rows_of("tr")
    rows[7]["label"] = ""
    refused("Row 7 of split 'train' .* has no label", image_folder(train=rows))


def test_one_class(image_folder, rows_of):
    refused("are of one class, 'class 1'", image_folder(train=rows_of("tr", [2, 3] * 4)))


def test_one_class_folder(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        PILImage.new("RGB", (8, 8)).save(tmp_path / split / "cat" / "0.png")
    refused("are of one class, 'cat'", tmp_path)


@pytest.mark.parametrize("label", [2, -1, 0.5])
def test_label_ids_out_of_range(image_folder, rows_of, label):
    rows = rows_of("te", [0, 1, 2])
    rows[1]["label"] = label
    refused("Split 'test' .* has the label .* with 2 classes label ids are 0 to 1", image_folder(test=rows))


def test_a_class_without_training_images(image_folder):
    refused("no training images of class 'c' left", image_folder(), class_names=["a", "b", "c"])


def test_truncated_image_is_named(image_folder):
    folder = image_folder()
    broken = folder / "test" / "te004.png"
    broken.write_bytes(broken.read_bytes()[:60])
    refused("Cannot read the image .*te004.png .*replace or remove it", folder)


def test_image_that_is_no_image_is_named(image_folder):
    folder = image_folder()
    (folder / "train" / "tr003.png").write_text("<html>404</html>")
    refused("Cannot read the image .*tr003.png", folder, strict=True)


def test_image_that_is_listed_but_missing_is_named(image_folder):
    folder = image_folder()
    (folder / "train" / "tr003.png").unlink()
    refused("Cannot read the image .*tr003.png", folder, strict=True)


def test_unreadable_training_images_are_listed_and_left_out(image_folder, caplog):
    folder = image_folder()
    whole = load_data(folder)
    (folder / "train" / "tr003.png").write_text("<html>404</html>")
    data = load_data(folder)
    assert list(data.unreadable) == [3]
    assert "tr003.png" in data.unreadable[3] and "tr003.png" in caplog.text
    assert {*data.train["idx"], *data.held_out["idx"]} == {*whole.train["idx"], *whole.held_out["idx"]} - {3}


def test_neither_metadata_nor_class_folders(image_folder):
    folder = image_folder(validation=None)
    (folder / "train" / "metadata.csv").unlink()
    refused("train' has no metadata.csv, unlike another split", folder)
    (folder / "test" / "metadata.csv").unlink()
    refused("neither a metadata.csv nor one sub-folder per class", folder)


def test_metadata_without_file_names(image_folder):
    folder = image_folder()
    metadata = folder / "train" / "metadata.csv"
    metadata.write_text(metadata.read_text().replace("file_name", "picture"))
    refused("Cannot read '.*train': .*file_name", folder)


def test_no_training_split(image_folder):
    refused("no folder 'train/'", image_folder(train=None))


@pytest.mark.parametrize("value", [-1, 0.5])
def test_group_values_that_are_no_ids(image_folder, rows_of, value):
    rows = [{**row, "group": value} for row in rows_of("te", [0, 1])]
    refused(f"Column 'group' of .* whole numbers from 0, or words, and not {value}", image_folder(test=rows))


def test_no_minority_column(image_folder, rows_of):
    refused("has no column 'minority'", image_folder(train=rows_of("tr")), drop_minority=True)


def test_share_outside_zero_and_one(image_folder):
    refused("at least 0 and below 1, not 1.5", image_folder(), held_out=1.5)
