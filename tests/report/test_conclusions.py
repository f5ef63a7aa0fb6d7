"""The wording of what a run shows: for controls, and for judged regions without groups."""

import pytest

from hf_score.report import conclusions, judge, judge_regions, render_conclusions, render_model_card, render_report
from hf_score.report.conclusions import class_cells, region_cells


def figure(value, reach=0.05, count=200):
    return {"value": value, "low": value - reach, "high": value + reach, "count": count}


def verdict(inserted, *, change=None, fallen=(), excess=-0.2, count=200, reach=0.05):
    classes = {"benign": figure(0.9), "malignant": figure(0.8)}
    entry = {
        "figures": {
            "inserted": figure(inserted, count=count),
            "removed": figure(0.5),
            "random_inserted": figure(0.04),
            "object": figure(0.6),
            "reliance": figure(1.5),
            "auroc": figure(0.875),
            "calibration_error": figure(0.03),
        },
        "classes": classes,
        "samples": {"count": 12, "held_out": True},
        "not_checked": ["Pictures from elsewhere."],
    }
    if change is not None:
        entry["change"] = {"lowest": figure(change, reach, count), "excess": figure(excess)}
        entry["class_change"] = {name: figure(-0.04 if name in fallen else 0.0) for name in classes}
        entry["fallen"] = list(fallen)
    return entry


@pytest.fixture
def measured(make_results):
    """`measured([(before, after), ...])`: results without groups, a pair of verdicts for each seed."""

    def make(pairs, *, decided_by="person", groups=False):
        results = make_results(("erm", "random_samples", "score"), offsets=(0.0, 0.1)[: len(pairs)])
        for key, which in (("erm", 0), ("random_samples", 1), ("score", 1)):
            for run, pair in zip(results["methods"][key]["runs"], pairs, strict=True):
                run["verdict"] = pair[which]
                if not groups:
                    run["metrics"] = {"accuracy": 0.75}
        if not groups:
            results["dataset"]["group_names"] = None
        results["selection"] |= {"decided_by": decided_by, "kept_by": decided_by}
        return results

    return make


@pytest.mark.parametrize(
    ("after", "holds", "words"),
    [
        (verdict(0.1, change=0.5), True, "Improved: the judged regions mislead the model less"),
        (verdict(0.6, change=0.0, reach=0.04), None, "Unchanged: the judged regions mislead the model as before"),
        (verdict(0.9, change=-0.3), False, "Worse: the judged regions mislead the model more"),
        (verdict(0.5, change=0.1, reach=0.21), None, "Cannot tell whether"),
        (verdict(0.5, change=0.5, reach=0.1, count=6), None, "Cannot tell whether"),
        (
            verdict(0.1, change=0.5, fallen=("malignant",)),
            None,
            "“malignant” recognised less often. Improved: the judged regions mislead",
        ),
        (verdict(0.6, change=0.0, reach=0.04, fallen=("malignant",)), False, "“malignant” recognised less often"),
    ],
)
def test_each_outcome(measured, after, holds, words):
    found = judge_regions(measured([(verdict(0.6), after)]))
    assert (found.holds, found.headline.startswith(words)) == (holds, True), found
    assert "60 % (55 to 65 %) of the answers changed before" in found.sentence
    assert "“malignant” (sensitivity) 80 %" in found.sentence and "“benign” (specificity)" in found.sentence
    assert ("too few pictures" in found.sentence) == (after["figures"]["inserted"]["count"] == 6)
    assert found.not_checked == ("Pictures from elsewhere.", "The worst group: the test data has no groups.")


def test_a_fall_is_said_first(measured):
    found = judge_regions(measured([(verdict(0.6), verdict(0.1, change=0.5, fallen=("malignant",)))]))
    assert found.sentence.startswith("First: accuracy fell, beyond chance, for “malignant” by 4.0 points.")


def test_a_proposal_claims_nothing(measured):
    results = measured([(verdict(0.6), verdict(0.1, change=0.5))], decided_by="proposal")
    found = judge_regions(results)
    assert found.holds is None and "proposed regions" in found.headline
    assert "regions that a proposal, seen by nobody, took" in found.sentence
    assert "nobody has looked at them" in found.not_checked[0]
    text = " ".join([found.headline, found.sentence])
    assert "spurious" not in text and "shortcut" not in text
    results["selection"] |= {"decided_by": "person+proposal", "kept_by": "person"}  # the proposal kept nothing
    assert judge_regions(results).holds is True
    results["selection"]["kept_by"] = "person+proposal"
    assert judge_regions(results).holds is None


