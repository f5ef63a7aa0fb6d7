"""Layouts people have: folders of classes, one table, what `save_to_disk` wrote, objects in memory."""

import csv

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, concatenate_datasets
from PIL import Image as PILImage
from tiny import square_images, tiny_processor, tiny_vit

from hf_score.data import load_data
from hf_score.data.adapt import as_dataset
from hf_score.detection.scan import scan
from hf_score.errors import DataError
from hf_score.training import SCOREConfig, SCORETrainer

from .layouts import LAYOUTS, is_cat


def picture(seed: int) -> PILImage.Image:
    return PILImage.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8))


def write_images(folder, counts, start=0):
    """`counts`: sub-folder → number of images, all different."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            start += 1
            picture(start).save(folder / name / f"{name.split('/')[-1]}{i}.png")
    return start


def write_table(file, rows):
    with open(file, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def refused(match, *arguments, **options):
    with pytest.raises(DataError, match=match) as caught:
        load_data(*arguments, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


# ---- Folders ----


def test_class_folders_alone(tmp_path, caplog):
    write_images(tmp_path, {"cat": 20, "dog": 10})
    data = load_data(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert np.bincount(data.test["label"]).tolist() == [4, 2]
    assert len(data.train) + len(data.held_out) == 24
    assert "no test split: 6 of its 30 images were set aside" in caplog.text and data.notes
    again = load_data(tmp_path, seed=5)
    assert [i.tobytes() for i in again.test["image"]] == [i.tobytes() for i in data.test["image"]]
    refused("must be between 0 and 1", tmp_path, test_share=0)


def test_the_same_file_is_on_one_side_of_a_test_split(tmp_path):
    write_images(tmp_path, {"cat": 10, "dog": 10})
    for name in ("cat", "dog"):
        for i in range(10):  # every file twice
            (tmp_path / name / f"copy{i}.png").write_bytes((tmp_path / name / f"{name}{i}.png").read_bytes())
    data = load_data(tmp_path, strict=True)
    seen = [
        {np.asarray(image).tobytes() for image in view["image"]} for view in (data.train, data.held_out, data.test)
    ]
    assert not (seen[0] | seen[1]) & seen[2]


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "TEST"), ("training", "Validation"), ("TRAIN", "dev")])
def test_names_of_splits(tmp_path, names):
    for number, name in enumerate(names):
        write_images(tmp_path / name, {"cat": 4, "dog": 4}, start=100 * number)
    data = load_data(tmp_path)
    assert (len(data.test), data.validation) == (8, None)


def test_two_folders_for_one_split(tmp_path):
    for number, name in enumerate(("train", "val", "valid")):
        write_images(tmp_path / name, {"cat": 4, "dog": 4}, start=100 * number)
    refused("two folders of validation images, 'val' and 'valid'", tmp_path)


def test_the_first_folder_is_the_class(tmp_path):
    write_images(tmp_path, {"cat/patient1": 4, "cat/patient2": 4, "dog/patient3": 4})
    data = load_data(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert "the folders in them as parts" in data.notes[0]


def test_folders_of_sources_or_of_splits_in_folders_of_classes_are_not_guessed(tmp_path):
    write_images(tmp_path, {"north/cat": 4, "north/dog": 4, "south/cat": 4, "south/dog": 4})
    refused("which of the two are the classes cannot be told", tmp_path)


def test_numbers_as_folders(tmp_path):
    for number, split in enumerate(("train", "test")):
        write_images(tmp_path / split, {str(i): 3 for i in range(12)}, start=100 * number)
    data = load_data(tmp_path)
    assert data.class_names == [str(i) for i in range(12)]
    named = load_data(tmp_path, class_names=[f"grade {i}" for i in range(12)])
    assert named.class_names[10] == "grade 10" and named.test["label"][:] == data.test["label"][:]


def test_accents_in_two_encodings(tmp_path):
    write_images(tmp_path / "train", {"naevus": 4, "m\u00e9lanome": 4})
    write_images(tmp_path / "test", {"me\u0301lanome": 4}, start=100)
    assert load_data(tmp_path).test["label"][:] == [0] * 4
    write_images(tmp_path / "train", {"MELANOME": 4, "melanome": 4}, start=200)
    refused("'MELANOME' and 'melanome' .* are the same but for capitals", tmp_path)


def test_what_is_left_out_is_counted(tmp_path, caplog):
    write_images(tmp_path / "train", {"cat": 4, "dog": 4})
    write_images(tmp_path / "test", {"cat": 4, "dog": 4}, start=100)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    picture(999).save(tmp_path / "test" / "beside.png")
    assert load_data(tmp_path).skipped == {"train": 1, "test": 1}
    assert "1 files of split 'test' are left out" in caplog.text


def test_images_that_the_metadata_do_not_list(image_folder):
    folder = image_folder()
    picture(1).save(folder / "test" / "more.png")
    assert load_data(folder).skipped == {"train": 0, "validation": 0, "test": 1}


# ---- Tables ----


def test_a_root_table_beside_class_folders(tmp_path):
    write_images(tmp_path, {"cat": 10, "dog": 10})
    files = [f"{name}/{name}{i}.png" for name in ("cat", "dog") for i in range(10)]
    write_table(tmp_path / "metadata.csv", [{"file_name": f, "patient": f"p{i // 2}"} for i, f in enumerate(files)])
    data = load_data(tmp_path, split_by="patient")
    assert data.class_names == ["cat", "dog"]
    assert len(data.test) == 4
    refused("no column 'source' to split by", tmp_path, split_by="source")


def test_a_root_table_for_folders_of_splits(tmp_path):
    write_images(tmp_path, {"train": 6, "test": 2})
    rows = [{"file_name": f"train/train{i}.png", "label": i % 2} for i in range(6)]
    write_table(tmp_path / "metadata.csv", [*rows, *({"file_name": f"test/test{i}.png", "label": 1} for i in (0, 1))])
    data = load_data(tmp_path)
    assert (len(data.train) + len(data.held_out), data.test["label"][:]) == (6, [1, 1])


def test_one_table_with_absolute_paths_and_a_split_column(tmp_path):
    write_images(tmp_path / "scans", {"a": 12})
    rows = [
        {
            "file": tmp_path / "scans" / "a" / f"a{i}.png",
            "label": ("NA", "None")[i % 2],
            "split": ("Train", "val", "TEST")[i % 3],
        }
        for i in range(12)
    ]
    write_table(tmp_path / "data.csv", rows)
    data = load_data(tmp_path / "data.csv")
    assert (data.name, data.class_names) == ("data", ["NA", "None"])
    assert len(data.test) == len(data.validation) == 4
    write_table(tmp_path / "data.csv", [{**rows[0], "split": "fold1"}, *rows[1:]])
    refused("Row 0 of .* has the split 'fold1'", tmp_path / "data.csv")


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (["NA", "b"], ["NA"], ["NA", "b"]),
        (["null", "None"], ["None"], ["None", "null"]),
        (["01", "02"], ["02"], ["01", "02"]),
        (["1", "2"], ["2"], ["1", "2"]),
        (["True", "False"], ["True"], ["False", "True"]),
        (["0", "1"], ["1.0"], ["class 0", "class 1"]),
        (["1e5", "2e5"], ["1e5"], ["1e5", "2e5"]),
    ],
)
def test_labels_are_read_as_they_are_written(image_folder, train, test, names):
    folder = image_folder(
        train=[{"file_name": f"tr{i}.png", "label": train[i % 2]} for i in range(8)],
        validation=None,
        test=[{"file_name": f"te{i}.png", "label": label} for i, label in enumerate(test)],
    )
    data = load_data(folder)
    assert data.class_names == names
    expected = {"1.0": 1}.get(test[0]) if test[0] == "1.0" else names.index(test[0])
    assert data.test["label"][:] == [expected]


def test_tables_that_are_broken(image_folder):
    folder = image_folder()
    metadata = folder / "train" / "metadata.csv"
    before = metadata.read_text()
    metadata.write_text(before.replace("tr003.png,", "tr003.png,7,"))
    refused("Line 5 of .*metadata.csv' has 6 values, and the header 5 columns", folder)
    metadata.write_bytes(before.replace("label", "l\u00e4bel").encode("latin-1"))
    refused("Cannot read the table .*metadata.csv", folder)
    metadata.write_text(before.replace(",", ";"))
    assert len(load_data(folder).train)


def test_attributes_in_words(image_folder, rows_of):
    def words(rows):
        return [{**row, "spurious": ("water ", "land")[row["spurious"]]} for row in rows]

    parts = {"train": rows_of("tr", columns="label spurious"), "test": rows_of("te", [0, 1, 2], "label spurious")}
    data = load_data(image_folder(validation=None, **{split: words(rows) for split, rows in parts.items()}))
    assert data.group_names == [f"class {label}, {name}" for label in (0, 1) for name in ("land", "water")]
    assert data.test["group"][:] == [1, 0, 3]


def test_a_column_named_group_that_is_none(image_folder):
    data = load_data(image_folder(), group_column="none")
    assert data.group_names is None and "group" not in data.test.column_names


# ---- Saved and in memory ----


@pytest.fixture
def rows():
    features = Features(image=Image(), label=ClassLabel(names=["cat", "dog"]), group=Value("int64"))
    columns = {"image": [picture(i) for i in range(20)], "label": [0, 1] * 10, "group": [0, 3] * 10}
    return Dataset.from_dict(columns, features=features)


def test_save_to_disk(rows, tmp_path):
    rows.save_to_disk(tmp_path / "one")
    one = load_data(tmp_path / "one")
    assert (one.class_names, len(one.test)) == (["cat", "dog"], 4)
    halves = DatasetDict(train=rows.select(range(10)), valid=rows.select(range(10, 20)))
    halves.save_to_disk(tmp_path / "two")
    for given in (tmp_path / "two", halves, dict(halves)):
        two = load_data(given)
        assert (len(two.train) + len(two.held_out), two.test["label"][:]) == (10, [0, 1] * 5)


@pytest.mark.parametrize("kind", ["torch", "transform"])
def test_formats_and_transforms_are_left_off(rows, kind):
    odd = rows.with_format("torch") if kind == "torch" else rows.with_transform(lambda batch: {"x": batch["label"]})
    assert load_data(odd).test["label"][:] == load_data(rows).test["label"][:]
    found = scan(tiny_vit(), odd, processor=tiny_processor(), num_candidates=3)
    expected = scan(tiny_vit(), rows, processor=tiny_processor(), num_candidates=3)
    assert found.hits == expected.hits


class Pairs(torch.utils.data.Dataset):
    """As torchvision's data sets: (PIL image, label)."""

    classes = ("cat", "dog")

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return picture(i), i % 2


