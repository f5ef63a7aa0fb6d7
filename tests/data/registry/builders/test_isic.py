"""Dermoscopy with patches: the declared recipe."""

import csv

import numpy as np
import pytest
from PIL import Image
from raw_folders import content, disc, write_csv, write_isic

from hf_score.data import build, load_data
from hf_score.data.registry.builders import ISIC
from hf_score.data.registry.builders.isic import insert_patch
from hf_score.data.registry.opening import counts_of
from hf_score.errors import DataError


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_isic(tmp_path_factory.mktemp("isic"))


def pixels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_half_of_the_benign_training_images_have_a_patch(raw):
    """14 clean benign, 6 patched and 12 malignant; a tenth and a fifth of each are set aside."""
    assert counts_of(ISIC(raw).plan()) == {
        "train": [7, 7, 9, 0],
        "validation": [1, 1, 1, 1],
        "test": [3, 3, 2, 2],
    }
    some = ISIC(raw, patch_share=0.8).plan()["train"]
    assert sum(row["spurious"] for row in some) == 11
    assert all(row["label"] == 0 for row in some if row["spurious"])


def test_evaluation_has_other_donors_and_no_natural_patch(raw):
    for seed in range(5):
        plan = ISIC(raw, seed=seed).plan()
        train = {row["donor"] or row["isic_id"] for row in plan["train"] if row["spurious"]}
        evaluation = [row for split in ("validation", "test") for row in plan[split]]
        assert not train & {row["donor"] for row in evaluation if row["spurious"]}
        assert not any(row["patch"] for row in evaluation)
        ids = [row["isic_id"] for row in plan["train"]], [row["isic_id"] for row in evaluation]
        assert not set(ids[0]) & set(ids[1])
        assert len(set(ids[0])) == len(ids[0])


def test_the_mask_is_what_has_changed_and_avoids_the_lesion(raw):
    data = load_data("isic_patches", data_dir=raw, verify=True)
    plan = ISIC(raw).plan()
    assert data.train.column_names == data.held_out.column_names == ["idx", "image", "label"]
    assert data.train_group_counts == [7, 7, 9, 0]
    inserted = 0
    for split, view in {"train": data.train, "validation": data.validation, "test": data.test}.items():
        for row in view:
            planned, region = plan[split][row["idx"]], data.regions(split)(row["idx"])
            assert (region is not None) == bool(planned["spurious"])
            original = Image.open(planned["path"]).resize((384, 256), Image.Resampling.LANCZOS)
            changed = (pixels(row["image"]) != pixels(original)).any(-1)
            if planned["donor"]:  # values of the images are below 120 or so, of the cut-outs perhaps the same
                inside = pixels(region) == 255
                lesion = pixels(Image.open(planned["lesion"]).resize((384, 256), Image.Resampling.NEAREST)) > 127
                assert not (changed & ~inside).any()
                assert changed[inside].mean() > 0.98
                assert inside.sum() > 100
                assert not (inside & lesion).any()
                inserted += 1
            else:
                assert not changed.any()
    assert inserted >= 8


