"""Class folders with a textured square or a watermark: the declared recipe."""

import shutil

import numpy as np
import pytest
from PIL import Image
from raw_folders import content, noise

from hf_score.cli import main
from hf_score.data import build, load_data
from hf_score.data.registry.builders import Mark
from hf_score.data.registry.builders.mark import GREYS, texture, watermark
from hf_score.data.registry.opening import counts_of
from hf_score.errors import DataError


def write_classes(folder, names=("cat", "dog", "owl"), count=20):
    for k, name in enumerate(names):
        for i in range(count):
            noise(folder / name / f"{i:03d}.png", size=(40, 30), seed=100 * k + i, high=50)  # darker than any mark
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("classes"))


def counts(plan, classes=3):
    return counts_of(plan, num_classes=classes)


def test_a_fifth_of_one_class_has_the_mark(raw):
    """20 images of each class: 14, 2 and 4, and 3 of 14 (20 % are 2.8)."""
    assert counts(Mark(raw).plan()) == {
        "train": [11, 3, 14, 0, 14, 0],
        "validation": [2] * 6,
        "test": [4] * 6,
    }
    some = Mark(raw, marked_class="owl", share=0.5, share_elsewhere=0.1)
    assert counts(some.plan())["train"] == [13, 1, 13, 1, 7, 7]
    assert Mark(raw).classes() == ("cat", "dog", "owl")


@pytest.mark.parametrize("name", ["mark", "watermark"])
def test_the_mask_is_what_has_changed(raw, tmp_path, name):
    folder = build(name, raw, tmp_path / "a", seed=1)
    assert content(folder) == content(build(name, raw, tmp_path / "b", seed=1))
    data = load_data(folder)
    assert data.class_names == ["cat", "dog", "owl"]
    assert data.train_group_counts == [11, 3, 14, 0, 14, 0]
    places, plan = set(), Mark(raw, seed=1).plan()
    for split, view in {"train": data.train, "validation": data.validation, "test": data.test}.items():
        for row in view:
            planned, region = plan[split][row["idx"]], data.regions(split)(row["idx"])
            assert (region is not None) == bool(planned["spurious"])
            changed = (np.asarray(row["image"]) != np.asarray(Image.open(planned["path"]))).any(-1)
            assert np.array_equal(changed, np.zeros((30, 40), bool) if region is None else np.asarray(region) == 255)
            if region is not None:
                places.add(region.getbbox()[:2])
    assert (len(places) == 1) == (name == "watermark")
    if name == "mark":
        assert len(places) > 10  # of 15: anywhere


def test_sources_are_in_one_split_and_test_shows_each_in_both_ways(raw):
    plan = Mark(raw).plan()
    sources = [{row["source"] for row in rows} for rows in plan.values()]
    assert sum(map(len, sources)) == len(set.union(*sources)) == 60
    assert sorted((row["source"], row["spurious"]) for row in plan["test"]) == sorted(
        (source, spurious) for source in sources[2] for spurious in (0, 1)
    )


def test_the_texture_is_one_grey_pattern():
    square = np.asarray(texture(16, 0))
    assert square.shape == (16, 16) and GREYS[0] <= square.min() < square.max() < GREYS[1]
    assert square.std() > 20
    assert np.array_equal(square[::2, ::2], square[1::2, 1::2])  # 8 cells, 2 pixels each
    assert not np.array_equal(square, texture(16, 1))


def test_the_watermark_lets_the_image_through():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 200, (100, 200, 3), dtype=np.uint8))
    made, mask = watermark(image, "SAMPLE")
    inside, before = np.asarray(mask) == 255, np.asarray(image).astype(float)
    assert 0.02 < inside.mean() < 0.4
    assert np.abs(np.asarray(made)[inside] - (before + (255 - before) * 160 / 255)[inside]).max() <= 1
    left, top, right, bottom = mask.getbbox()
    assert right - left > 140 and abs((left + right) / 2 - 100) < 10 and abs((top + bottom) / 2 - 50) < 15
    with pytest.raises(DataError, match="draws nothing"):
        watermark(image, "")


def test_given_splits_and_turned_images(tmp_path):
    for split in ("train", "val", "test"):
        write_classes(tmp_path / "raw" / split, names=("2", "10"), count=5)
    turned = Image.open(tmp_path / "raw" / "test" / "2" / "000.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "raw" / "test" / "2" / "000.png", exif=exif)
    data = load_data(build("mark", tmp_path / "raw", tmp_path / "out"))
    assert data.class_names == ["2", "10"]
    assert data.train_group_counts == [4, 1, 5, 0]
    assert data.test[0]["image"].size == data.test[1]["image"].size == (30, 40)  # both upright
    shutil.rmtree(tmp_path / "raw" / "val")
    assert set(Mark(tmp_path / "raw").plan()) == {"train", "test"}
    shutil.rmtree(tmp_path / "raw" / "test")
    with pytest.raises(DataError, match="no folder 'test/'"):
        Mark(tmp_path / "raw").plan()


def test_what_is_wrong(raw, tmp_path, capsys):
    for options, match in (
        ({"share": 2.0}, "share is 2.0"),
        ({"size": 0.0}, "size is 0.0"),
        ({"marked_class": "cow"}, "has no class 'cow' to mark; it has"),
        ({"test_share": 0.0}, "has no image for the test split"),
    ):
        with pytest.raises(DataError, match=match):
            Mark(raw, **options).plan()
    folder = write_classes(tmp_path / "one", names=("cat",))
    with pytest.raises(DataError, match="has 1 class folders"):
        Mark(folder).plan()
    write_classes(folder, names=("dog",))
    noise(folder / "cat" / "000.jpg")
    with pytest.raises(DataError, match=r"Two images of class 'cat' in .* are called '000'"):
        Mark(folder).plan()
    assert main(["build", "mark", "--source", str(raw), "--output_dir", str(tmp_path / "out"), "--share", "3"]) == 2
    assert "share is 3.0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