def test_items_arrays_and_paths(tmp_path, rows):
    write_images(tmp_path, {"x": 20})
    arrays, labels = [np.asarray(picture(i)) for i in range(20)], ["dog", "cat"] * 10
    paths = [str(tmp_path / "x" / f"x{i}.png") for i in range(20)]
    pairs = list(zip(paths, [0, 1] * 10, strict=True))
    dicts = [{"image": image, "label": torch.tensor(i % 2)} for i, image in enumerate(arrays)]
    for given in (Pairs(), (np.stack(arrays), labels), (arrays, labels), (paths, labels), pairs, dicts):
        data = load_data(given)
        assert len(data.test) == 4 and data.test[0]["image"].size == (8, 8)
    assert as_dataset(Pairs()).features["label"].names == ["cat", "dog"]
    found = scan(tiny_vit(), paths, processor=tiny_processor(), num_candidates=2)  # without labels: by prediction
    assert found.num_images == 20
    refused("has no column 'label'", paths)


def test_torchvisions_own(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    write_images(tmp_path, {"cat": 10, "dog": 10})
    data = load_data(torchvision.datasets.ImageFolder(str(tmp_path)))
    assert data.class_names == ["cat", "dog"]
    assert load_data(torchvision.datasets.FakeData(20, (3, 8, 8), 2)).test[0]["image"].size == (8, 8)
    tensors = torchvision.datasets.FakeData(20, (3, 8, 8), 2, torchvision.transforms.ToTensor())
    refused(r"a torch.Tensor of shape \(3, 8, 8\) and torch.float32 .*leave ToTensor off", tensors)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (7, "is a int"),
        (iter([]), "is a list_iterator"),
        ([], "is empty"),
        ([{"img": 1}], r"keys \['img'\] and no 'image'"),
        (([1, 2], [0]), "2 images and 1 labels"),
        ([(np.zeros((8, 8, 3)), 0)], "of shape .* and float64"),
        ([(np.zeros((8, 8, 3), np.uint8), 0.5)], "neither all whole numbers nor all words"),
    ],
)
def test_what_is_no_data_set_is_named(given, match):
    refused(match, given)