def test_a_sticker_changes_exactly_its_mask():
    """A cut-out of a colour that is nowhere in the image."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 100, (40, 60, 3), dtype=np.uint8))
    cut_out = Image.new("RGBA", (120, 80))
    cut_out.paste((250, 240, 10, 255), (0, 0, 40, 40))
    lesion = np.full((40, 60), 255, np.uint8)
    lesion[:10, :10] = 0
    for seed in range(8):
        made, mask = insert_patch(image, cut_out, Image.fromarray(lesion), np.random.default_rng(seed))
        assert np.array_equal((pixels(made) != pixels(image)).any(-1), pixels(mask) == 255)
        assert not (pixels(mask) * pixels(lesion)).any()
        assert mask.getbbox() == (0, 0, 9, 9)  # in the one free corner; 0.45 of the 20 pixels that it would have
    free, _ = insert_patch(image, cut_out, None, np.random.default_rng(0))
    assert (pixels(free) == [250, 240, 10]).all(-1).sum() == 20 * 20


def test_same_seed_same_files(raw, tmp_path):
    first, again = (build("isic_patches", raw, tmp_path / name, image_size=48) for name in ("a", "b"))
    assert content(first) == content(again)
    other = build("isic_patches", raw, tmp_path / "c", image_size=48, seed=1)
    assert content(first)["test/metadata.csv"] != content(other)["test/metadata.csv"]
    data = load_data(first)
    assert min(data.train[0]["image"].size) == 48
    assert data.group_names == ["benign, no patch", "benign, patch", "malignant, no patch", "malignant, patch"]


def test_splits_can_be_given(raw, tmp_path):
    folder = write_isic(tmp_path / "isic")
    with open(folder / "labels.csv") as file:
        rows = list(csv.DictReader(file))
    splits = ["train", "validation", "test", "train"]
    write_csv(folder / "labels.csv", [{**row, "split": splits[i % 4]} for i, row in enumerate(rows)])
    plan = ISIC(folder).plan()
    for split, found in plan.items():
        assert {row["split"] for row in found} == {split}
    lesion = folder / "lesions" / "ISIC_0000030_segmentation.png"
    lesion.unlink()
    with pytest.raises(DataError, match=r"'ISIC_0000030' of split 'test' has no mask in lesions/"):
        load_data("isic_patches", data_dir=folder)


def test_lesions_that_leave_no_room_are_not_evaluated(tmp_path):
    folder = write_isic(tmp_path / "isic")
    for i in range(6, 12):
        disc(folder / "lesions" / f"ISIC_{i:07d}_segmentation.png", (-60, -60, 120, 100), size=(60, 40))
    for seed in range(3):
        plan = ISIC(folder, seed=seed).plan()
        assert len(plan["test"]) == 10
        large = {f"ISIC_{i:07d}" for i in range(6, 12)}
        assert not large & {row["isic_id"] for split in ("validation", "test") for row in plan[split]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: [{**rows[0], "melanoma": "maybe"}, *rows[1:]], "Line 2 of .* has the label 'maybe'"),
        (lambda rows: [{**rows[0], "image_id": "ISIC_9"}, *rows[1:]], "names 'ISIC_9', which is not in images/"),
        (lambda rows: [{"image_id": row["image_id"]} for row in rows], "it needs one of"),
    ],
)
def test_labels_that_are_wrong(tmp_path, change, match):
    folder = write_isic(tmp_path / "isic")
    with open(folder / "labels.csv") as file:
        rows = list(csv.DictReader(file))
    write_csv(folder / "labels.csv", change(rows))
    with pytest.raises(DataError, match=match):
        load_data("isic_patches", data_dir=folder)


def test_without_cut_outs(tmp_path):
    folder = write_isic(tmp_path / "isic")
    for path in [*(folder / "cutouts").glob("*"), *(folder / "patches").glob("*")]:
        path.unlink()
    with pytest.raises(DataError, match=r"No cut-outs in .* are left for evaluation"):
        load_data("isic_patches", data_dir=folder)


# ---- The patch on the other class ----


def test_patches_on_malignant_images(raw):
    """14 clean benign and 12 malignant; the 6 natural ones and 3 cut-outs are donors: 6, 1 and 2 of the splits."""
    for seed in range(4):
        plan = ISIC(raw, patched="malignant", donors_apart=True, seed=seed).plan()
        assert counts_of(plan) == {"train": [10, 0, 5, 4], "validation": [1] * 4, "test": [3, 3, 2, 2]}
        donors = [{row["donor"] for row in rows if row["spurious"]} for rows in plan.values()]
        assert sum(map(len, donors)) == len(set.union(*donors)) and set() not in donors
        every = [row for rows in plan.values() for row in rows]
        assert not any(row["patch"] for row in every)
        assert all(row["natural"] != row["spurious"] for row in every)
        images = [{row["isic_id"] for row in rows} for rows in plan.values()]
        assert sum(map(len, images)) == len(set.union(*images)) == 26


def test_the_melanoma_set_is_built(raw, tmp_path):
    folder = build("isic_melanoma_patch", raw, tmp_path / "a", image_size=0)
    assert content(folder) == content(build("isic_melanoma_patch", raw, tmp_path / "b", image_size=0))
    data = load_data(folder)
    assert data.train_group_counts == [10, 0, 5, 4]
    plan = ISIC(raw, patched="malignant", donors_apart=True).plan()["test"]
    for row in data.test:
        planned, region = plan[row["idx"]], data.regions("test")(row["idx"])
        changed = (pixels(row["image"]) != pixels(Image.open(planned["path"]))).any(-1)
        inside = np.zeros((40, 60), bool) if region is None else pixels(region) == 255
        assert not (changed & ~inside).any()
        assert inside.any() == bool(planned["spurious"])


def test_donors_apart_needs_two(tmp_path):
    folder = write_isic(tmp_path / "isic")
    for path in [*(folder / "patches").glob("*"), *sorted((folder / "cutouts").glob("*"))[1:]]:
        path.unlink()
    with pytest.raises(DataError, match="has one cut-out for evaluation"):
        ISIC(folder, donors_apart=True).plan()


# ---- A split file ----

LISTED = ("isic_id", "benign_malignant", "patches", "split")


def write_split(path, **changes):
    """The first 6 benign images have their patch, two malignant test images get one; 8 images are in no split."""
    rows = []
    for i in range(24):
        split = "train" if i < 4 or 6 <= i < 12 or 20 <= i < 22 else "test"
        malignant = i >= 20
        patched = i < 6 or i == 23
        rows.append((f"ISIC_{i:07d}", ("benign", "malignant")[malignant], int(patched), split))
    rows[0] = tuple(changes.get(name, value) for name, value in zip(LISTED, rows[0], strict=True))
    write_csv(path, [dict(zip(LISTED, row, strict=True)) for row in rows])
    return str(path)


def test_a_split_file_decides(raw, tmp_path):
    plan = ISIC(raw, split_file=write_split(tmp_path / "split.csv")).plan()
    assert counts_of(plan) == {"train": [6, 4, 2, 0], "test": [8, 2, 1, 1]}
    assert {row["isic_id"] for row in plan["train"] if row["spurious"]} == {f"ISIC_{i:07d}" for i in range(4)}
    pasted = [row for rows in plan.values() for row in rows if not row["natural"]]
    assert [row["isic_id"] for row in pasted] == ["ISIC_0000023"]
    assert pasted[0]["donor"] not in {row["isic_id"] for row in plan["train"]}
    folder = build(
        "isic_patches", raw, tmp_path / "out", image_size=0, check_counts=False, split_file=str(tmp_path / "split.csv")
    )
    data = load_data(folder)
    assert data.train_group_counts == [6, 4, 2, 0]
    for split, view in {"train": data.train, "test": data.test}.items():
        for row in view:
            planned, region = plan[split][row["idx"]], data.regions(split)(row["idx"])
            changed = (pixels(row["image"]) != pixels(Image.open(planned["path"]))).any(-1)
            assert changed.any() == (planned["isic_id"] == "ISIC_0000023")
            assert (region is not None) == bool(planned["spurious"])


def test_natural_patches_without_masks_have_no_region(tmp_path):
    folder = write_isic(tmp_path / "isic")
    for path in (folder / "patches").glob("*"):
        path.unlink()
    (folder / "labels.csv").unlink()  # not read
    builder = ISIC(folder, split_file=write_split(tmp_path / "split.csv"))
    plan = builder.plan()
    assert counts_of(plan)["train"] == [6, 4, 2, 0]
    assert builder.example(next(row for row in plan["train"] if row["spurious"]))["mask"] is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"isic_id": "ISIC_9"}, "Line 2 of .* names 'ISIC_9', which is not in images/"),
        ({"isic_id": "ISIC_0000001"}, "Line 3 of .* names 'ISIC_0000001', which is there twice"),
        ({"benign_malignant": "unsure"}, "has the values .*'unsure'"),
        ({"split": "elsewhere"}, "has the values .*'elsewhere'"),
    ],
)
def test_split_files_that_are_wrong(raw, tmp_path, changes, match):
    with pytest.raises(DataError, match=match):
        ISIC(raw, split_file=write_split(tmp_path / "split.csv", **changes)).plan()


def test_split_files_that_lack_something(raw, tmp_path):
    with pytest.raises(DataError, match=r"There is no split file 'nowhere.csv'"):
        ISIC(raw, split_file="nowhere.csv").plan()
    write_csv(tmp_path / "a.csv", [{"isic_id": "ISIC_0000000", "split": "train"}])
    with pytest.raises(DataError, match="has no column 'benign_malignant'"):
        ISIC(raw, split_file=str(tmp_path / "a.csv")).plan()
    write_csv(tmp_path / "b.csv", [dict(zip(LISTED, ("ISIC_0000000", "benign", 1, "train"), strict=True))])
    with pytest.raises(DataError, match="has no rows of the split test"):
        ISIC(raw, split_file=str(tmp_path / "b.csv")).plan()
