import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from hf_score.errors import HFScoreError
from hf_score.report import contact_sheet, group_bars, heatmap_pairs, training_curves
from hf_score.report.figures import KEPT, METHOD_COLOURS, overlay

RED, GREY = (200, 30, 30), (90, 90, 90)


def candidates(n=3, size=28):
    images = np.full((n, size, size, 3), 90, dtype=np.uint8)
    images[:, :8, :8] = RED
    masks = np.zeros((n, size, size), dtype=bool)
    masks[:, :8, :8] = True
    return images, masks.astype(np.float32), masks


def colours(image: Image.Image) -> dict:
    return {colour: count for count, colour in image.getcolors(1 << 20)}


def hex_colour(text: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(text[1:]))


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


def test_bars_have_the_height_of_the_accuracy(make_results):
    """Pixels of a colour are proportional to the sum of that method's accuracies."""
    results = make_results(("erm", "score"))
    seen = colours(group_bars(results))
    legend = 300  # the legend's own patch of each colour, about
    erm, score = (seen[hex_colour(METHOD_COLOURS[key])] - legend for key in ("erm", "score"))
    assert erm / score == pytest.approx((0.9 + 1.0 + 0.5) / (0.7 + 0.8 + 0.7 + 0.6), rel=0.05)


@pytest.mark.parametrize("groups", [2, 8])
@pytest.mark.parametrize("methods", [("erm",), ("erm", "continued_erm", "random_samples", "random_neurons", "score")])
def test_bars_of_many_shapes(make_results, groups, methods):
    accuracies = {key: [0.9, 0.5, None, 0.2, 0.4, None, 1.0, 0.0][:groups] for key in methods}
    names = [f"a rather long group name {i} costing $5_x$" for i in range(groups)]
    picture = group_bars(make_results(methods, offsets=(0.0, 0.05), groups=names, accuracies=accuracies))
    assert 600 < picture.width < 2000


def test_empty_group_is_marked(make_results):
    accuracies = {"erm": [0.9, 0.5]}
    empty = {"erm": [0.9, None]}
    full = group_bars(make_results(("erm",), groups=["a", "b"], accuracies=accuracies))
    gap = group_bars(make_results(("erm",), groups=["a", "b"], accuracies=empty))
    half = full.crop((full.width // 2 + 60, 60, full.width, full.height - 60))
    half_gap = gap.crop((gap.width // 2 + 60, 60, gap.width, gap.height - 40))
    erm = hex_colour(METHOD_COLOURS["erm"])
    assert erm in colours(half)
    assert erm not in colours(half_gap)
    assert any(red < 180 for red, _, _ in colours(half_gap.crop((0, 100, *half_gap.size))))  # it says so in words


def test_curves_leave_out_panels_without_data():
    loss = [{"step": step, "loss": 1.0 / (step + 1)} for step in range(5)]
    both = [*loss, {"step": 4, "held_out_accuracy": 0.5}, {"step": 4, "penalty": float("nan")}]
    assert training_curves({"score": loss}).width < training_curves({"score": both}).width
    assert training_curves({"score": [], "erm": [{"step": 0}]}).width > 100
    assert hex_colour(METHOD_COLOURS["score"]) in colours(training_curves({"score": both}))


def test_all_four_curves_fit_on_a_page():
    names = ("loss", "penalty", "reliance", "held_out_accuracy")
    history = {key: [{"step": i, **dict.fromkeys(names, 0.5)} for i in range(3)] for key in METHOD_COLOURS}
    picture = training_curves(history, labels=dict.fromkeys(history, "a label of some length"))
    assert picture.width < 1400
    assert picture.height > 500


def test_drawing_leaves_no_global_plotting_state(results):
    before = dict(matplotlib.rcParams)
    group_bars(results)
    training_curves(results["history"])
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
