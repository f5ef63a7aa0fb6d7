"""Waterbirds: the published layout with its counts, both definitions of the 100 % set, and our own generator."""

import csv
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from raw_folders import OFFICIAL_95, content, write_csv, write_cub, write_waterbirds

from hf_score.data import build, load_data
from hf_score.data.registry.builders import Waterbirds
from hf_score.data.registry.builders.waterbirds import compose, draw
from hf_score.data.registry.opening import counts_of
from hf_score.errors import DataError

#: One species of each kind: of 40 training birds 8 go to validation, of 20 four.
SPECIES = {"009.Brewer_Blackbird": (40, 10), "001.Black_footed_Albatross": (20, 6)}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_waterbirds(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_cub(tmp_path_factory.mktemp("raw"), SPECIES)


@pytest.fixture(scope="module")
def built(raw, tmp_path_factory):
    return build("waterbirds_95", raw, tmp_path_factory.mktemp("built") / "wb", check_counts=False)


def test_the_official_counts_pass(published):
    data = load_data("waterbirds_95", data_dir=published, verify=False)
    assert data.train_group_counts == [3498, 184, 56, 1057]
    assert len(data.train) + len(data.held_out) == 4795
    assert np.bincount(data.validation["group"]).tolist() == [467, 466, 133, 133]
    assert np.bincount(data.test["group"]).tolist() == [2255, 2255, 642, 642]
    assert data.group_names == ["landbird, land", "landbird, water", "waterbird, land", "waterbird, water"]
    assert data.train.column_names == data.held_out.column_names == ["idx", "image", "label"]
    # The region is what is outside of the bird, a disc of 4 pixels across.
    region = np.asarray(data.regions("train")(0))
    assert region[0, 0] == 255 and region[4, 4] == 0


def test_one_changed_row_is_named(published, tmp_path):
    shutil.copytree(published, tmp_path / "copy")
    with open(published / "metadata.csv") as file:
        rows = list(csv.DictReader(file))
    changed = next(row for row in rows if (row["split"], row["y"], row["place"]) == ("0", "0", "1"))
    changed["place"] = "0"
    write_csv(tmp_path / "copy" / "metadata.csv", rows)
    with pytest.raises(DataError) as caught:
        load_data("waterbirds_95", data_dir=tmp_path / "copy")
    assert str(caught.value).startswith(
        "Group 'landbird, land' of split 'train' of 'waterbirds_95' has 3499 images instead of 3498; "
    )


def test_100_by_dropping(published):
    data = load_data("waterbirds_100_dropped", data_dir=published, verify=False)
    assert data.train_group_counts == [3498, 0, 0, 1057]
    assert np.bincount(data.test["group"]).tolist() == [2255, 2255, 642, 642]


def test_100_regenerated(tmp_path):
    counts = {"train": (3694, 0, 0, 1101), "validation": (461, 460, 139, 139), "test": OFFICIAL_95["test"]}
    folder = write_waterbirds(tmp_path, counts, masks=False)
    data = load_data("waterbirds_100_regenerated", data_dir=folder, verify=False)
    assert data.train_group_counts == [3694, 0, 0, 1101]
    assert not data.has_regions  # CUB's segmentations may be absent
    with pytest.raises(DataError, match=r"'landbird, land' .*'waterbirds_95' has 3694 images instead of 3498"):
        load_data("waterbirds_95", data_dir=folder)


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("y", "2", "Line 2 of .* y 2, place"),
        ("place", "", "Line 2 of .* lacks"),
        ("img_filename", "../x.jpg", "outside"),
    ],
)
def test_metadata_that_is_wrong(tmp_path, column, value, match):
    folder = write_waterbirds(tmp_path, dict.fromkeys(OFFICIAL_95, (1, 1, 1, 1)))
    with open(folder / "metadata.csv") as file:
        rows = list(csv.DictReader(file))
    rows[0][column] = value
    write_csv(folder / "metadata.csv", rows)
    with pytest.raises(DataError, match=match):
        load_data("waterbirds_95", data_dir=folder)


def test_a_folder_that_is_neither(tmp_path):
    with pytest.raises(DataError, match=r"neither a metadata.csv .* nor CUB_200_2011/images.txt"):
        load_data("waterbirds_95", data_dir=tmp_path)
    with pytest.raises(DataError, match="There is no folder"):
        load_data("waterbirds_95", data_dir=tmp_path / "none")


def test_a_draw_on_all_of_cub_has_the_official_counts():
    """CUB has 4615 + 4510 land birds and 1379 + 1284 water birds."""
    cub = {(0, 0): 4615, (0, 2): 4510, (1, 0): 1379, (1, 2): 1284}
    birds = [{"label": label, "split": split} for (label, split), count in cub.items() for _ in range(count)]
    pictures = [[(f"/{kind}/{i}.jpg", "") for i in range(8000)] for kind in ("land", "water")]

    def counts(correlation):
        rows = draw(birds, pictures, correlation, np.random.default_rng(0))
        assert len({row["place_filename"] for row in rows}) == 11788
        return counts_of({name: [r for r in rows if r["split"] == i] for i, name in enumerate(OFFICIAL_95)})

    assert counts(0.95) == {split: list(groups) for split, groups in OFFICIAL_95.items()}
    full = counts(1.0)
    assert (full["train"], full["test"]) == ([3694, 0, 0, 1101], [2255, 2255, 642, 642])