def test_a_stream_has_no_splits(rows):
    refused("is a stream", rows.to_iterable_dataset())


# ---- Identity ----


def test_the_same_file_in_two_classes_or_splits(tmp_path, caplog):
    write_images(tmp_path / "train", {"cat": 6, "dog": 6})
    write_images(tmp_path / "test", {"cat": 2, "dog": 2}, start=100)
    (tmp_path / "train" / "dog" / "again.png").write_bytes((tmp_path / "train" / "cat" / "cat0.png").read_bytes())
    load_data(tmp_path)
    assert "1 images of .* are in two classes" in caplog.text or "are in two classes: the first is" in caplog.text
    refused("are in two classes: the first is .*cat0.png .* again as .*again.png", tmp_path, strict=True)
    (tmp_path / "train" / "dog" / "again.png").unlink()
    (tmp_path / "test" / "cat" / "x.png").write_bytes((tmp_path / "train" / "cat" / "cat1.png").read_bytes())
    refused("are in the training split and another: the first is .*cat1.png", tmp_path, strict=True)


def test_an_idx_twice_is_refused(rows):
    twice = concatenate_datasets([rows.remove_columns("group").add_column("idx", list(range(20)))] * 2)
    match = "has the idx 0 twice, and a decision about it would act on two images"
    with pytest.raises(DataError, match=match):
        scan(tiny_vit(), twice, processor=tiny_processor())
    with pytest.raises(DataError, match=r"idx \d+ twice"):
        scan(tiny_vit(), twice.to_iterable_dataset(), processor=tiny_processor())
    images = square_images(8)
    images.idx[1] = 0
    with pytest.raises(DataError, match=match):
        scan(tiny_vit(), images)
    with pytest.raises(DataError, match=match):
        SCORETrainer(tiny_vit(), SCOREConfig(score_lambda=0, report_to="none"), train_dataset=images)


