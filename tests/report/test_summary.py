import math

import pytest

from hf_score.report import judge, render_table, summarise


def test_means_and_spread_over_seeds(make_results):
    summary = summarise(make_results(offsets=(0.0, 0.1, 0.2)))["score"]
    assert summary.worst_group_accuracy.mean == pytest.approx(0.7)
    assert summary.worst_group_accuracy.std == pytest.approx(0.1)  # n - 1 in the denominator
    assert summary.worst_group_accuracy.percent() == "70.0 ± 10.0"
    assert summary.seeds == (0, 1, 2)
    assert summary.worst_group == "malignant, patch"


def test_one_seed_has_no_spread(make_results):
    worst = summarise(make_results())["score"].worst_group_accuracy
    assert worst.std is None
    assert worst.percent() == "60.0"


def test_worst_group_is_that_of_each_seed(make_results):
    """The mean of each run's worst group, not the worst of the group means."""
    results = make_results(("score",), offsets=(0.0, 0.0))
    for run, values in zip(results["methods"]["score"]["runs"], ([0.2, 0.8], [0.8, 0.2]), strict=True):
        run["metrics"]["group_accuracy"] = dict(zip(["benign", "malignant"], values, strict=True))
        run["metrics"]["worst_group_accuracy"] = 0.2
    summary = summarise(results)["score"]
    assert summary.worst_group_accuracy.mean == pytest.approx(0.2)
    assert summary.group_accuracy["benign"].mean == pytest.approx(0.5)


def test_methods_come_in_the_order_of_the_story(make_results):
    results = make_results()
    results["methods"] = {key: results["methods"][key] for key in ("score", "random_samples", "erm")}
    results["methods"]["jtt"] = results["methods"]["erm"]
    assert list(summarise(results)) == ["erm", "random_samples", "score", "jtt"]


def test_results_of_an_earlier_version_keep_their_keys_and_their_places(make_results):
    results = make_results()
    results["methods"]["swap_only"] = results["methods"].pop("random_samples")
    assert list(summarise(results)) == ["erm", "continued_erm", "swap_only", "random_neurons", "score"]
    results["methods"] = {key: results["methods"][key] for key in ("erm", "swap_only", "score")}
    assert "above the best control, “random samples”" in judge(results).sentence


def test_not_a_number_counts_as_missing(make_results):
    results = make_results(("score",))
    results["methods"]["score"]["runs"][0]["relevance_in_region"] = math.nan
    assert summarise(results)["score"].relevance_in_region is None


def test_empty_group_is_a_dash_in_its_own_column(make_results):
    accuracies = {"erm": [0.9, 1.0, 0.5, None], "score": [0.7, 0.8, 0.7, None]}
    _, groups = render_table(make_results(("erm", "score"), accuracies=accuracies), "markdown").split("\n\n")
    header, _, *rows = groups.replace(" |\n", "\n").removesuffix(" |").splitlines()
    column = header.split(" | ").index("malignant, patch")
    assert [row.split(" | ")[column] for row in rows] == ["–", "–"]


def test_unknown_measures_have_no_column(make_results):
    results = make_results(("erm", "score"))
    for method in results["methods"].values():
        for run in method["runs"]:
            run["metrics"]["weighted_accuracy"] = run["relevance_in_region"] = None
    table = render_table(results)
    assert "weighted" not in table
    assert "relevance" not in table
    assert "mean of groups" in table


def test_a_data_set_without_groups_still_has_a_table(make_results):
    results = make_results(("erm", "score"))
    results["dataset"]["group_names"] = None
    for method in results["methods"].values():
        for run in method["runs"]:
            run["metrics"] = {"accuracy": 0.75}
            run["relevance_in_region"] = None
    assert render_table(results, "markdown").splitlines() == [
        "| method | average | supervision |",
        "| --- | ---: | --- |",
        "| ERM | 75.0 | class labels |",
        "| SCORE-X | 75.0 | class labels |",
    ]
    assert judge(results).holds is None