def test_seeds_have_to_agree(measured):
    good, bad = verdict(0.1, change=0.5), verdict(0.9, change=-0.3)
    found = judge_regions(measured([(verdict(0.6), good), (verdict(0.6), bad)]))
    assert found.holds is None and "The seeds disagree: improved, worse." in found.sentence
    assert "50 % (5 to 95 %) after" in found.sentence


def test_without_groups_it_is_the_verdict_everywhere(measured):
    results = measured([(verdict(0.6), verdict(0.1, change=0.5))])
    assert judge(results) == judge_regions(results) and len(conclusions(results)) == 1
    text, page, card = (
        render_conclusions(results),
        render_report(results, {}),
        render_model_card(results, model_name="m"),
    )
    for shown in (text, page.replace("\u00a0", " "), card):
        assert "Improved: the judged regions mislead the model less" in shown
        assert "10 % (5 to 15 %) after" in shown and "Not checked" in shown
        assert "cannot be judged" not in shown
    assert "| SCORE-X | 10.0 (5.0 to 15.0) |" in card and "What the judged regions do" in page


def test_with_groups_both_stand_side_by_side(measured):
    results = measured([(verdict(0.6), verdict(0.1, change=0.5))] * 2, groups=True)
    groups, regions = conclusions(results)
    assert "worst-group accuracy" in groups.sentence and "pasted into 200 test images" in regions.sentence
    assert "The worst group: the test data has no groups." not in regions.not_checked
    assert render_report(results, {}).count('aria-label="Verdict"') == 2


def test_tables_of_the_verdict(measured):
    results = measured([(verdict(0.6), verdict(0.1, change=0.5))])
    header, rows = region_cells(results)
    assert header[:3] == ["method", "inserted", "removed"] and [row[0] for row in rows] == [
        "ERM",
        "random samples",
        "SCORE-X",
    ]
    assert rows[2][header.index("AUROC")] == "0.875 (0.825 to 0.925)"
    header, rows = class_cells(results)
    assert rows[1] == ["malignant", "80.0 (75.0 to 85.0)", "80.0 (75.0 to 85.0)", "+0.0 (−5.0 to +5.0)"]


def test_results_of_before_are_told_to_be_measured_again(make_results):
    results = make_results(("erm", "score"))
    assert region_cells(results)[1] == class_cells(results)[1] == [] and judge_regions(results) is None
    for method in results["methods"].values():
        method["runs"][0]["metrics"] = {"accuracy": 0.75}
    assert "measure again" in judge(results).sentence and judge(results).holds is None


def test_names_of_classes_stay_text_in_the_card(measured):
    results = measured([(verdict(0.6), verdict(0.1, change=0.5, fallen=("malignant",)))])
    results["methods"]["random_samples"]["label"] = "*a*\n# b <b>"
    assert r"“\*a\* # b &lt;b>”" in render_model_card(results, model_name="m")


# ---- Controls ----


def demo(make_results, worst, spreads):
    """Three seeds with these means and standard deviations of the worst group."""
    results = make_results(tuple(worst), offsets=(0.0, 0.1, 0.2))
    for key, mean in worst.items():
        for run, step in zip(results["methods"][key]["runs"], (-1, 0, 1), strict=True):
            run["metrics"]["worst_group_accuracy"] = mean + step * spreads[key]
    return results


def test_a_control_within_the_noise_is_no_refutation(make_results):
    worst = {"erm": 0.257, "random_samples": 0.792, "score": 0.773}
    found = judge(demo(make_results, worst, {"erm": 0.073, "random_samples": 0.039, "score": 0.010}))
    assert found.holds is None and found.headline == "SCORE-X helped, and one control as much"
    assert "1.9 points below the best control" in found.sentence and "within the noise" in found.sentence
    assert "which pictures of the class were chosen does not matter here" in found.sentence


def test_a_control_above_by_more_than_the_noise_is_one(make_results):
    worst = {"erm": 0.2, "continued_erm": 0.9, "score": 0.7}
    found = judge(demo(make_results, worst, dict.fromkeys(worst, 0.02)))
    assert found.holds is False and "the control does better. So training on, without the samples" in found.sentence


def test_a_gain_within_the_noise_is_no_change(make_results):
    worst = {"erm": 0.5, "continued_erm": 0.5, "score": 0.55}
    found = judge(demo(make_results, worst, dict.fromkeys(worst, 0.1)))
    assert found.holds is None and found.headline == "No change beyond the noise"
