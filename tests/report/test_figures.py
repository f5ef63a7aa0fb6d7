import numpy as np
import pytest
from PIL import Image

from hf_score.detection import Candidates
from hf_score.errors import HFScoreError
from hf_score.report import candidate_sheet, contact_sheet, heatmap_pairs, overlay
from hf_score.report.figures import KEPT

RED, GREY = (200, 30, 30), (90, 90, 90)


def candidates(n=3, size=28):
    images = np.full((n, size, size, 3), 90, dtype=np.uint8)
    images[:, :8, :8] = RED
    masks = np.zeros((n, size, size), dtype=bool)
    masks[:, :8, :8] = True
    return images, masks.astype(np.float32), masks


def colours(image: Image.Image) -> dict:
    return {colour: count for count, colour in image.getcolors(1 << 20)}


def test_contact_sheet_shows_original_and_masked_enlarged_without_smoothing():
    images, _, masks = candidates(2)
    sheet = contact_sheet(images, None, masks, captions=["#1", "#2"], title="t", fill=(1, 2, 3))
    seen = colours(sheet)
    # 28 px become 112 px: a factor of 4, so each red square of 8 x 8 becomes 32 x 32, in the original and masked.
    assert seen[RED] == 2 * 2 * 32**2
    assert seen[GREY] == 2 * (112**2 - 32**2)
    assert seen[1, 2, 3] == 2 * (112**2 - 32**2)


def test_contact_sheet_frames_what_was_kept():
    images, heatmaps, masks = candidates(3)
    arguments = {"captions": ["a", "b", "c"], "title": "t"}
    undecided = contact_sheet(images, heatmaps, masks, **arguments)
    one = contact_sheet(images, heatmaps, masks, kept=[True, None, None], **arguments)
    two = contact_sheet(images, heatmaps, masks, kept=np.array([True, False, True]), **arguments)
    assert KEPT not in colours(undecided)
    assert 0 < colours(one)[KEPT] < colours(two)[KEPT]


def test_contact_sheet_shrinks_large_images_and_keeps_to_its_width():
    images, heatmaps, masks = candidates(7, size=300)
    sheet = contact_sheet(images, heatmaps, masks, captions=[""] * 7, title="t")
    assert sheet.width <= 1440
    assert sheet.height < 3 * 200 + 150
    assert contact_sheet(images, None, masks, captions=[""] * 7, title="t", columns=1).height > 7 * 144


def test_contact_sheet_of_nothing_says_so():
    images, heatmaps, masks = candidates(0)
    assert contact_sheet(images, heatmaps, masks, captions=[], title="class without candidates").width > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captions": ["one"]}, "3 images but 1 captions"),
        ({"kept": [True]}, "3 images but 1 kept"),
        ({"masks": np.zeros((3, 5, 5), bool)}, "masks has shape"),
        ({"heatmaps": np.zeros((3, 5, 5))}, "heatmaps has shape"),
        ({"images": np.zeros((3, 28, 28, 3), np.float32)}, "images is float32"),
    ],
)
def test_contact_sheet_refuses_what_does_not_fit(change, message):
    images, heatmaps, masks = candidates(3)
    arguments = {"images": images, "heatmaps": heatmaps, "masks": masks, "captions": ["a"] * 3} | change
    with pytest.raises(HFScoreError, match=message):
        contact_sheet(
            arguments.pop("images"), arguments.pop("heatmaps"), arguments.pop("masks"), title="t", **arguments
        )


@pytest.fixture
def found() -> Candidates:
    """Three candidates, two of class 1, with images, masks and heatmaps as `candidates` has them."""
    images, heatmaps, masks = candidates()
    return Candidates(
        idx=np.array([7, 8, 9]),
        position=np.arange(3),
        labels=np.array([0, 1, 1]),
        logits=np.array([1.0, 2.0, 3.0], dtype=np.float32),
        masked_margins=np.zeros(3, dtype=np.float32),
        heatmaps=heatmaps,
        masks=masks,
        shortcut_relevance=np.zeros((3, 2), dtype=np.float32),
        cluster=np.array([0, 1, 1]),
        dataset_fingerprint="data",
        model_fingerprint="model",
        layer="last",
        class_names=("benign", "malignant"),
        images=[Image.fromarray(image) for image in images],
    )


def test_a_candidate_sheet_is_the_contact_sheet_of_a_class_with_what_was_decided(found):
    images, heatmaps, masks = (array[[2, 1]] for array in candidates())  # the kept one first
    made = candidate_sheet(found, label=1, selection=found.select([2]))
    expected = contact_sheet(
        images,
        heatmaps,
        masks,
        captions=["#9  logit 3.0", "#8  logit 2.0"],
        kept=[True, False],
        title="malignant: original, masked, heatmap",
    )
    assert made == expected
    undecided = candidate_sheet(found, columns=1)
    assert KEPT not in colours(undecided)
    assert undecided.width > candidate_sheet(found, heatmaps=False, columns=1).width


def test_candidates_without_images_have_no_sheet(found):
    object.__setattr__(found, "images", [None, *found.images[1:]])
    with pytest.raises(HFScoreError, match="no images to show"):
        candidate_sheet(found)


def test_overlay_is_red_for_positive_blue_for_negative_and_neutral_for_zero():
    heatmap = np.zeros((9, 9))
    heatmap[:3], heatmap[-3:] = 2.0, -2.0
    picture = overlay(np.full((9, 9, 3), 128, np.uint8), heatmap).astype(int)
    red, zero, blue = picture[1, 1], picture[4, 4], picture[7, 7]
    assert red[0] > red[2] + 100
    assert blue[2] > blue[0] + 100
    assert zero.max() == zero.min() > 150


def test_overlay_scale_is_symmetric_and_ignores_the_unit():
    heatmap = np.zeros((9, 9))
    heatmap[0], heatmap[8] = 1.0, -0.25
    image = np.full((9, 9, 3), 128, np.uint8)
    picture = overlay(image, heatmap).astype(int)
    np.testing.assert_array_equal(picture, overlay(image, 1000 * heatmap))
    strong, weak = picture[0, 0], picture[8, 0]
    assert strong[0] - strong[2] > 2 * (weak[2] - weak[0]) > 0


def test_overlay_of_an_empty_or_broken_heatmap_is_grey():
    image = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    for value in (0.0, np.nan):
        picture = overlay(image, np.full((9, 9), value)).astype(int)
        assert (picture.max(axis=-1) == picture.min(axis=-1)).all()


def test_heatmap_pairs_outline_the_region():
    images, heatmaps, masks = candidates(3, size=64)
    plain = heatmap_pairs(images, heatmaps, -heatmaps, captions=["a", "b", "c"])
    outlined = heatmap_pairs(images, heatmaps, -heatmaps, captions=["a", "b", "c"], regions=masks)
    assert KEPT not in colours(plain)
    assert colours(outlined)[KEPT] > 3 * 3 * 16
    with pytest.raises(HFScoreError, match="after has shape"):
        heatmap_pairs(images, heatmaps, heatmaps[:2], captions=["a", "b", "c"])