def test_flat_masks_belong_to_one_split(image_folder, rows_of, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    PILImage.new("L", (8, 6), 255).save(masks / "x.png")
    train, test = rows_of("tr", columns="label"), rows_of("te", [0, 1], columns="label")
    train[0]["file_name"] = "x.png"
    folder = image_folder(train=train, validation=None, test=test)
    assert len(load_data(folder, masks=masks).regions("train")) == 1
    test[0]["file_name"] = "x.png"
    folder = image_folder(train=train, validation=None, test=test)
    for given in (masks, f"{masks}/{{stem}}.png"):
        refused(
            "x.png' has the name of a training image and of a test image; put the masks into folders",
            folder,
            masks=given,
        )
    (masks / "train").mkdir()
    (masks / "x.png").rename(masks / "train" / "x.png")
    data = load_data(folder, masks=masks)
    assert (len(data.regions("train")), len(data.regions("test"))) == (1, 0)


# ---- All of them ----


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_is_read_with_the_right_classes_or_refused(layout, tmp_path):
    given = layout.make(tmp_path)
    if layout.expected != "read":
        with pytest.raises(DataError) as caught:
            load_data(**given)
        assert layout.expected.removeprefix("refused: ") in str(caught.value) and "\n" not in str(caught.value)
        return
    data = load_data(**given)
    names = data.class_names
    assert len(names) == 2
    views = [view for view in (data.train, data.held_out, data.validation, data.test) if view is not None]
    found = {(names[item["label"]], is_cat(item["image"])) for view in views for item in view}
    # One name for reddish pictures and another for bluish ones; where names say more, the right one.
    assert len(found) == 2 and {cat for _, cat in found} == {True, False}
    assert all(cat == (name.strip().casefold() == "cat") for name, cat in found if "cat" in str(names).casefold())
    first_is_cat = dict(found)[names[0]]
    order = {"class names given in another order": False, "a model with the same classes": False}
    expected = next((first for name, first in order.items() if layout.name.startswith(name)), first_is_cat)
    assert first_is_cat == expected
