"""Masks of the spurious region: from a folder, a pattern, or a column, matched to their images."""

import io

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from transformers import ViTImageProcessor

from hf_score.data import load_data
from hf_score.errors import DataError


def write_mask(path, corner, size=(8, 6)):
    """White in one pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", size)
    mask.putpixel(corner, 255)
    mask.save(path)


def white(mask):
    return [] if mask is None else [(int(x), int(y)) for y, x in np.argwhere(np.asarray(mask) == 255)]


def test_folder_matches_by_name(image_folder, tmp_path):
    masks = tmp_path / "masks"
    write_mask(masks / "train" / "tr000_patch.png", (1, 1))
    write_mask(masks / "train" / "tr002.png", (2, 2))
    write_mask(masks / "train" / "tr003_lesion.png", (3, 3))  # of something else
    data = load_data(image_folder(), masks=masks)
    assert data.has_regions
    assert [white(data.regions("train")(i)) for i in range(4)] == [[(1, 1)], [], [(2, 2)], []]
    assert data.regions("train")(0).mode == "L"
    assert white(data.regions("held_out")(2)) == [(2, 2)]  # the same ids as train
    assert len(data.regions("test")) == 0


def test_masks_as_a_model_sees_them_are_in_the_order_asked_for(image_folder, tmp_path):
    write_mask(tmp_path / "train" / "tr000.png", (1, 1))
    write_mask(tmp_path / "train" / "tr002.png", (6, 4))
    seen = (
        load_data(image_folder(), masks=tmp_path)
        .regions("train")
        .preprocessed(
            [2, 1, 0], ViTImageProcessor(size={"height": 12, "width": 16}, resample=Image.Resampling.NEAREST)
        )
    )
    assert seen[1] is None
    assert [np.argwhere(seen[i]).tolist() for i in (0, 2)] == [
        [[8, 12], [8, 13], [9, 12], [9, 13]],
        [[2, 2], [2, 3], [3, 2], [3, 3]],
    ]


def test_a_mask_belongs_to_the_image_of_its_own_name(image_folder, rows_of, tmp_path):
    """With counterfactual pairs `x` and `x_patch`, the mask `x_patch.png` is that of the second."""
    rows = rows_of("te", [0, 1])
    rows[0]["file_name"], rows[1]["file_name"] = "x.png", "x_patch.png"
    write_mask(tmp_path / "masks" / "test" / "x_patch.png", (1, 1))
    write_mask(tmp_path / "masks" / "train" / "tr000.png", (1, 1))
    regions = load_data(image_folder(test=rows), masks=tmp_path / "masks").regions("test")
    assert regions(0) is None
    assert white(regions(1)) == [(1, 1)]


def test_pattern_with_metadata_columns(image_folder, rows_of, tmp_path):
    rows = [{**row, "bird": f"b{i // 2}"} for i, row in enumerate(rows_of("tr"))]
    write_mask(tmp_path / "m" / "train" / "b0_bird.png", (1, 1))
    pattern = f"{tmp_path}/m/{{split}}/{{bird}}_bird.png"
    folder = image_folder(train=rows, validation=None, test=[{**row, "bird": "b9"} for row in rows_of("te", [0, 1])])
    data = load_data(folder, masks=pattern)
    assert [white(data.regions("train")(i)) for i in range(3)] == [[(1, 1)], [(1, 1)], []]
    inverted = load_data(folder, masks=pattern, invert_masks=True).regions("train")(0)
    assert len(white(inverted)) == 8 * 6 - 1
    with pytest.raises(DataError, match=r"mask pattern .* cannot be filled in; .*'bird'"):
        load_data(folder, masks=f"{tmp_path}/m/{{fish}}.png")


def test_column_of_file_names(image_folder, rows_of):
    rows = [{**row, "mask": "sub/m.mask" if i == 1 else ""} for i, row in enumerate(rows_of("tr"))]
    folder = image_folder(train=rows, validation=None, test=[{**row, "mask": ""} for row in rows_of("te", [0, 1])])
    with pytest.raises(DataError, match=r"'.*sub/m.mask' named in column 'mask' does not exist"):
        load_data(folder, masks="mask")
    write_mask(folder / "train" / "sub" / "m.png", (1, 2))
    (folder / "train" / "sub" / "m.png").rename(folder / "train" / "sub" / "m.mask")
    data = load_data(folder, masks="mask")
    assert white(data.regions("train")(1)) == [(1, 2)]
    assert len(data.regions("train")) == 1


def test_no_mask_belongs_to_a_training_image(image_folder, tmp_path):
    write_mask(tmp_path / "masks" / "train" / "other.png", (1, 1))
    with pytest.raises(DataError, match=r"None of the masks in .* belongs to a training image"):
        load_data(image_folder(), masks=tmp_path / "masks")


def test_masks_that_are_nowhere(image_folder):
    with pytest.raises(DataError, match="'nowhere' are neither a column of the data set nor a folder"):
        load_data(image_folder(), masks="nowhere")


def test_mask_of_another_size(image_folder, tmp_path):
    write_mask(tmp_path / "masks" / "train" / "tr000.png", (1, 1), size=(8, 7))
    with pytest.raises(DataError, match=r"tr000.png has the size \(8, 7\), the image \(8, 6\)"):
        load_data(image_folder(), masks=tmp_path / "masks")


def test_broken_mask(image_folder, tmp_path):
    (tmp_path / "masks" / "train").mkdir(parents=True)
    (tmp_path / "masks" / "train" / "tr000.png").write_text("no image")
    with pytest.raises(DataError, match=r"Cannot read the mask .*tr000.png"):
        load_data(image_folder(), masks=tmp_path / "masks")


def test_column_of_images(tmp_path):
    write_mask(tmp_path / "m.png", (4, 4))
    mask = {"bytes": (tmp_path / "m.png").read_bytes(), "path": None}
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, format="PNG")
    features = Features({"image": ImageFeature(), "label": Value("int64"), "mask": ImageFeature()})
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        rows = [
            {"image": {"bytes": buffer.getvalue(), "path": None}, "label": i % 2, "mask": mask if i == 2 else None}
            for i in range(4)
        ]
        Dataset.from_list(rows, features=features).to_parquet(str(tmp_path / "data" / f"{split}.parquet"))
    regions = load_data(tmp_path / "data", masks="mask").regions("train")
    assert [white(regions(i)) for i in range(4)] == [[], [], [(4, 4)], []]