def test_markdown_table(make_results):
    measures, groups = render_table(make_results(("erm", "score"), offsets=(0.0, 0.1)), "markdown").split("\n\n")
    assert measures.splitlines() == [
        "| method | worst group | average | weighted | mean of groups | relevance in region | supervision |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        "| ERM | 5.0 ± 7.1 | 63.7 ± 5.3 | 75.0 ± 0.0 | 63.7 ± 5.3 | 50.0 ± 0.0 | class labels |",
        "| SCORE-X | 65.0 ± 7.1 | 75.0 ± 7.1 | 75.0 ± 0.0 | 75.0 ± 7.1 | 12.5 ± 0.0 | class labels |",
    ]
    assert groups.splitlines() == [
        "| method | benign | benign, patch | malignant | malignant, patch |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| ERM | 95.0 ± 7.1 | 100.0 ± 0.0 | 55.0 ± 7.1 | 5.0 ± 7.1 |",
        "| SCORE-X | 75.0 ± 7.1 | 85.0 ± 7.1 | 75.0 ± 7.1 | 65.0 ± 7.1 |",
    ]


def test_markdown_of_hostile_names(make_results):
    results = make_results(("erm",))
    results["methods"]["erm"]["label"] = "a|b\n<script>*x*[l](u)"
    row = render_table(results, "markdown").splitlines()[2]
    assert row.startswith(r"| a\|b &lt;script>\*x\*\[l\](u) | 0.0 |")


def test_text_table_fits_its_width_and_repeats_the_methods(make_results):
    table = render_table(make_results(offsets=(0.0, 0.1)), width=80)
    blocks = table.split("\n\n")
    assert len(blocks) > 1
    assert max(len(line) for line in table.splitlines()) <= 80
    for block in blocks:
        lines = block.splitlines()
        assert lines[0].startswith("method")
        assert [line.split("  ")[0] for line in lines[2:]] == [
            "ERM",
            "continued ERM",
            "random samples",
            "random neurons",
            "SCORE-X",
        ]


def test_text_table_columns_line_up_with_wide_characters(make_results):
    results = make_results(("erm", "score"))
    results["methods"]["erm"]["label"] = "基準"  # two columns each in a terminal
    lines = render_table(results, width=200).splitlines()
    erm, score = (line for line in lines[2:])
    assert erm.index("0.0") + 2 == score.index("60.0") + 1


@pytest.mark.parametrize(
    ("methods", "offsets", "accuracies", "holds", "words"),
    [
        (("erm", "continued_erm", "score"), (0.0, 0.1), {}, True, "from 5.0 ± 7.1 % to 65.0 ± 7.1 %"),
        (("erm", "random_samples", "score"), (0.0, 0.3), {}, True, "40.0 points above"),
        (
            ("erm", "random_samples", "score"),
            (0.0, 0.4),
            {"score": [0.7, 0.8, 0.7, 0.3], "erm": [0.9, 1.0, 0.5, 0.0], "random_samples": [0.8, 1.0, 0.5, 0.2]},
            None,
            "within the noise",
        ),
        (
            ("erm", "continued_erm", "score"),
            (0.0, 0.1),
            {"continued_erm": [0.8, 1.0, 0.7, 0.9]},
            False,
            "10.0 points below the best control",
        ),
        (
            ("erm", "continued_erm", "score"),
            (0.0, 0.1),
            {"erm": [0.7, 0.7, 0.7, 0.6]},
            False,
            "did not help",
        ),
        (("erm", "continued_erm", "score"), (0.0,), {}, None, "may be chance"),
        (("erm", "score"), (0.0, 0.1), {}, None, "No control was run"),
        (("erm",), (0.0, 0.1), {}, None, "no run of SCORE"),
    ],
)
def test_verdict(make_results, methods, offsets, accuracies, holds, words):
    verdict = judge(make_results(methods, offsets=offsets, accuracies=accuracies))
    assert verdict.holds is holds
    assert words in verdict.sentence


def test_verdict_compares_with_the_best_control(make_results):
    verdict = judge(make_results(offsets=(0.0, 0.1)))
    assert "“random samples” (25.0 ± 7.1 %)" in verdict.sentence
    assert "40.0 points above" in verdict.sentence
    assert "difference is 10.0 points" in verdict.sentence
