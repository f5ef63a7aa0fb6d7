import matplotlib
import pytest
from matplotlib import pyplot
from PIL import Image

from hf_score.report import METHODS, group_bars, training_curves


def colours(image: Image.Image) -> dict:
    return {colour: count for count, colour in image.getcolors(1 << 20)}


def hex_colour(text: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(text[1:]))


def test_bars_have_the_height_of_the_accuracy(make_results):
    """Pixels of a colour are proportional to the sum of that method's accuracies."""
    results = make_results(("erm", "score"))
    seen = colours(group_bars(results))
    legend = 300  # the legend's own patch of each colour, about
    erm, score = (seen[hex_colour(METHODS[key].colour)] - legend for key in ("erm", "score"))
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
    erm = hex_colour(METHODS["erm"].colour)
    assert erm in colours(half)
    assert erm not in colours(half_gap)
    assert any(red < 180 for red, _, _ in colours(half_gap.crop((0, 100, *half_gap.size))))  # it says so in words


def test_curves_leave_out_panels_without_data():
    loss = [{"step": step, "loss": 1.0 / (step + 1)} for step in range(5)]
    both = [*loss, {"step": 4, "held_out_accuracy": 0.5}, {"step": 4, "penalty": float("nan")}]
    assert training_curves({"score": loss}).width < training_curves({"score": both}).width
    assert training_curves({"score": [], "erm": [{"step": 0}]}).width > 100
    assert hex_colour(METHODS["score"].colour) in colours(training_curves({"score": both}))


def test_all_four_curves_fit_on_a_page():
    names = ("loss", "penalty", "reliance", "held_out_accuracy")
    history = {key: [{"step": i, **dict.fromkeys(names, 0.5)} for i in range(3)] for key in METHODS}
    picture = training_curves(history, labels=dict.fromkeys(history, "a label of some length"))
    assert picture.width < 1400
    assert picture.height > 500


def test_drawing_leaves_no_global_plotting_state(results):
    before = dict(matplotlib.rcParams)
    group_bars(results)
    training_curves(results["history"])
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