def test_the_generator_draws_by_seed(raw):
    first, again, other = (Waterbirds(raw, seed=seed).plan() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert counts_of(first) == counts_of(other)
    for rows in first.values():
        for row in rows:
            water = row["place_filename"].startswith(("/o/ocean/", "/l/lake/natural/"))
            assert row["spurious"] == water
            assert row["label"] == ("Albatross" in row["img_filename"])


def test_the_bird_stays_and_the_background_is_fitted():
    rng = np.random.default_rng(0)
    bird = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    mask = np.zeros((30, 40), np.uint8)
    mask[10:20, 10:30], mask[20, 10:30] = 255, 51
    place = Image.new("RGB", (300, 100), (0, 0, 200))
    place.paste((200, 0, 0), (0, 0, 60, 100))  # cropped away: 40 : 30 of a height of 100 is a width of 133
    place.paste((0, 200, 0), (140, 40, 160, 60))  # the centre stays the centre
    made = np.asarray(compose(bird, Image.fromarray(mask), place)).astype(int)
    original = np.asarray(bird).astype(int)
    assert np.array_equal(made[10:20, 10:30], original[10:20, 10:30])
    assert made[2:8, :, 0].max() < 10 and made[2:8, :, 2].min() > 190
    soft = original[20, 10:30] * 0.2 + np.array([0, 0, 200]) * 0.8
    assert np.abs(made[20, 22:30] - soft[12:]).max() <= 2  # segmentations have soft edges


def test_built_folder(raw, built, tmp_path):
    data = load_data(built, with_train_groups=True)
    assert data.name == "waterbirds_95"
    assert data.class_names == ["landbird", "waterbird"]
    assert data.train_group_counts == [30, 2, 1, 15]
    assert data.train.column_names == ["idx", "image", "label"]
    with open(built / "train" / "metadata.csv") as file:
        rows = list(csv.DictReader(file))
    for row in data.train:
        source = rows[row["idx"]]
        assert row["label"] == int(source["label"])
        assert data.train_groups[row["idx"]] == 2 * int(source["label"]) + int(source["spurious"])
        pixels, region = np.asarray(row["image"]).astype(int), np.asarray(data.regions("train")(row["idx"]))
        greys = {"/b/bamboo_forest": 40, "/f/forest/broadleaf": 80, "/o/ocean": 160, "/l/lake/natural": 220}
        nearest = min(greys, key=lambda place: abs(greys[place] - pixels[:3, :6].mean()))
        assert source["place_filename"].startswith(nearest)
        assert region[0, 0] == 255 and region[15, 20] == 0
    # The same from the raw folder, with no folder in between.
    direct = load_data("waterbirds_95", data_dir=raw, check_counts=False)
    assert direct.fingerprint == data.fingerprint
    assert direct.test["group"][:] == data.test["group"][:]
    # Building again gives the same files, another seed others.
    again = build("waterbirds_95", raw, tmp_path / "again", check_counts=False)
    assert content(again) == content(built)
    other = build("waterbirds_95", raw, tmp_path / "other", check_counts=False, seed=1)
    assert content(other) != content(built)


def test_built_folder_is_of_the_published_layout_too(built, tmp_path):
    shutil.copytree(built, tmp_path / "copy")
    (tmp_path / "copy" / "build.json").unlink()
    published = load_data("waterbirds_95", data_dir=tmp_path / "copy", check_counts=False)
    assert published.fingerprint == load_data(built).fingerprint
    assert published.train_group_counts == [30, 2, 1, 15]


def test_a_built_folder_that_has_lost_a_row_is_refused(built, tmp_path):
    shutil.copytree(built, tmp_path / "copy")
    metadata = tmp_path / "copy" / "test" / "metadata.csv"
    metadata.write_text("\n".join(metadata.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=r"of split 'test' of .* has \d images instead of \d"):
        load_data(tmp_path / "copy")


def test_build_checks_before_it_makes_anything(raw, tmp_path):
    with pytest.raises(DataError, match=r"'landbird, land' of split 'train' .* has 30 images instead of 3498"):
        build("waterbirds_95", raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_build_leaves_nothing_half_made(raw, tmp_path):
    shutil.copytree(raw, tmp_path / "raw")
    next((tmp_path / "raw" / "CUB_200_2011" / "images").rglob("*.jpg")).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"Cannot read the image .*jpg"):
        build("waterbirds_95", tmp_path / "raw", tmp_path / "out" / "wb", check_counts=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_build_replaces_nothing(built, raw):
    before = content(built)
    with pytest.raises(DataError, match="There is something at"):
        build("waterbirds_95", raw, built, check_counts=False)
    assert content(built) == before


def test_too_few_places(tmp_path):
    folder = write_cub(tmp_path, SPECIES, places=5)
    with pytest.raises(DataError, match=r"birds go on pictures of bamboo_forest and forest/broadleaf, but .* only 10"):
        load_data("waterbirds_95", data_dir=folder, check_counts=False)


def test_files_that_change_are_read_again(raw, tmp_path):
    """The cache of `datasets` goes by the files, not by the folder's name."""
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    first = load_data("waterbirds_95", data_dir=folder, check_counts=False)
    for path in (folder / "places365").rglob("*.jpg"):
        Image.new("RGB", (64, 50), (0, 255, 0)).save(path)
    second = load_data("waterbirds_95", data_dir=folder, check_counts=False)
    assert first.fingerprint != second.fingerprint
    assert np.asarray(second.train[0]["image"])[0, 0].tolist()[1] > 240


def test_images_are_jpeg_as_published(built):
    name = next((built / "train" / "images").rglob("*.jpg"))
    assert Image.open(io.BytesIO(name.read_bytes())).format == "JPEG"
