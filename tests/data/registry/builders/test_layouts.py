"""Public sets in their authors' layouts, with tiny drawn images."""

import pytest
from PIL import Image
from raw_folders import noise, write_csv

from hf_score.data import load_data
from hf_score.data.registry.builders import BFFHQ, NICO, CheXpert, MetaShift, Spawrious, UrbanCars
from hf_score.data.registry.opening import counts_of
from hf_score.data.registry.specs import find_dataset
from hf_score.errors import DataError


def blank(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def write_urbancars(folder):
    """As many images in a folder as its number says: 1 to 8 in training, all 2 elsewhere."""
    parts = {"bg-0.95_co_occur_obj-0.95/train": None, "bg-0.5_co_occur_obj-0.5/val": 2}
    for part, count in {**parts, "bg-0.5_co_occur_obj-0.5/test": 2}.items():
        for group in range(8):
            car, place, thing = (("urban", "country")[group >> bit & 1] for bit in (2, 1, 0))
            for i in range(count or group + 1):
                noise(
                    folder / part / f"obj-{car}_bg-{place}_co_occur_obj-{thing}" / f"{i}.jpg", (8, 8), 10 * group + i
                )
    return folder


@pytest.mark.parametrize("inner", ["", "urbancars_images"])
def test_urbancars(tmp_path, inner):
    write_urbancars(tmp_path / inner)
    data = load_data("urbancars", data_dir=tmp_path)
    assert data.train_group_counts == [1, 2, 3, 4, 5, 6, 7, 8]
    assert data.test["group"][:] == [group for group in range(8) for _ in range(2)]
    assert data.group_names[5] == "country, urban, country"
    assert data.cues == ("background", "object")
    for path in (tmp_path / inner).rglob("test/*country_co_occur_obj-urban/*"):
        path.unlink()
    with pytest.raises(DataError, match=r"no images in .*obj-urban_bg-country_co_occur_obj-urban"):
        UrbanCars(tmp_path).plan()


def test_metashift(tmp_path):
    folder = tmp_path / "MetaShift-Cat-Dog-indoor-outdoor"
    sizes = {"train/cat/cat(indoor)": 40, "train/dog/dog(outdoor)": 20, "test/cat/cat(outdoor)": 12}
    for part, count in {**sizes, "test/dog/dog(indoor)": 8}.items():
        for i in range(count):
            blank(folder / part / f"{i}.jpg")
    plan = MetaShift(tmp_path).plan()
    assert counts_of(plan) == {"train": [13, 5, 8, 26], "validation": [2, 1, 1, 4], "test": [5, 2, 3, 10]}
    assert plan == MetaShift(folder).plan() or len(plan["test"]) == 20  # names begin elsewhere
    assert counts_of(MetaShift(folder).plan()) == counts_of(plan)
    assert find_dataset("metashift").group_names == ["dog, outdoor", "dog, indoor", "cat, outdoor", "cat, indoor"]
    names = [row["name"] for rows in plan.values() for row in rows]
    assert len(set(names)) == 80


@pytest.mark.parametrize("train", ["0.5pct", "train"])
def test_bffhq(tmp_path, train):
    for label in "01":
        for i in range(5):
            blank(tmp_path / train / "align" / label / f"{i}_{label}_{label}.png")
        blank(tmp_path / train / "conflict" / label / f"7_{label}_{1 - int(label)}.png")
    for split in ("valid", "test"):
        for name in ("1_0_0", "2_0_1", "3_1_0", "4_1_1"):
            blank(tmp_path / split / f"{name}.png")
    assert counts_of(BFFHQ(tmp_path).plan()) == {"train": [5, 1, 1, 5], "validation": [1] * 4, "test": [1] * 4}
    blank(tmp_path / "test" / "5_2_1.png")
    with pytest.raises(DataError, match=r"5_2_1.png' is not called <number>_<age>_<gender>"):
        BFFHQ(tmp_path).plan()
    with pytest.raises(DataError, match=r"has neither '0.5pct/' nor 'train/'"):
        BFFHQ(tmp_path / "test").plan()


def test_spawrious(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_score.data.registry.builders.layouts.ENVIRONMENT", 10)
    monkeypatch.setattr("hf_score.data.registry.builders.layouts.OWN", (9, 7))
    for environment in "01":
        for place in ("beach", "desert", "dirt", "jungle", "snow"):
            for breed in Spawrious.class_names:
                for i in range(10):
                    blank(tmp_path / "spawrious224" / environment / place / breed / f"{i}.png")
    counts = counts_of(Spawrious(tmp_path).plan(), num_attributes=6, num_classes=4)
    places = ("beach", "desert", "dirt", "jungle", "mountain", "snow")
    own = {"bulldog": ("desert", "dirt"), "corgi": ("snow", "jungle"), "dachshund": ("jungle", "snow")}
    for label, breed in enumerate(Spawrious.class_names):
        train, test = own.get(breed, ("dirt", "desert"))
        of_breed = {split: dict(zip(places, found[6 * label :], strict=False)) for split, found in counts.items()}
        assert {place: n for place, n in of_breed["train"].items() if n} == {"beach": 4, train: 16}
        assert {place: n for place, n in of_breed["test"].items() if n} == {test: 20}
    with pytest.raises(DataError, match="has 4 images instead of 508"):
        load_data("spawrious", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"no images in .*mountain"):
        Spawrious(tmp_path, challenge="o2o_medium").plan()


def test_nico(tmp_path):
    for k, context in enumerate(NICO.contexts):
        for name in ("wolf", "bear") if context != "water" else ("bear",):
            for i in range(8):
                noise(tmp_path / "track_1/public_dg_0416/train" / context / name / f"{i}.jpg", (8, 8), 10 * k + i)
    builder = NICO(tmp_path)
    assert builder.classes() == ("bear", "wolf")
    counts = counts_of(builder.plan(), num_attributes=6)
    assert counts["test"] == [2] * 11 + [0] and counts["train"] == [5] * 11 + [0]
    data = load_data("nico", data_dir=tmp_path, verify=False)
    assert data.class_names == ["bear", "wolf"]
    assert data.group_names[:2] == ["bear, autumn", "bear, dim"]
    assert data.train_group_counts == counts["train"]
    with pytest.raises(DataError, match="has no folders of classes in autumn, dim"):
        NICO(tmp_path / "track_1/public_dg_0416").plan()  # not the folder of the contexts


def write_chexpert(folder):
    rows = []
    for i in range(40):
        path = f"train/patient{i // 2:05d}/study1/view{i % 2 + 1}_frontal.jpg"
        noise(folder / path, (8, 8), i)
        values = {"Pneumothorax": ("1.0", "0.0", "", "-1.0")[i % 4], "Support Devices": ("", "1.0")[i // 4 % 2]}
        view = "Frontal" if i != 1 else "Lateral"
        rows.append({"Path": f"CheXpert-v1.0-small/{path}", "Frontal/Lateral": view, **values})
    write_csv(folder / "train.csv", rows)
    return folder, rows


def test_chexpert(tmp_path):
    folder, rows = write_chexpert(tmp_path)
    plan = CheXpert(folder).plan()
    kept = [row for found in plan.values() for row in found]
    assert len(kept) == 29  # 10 uncertain, one lateral
    patients = [{row["patient"] for row in found} for found in plan.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 20
    assert [len(found) for found in patients] == [13, 2, 5]
    by_path = {row["Path"].split("/", 1)[1]: row for row in rows}
    for row in kept:
        values = by_path[row["name"]]
        assert row["label"] == (values["Pneumothorax"] == "1.0")
        assert row["spurious"] == (values["Support Devices"] == "1.0")
    swapped = CheXpert(folder, finding="Support Devices", attribute="Pneumothorax").plan()
    assert sum(row["label"] for found in swapped.values() for row in found) == sum(row["spurious"] for row in kept)
    with pytest.raises(DataError, match="has no column 'Edema'"):
        CheXpert(folder, finding="Edema").plan()
    write_csv(folder / "train.csv", [{**rows[0], "Pneumothorax": "2"}])
    with pytest.raises(DataError, match=r"Line 2 of .* has the values \['2', ''\]"):
        CheXpert(folder).plan()
    write_csv(folder / "train.csv", [{**rows[0], "Path": "train/../../secret.jpg"}])
    with pytest.raises(DataError, match="not in train/"):
        CheXpert(folder).plan()
