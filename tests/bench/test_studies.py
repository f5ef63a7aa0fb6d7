"""What rows show of estimates and of the verdict: rank correlations, losses, agreement, from hand-made histories."""

import json

import numpy as np
import pandas as pd
import pytest
from bench_rows import Made, plan_of
from scipy.stats import rankdata

from hf_score.bench.estimates import correlations, evaluations_of, losses
from hf_score.bench.measured import Tests
from hf_score.bench.rows import rows_of
from hf_score.bench.studies import estimates_study, in_one, verdict_study
from hf_score.bench.verdicts import agreement, cross_table, false_improved, outcomes_of


def run(key, method, seed, evaluations, panel="p"):
    """A row whose evaluations are (estimate, true worst group, worst group of the validation set)."""
    history = [
        {"selection": None, "estimates": {"good": e, "constant": 0.5}, "worst_group_accuracy": w, "validation": v}
        for e, w, v in evaluations
    ]
    return {"panel": panel, "key": key, "method": method, "seed": seed, "history": json.dumps(history)}


ROWS = pd.DataFrame(
    [
        run("a", "score", 0, [(0.2, 0.1, 0.1), (0.6, 0.5, 0.2), (0.6, 0.4, 0.3)]),
        run("b", "score", 0, [(0.5, 0.7, 0.6)]),
        run("c", "erm", 0, [(0.3, 0.3, 0.3), (0.1, 0.2, 0.2)]),
        run("d", "score", 1, [(0.9, 0.8, 0.9)]),
    ]
)


def test_the_rank_correlation_is_of_all_evaluations_of_all_methods():
    found = correlations(evaluations_of(ROWS)).set_index("estimate")
    values, worst = [0.2, 0.6, 0.6, 0.5, 0.3, 0.1, 0.9], [0.1, 0.5, 0.4, 0.7, 0.3, 0.2, 0.8]
    assert found.loc["good", "rho"] == pytest.approx(np.corrcoef(rankdata(values), rankdata(worst))[0, 1])
    assert found.loc["good", "count"] == 7
    assert np.isnan(found.loc["constant", "rho"])
    assert "chosen by" not in found.index  # no run had one


def test_runs_that_entries_share_count_once():
    assert len(evaluations_of(pd.concat([ROWS, ROWS.iloc[:1]]))) == len(evaluations_of(ROWS))


def test_losses_are_those_of_the_later_of_equal_epochs_and_of_runs_of_score():
    found = losses(evaluations_of(ROWS)).set_index("estimate")
    # Epochs: of a the last is taken, 0.4 of 0.5; of c the first, the best. Runs of seed 0: a, 0.4 of 0.7.
    assert found.loc["good", "epoch"] == pytest.approx((0.1 + 0.0) / 2)
    assert found.loc["good", "run"] == pytest.approx(0.3)
    # The validation set takes the last of a (0.4), the first of c, and b, the best.
    assert found.loc["good", "epoch_validation"] == pytest.approx(0.05)
    assert found.loc["good", "run_validation"] == pytest.approx(0.0)
    # Equal estimates: the last epochs (0.4, 0.2), and the mean of runs a (0.4) and b (0.7).
    assert found.loc["constant", "epoch"] == pytest.approx((0.1 + 0.1) / 2)
    assert found.loc["constant", "run"] == pytest.approx(0.7 - 0.55)


def test_without_a_validation_set_there_is_no_loss_of_its_choice():
    rows = pd.DataFrame([run("a", "score", 0, [(0.2, 0.1, None), (0.6, 0.5, None)])])
    found = losses(evaluations_of(rows)).set_index("estimate")
    assert found.loc["good", "epoch"] == 0 and np.isnan(found.loc["good", "epoch_validation"])


@pytest.fixture
def made(tmp_path):
    """Verdicts on runs whose worst group went from 30 % to what is said."""
    made = Made(plan_of(tmp_path, seeds=range(8)))
    cases = [
        ("improved", 0.7),
        ("improved", 0.3),
        ("unchanged", 0.3),
        ("unchanged", 0.75),
        ("worse", 0.02),
        ("unknown", 0.3),
        ("cannot tell", 0.7),
    ]
    for seed, (outcome, after) in enumerate(cases):
        made.add("erm", seed, [0.9, 0.3, 0.8, 0.9])
        made.add("score", seed, [0.9, after, 0.8, 0.9], verdict=json.dumps({"outcome": outcome}))
    made.add("score", 7, [0.9, 0.7, 0.8, 0.9], verdict=json.dumps({"outcome": "improved"}))  # nothing to compare with
    return made


def outcomes(made):
    return in_one([(made.plan, rows_of(made.plan, made.store), Tests.beside(made.path))])


def test_the_verdict_is_held_against_the_worst_group(made):
    found = outcomes_of(*outcomes(made))
    changes = ["improved", "unchanged", "unchanged", "improved", "worse", "unchanged", "improved"]
    assert found.sort_values("seed")["change"].tolist() == changes
    table = cross_table(found)
    assert table.to_numpy().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 1, 0]]
    assert (agreement(found).value, agreement(found).count) == (pytest.approx(3 / 7), 7)
    false = false_improved(found)
    assert (false.value, false.count) == (pytest.approx(1 / 4), 4) and false.low > 0 and false.high < 0.75


def test_a_change_beyond_the_noise_is_one_beyond_two_standard_errors(made):
    line = outcomes_of(*outcomes(made)).set_index("seed").loc[0]
    # At most that of two independent shares of 100 pictures each.
    bound = 1.96 * (0.3 * 0.7 / 100 + 0.7 * 0.3 / 100) ** 0.5
    assert 0.6 * bound < line["points"] - line["low"] < 1.2 * bound


def test_rows_without_logits_say_nothing_of_the_verdict(made):
    rows = rows_of(made.plan, made.store).drop(columns="logits")
    assert not len(outcomes_of(*in_one([(made.plan, rows, Tests())])))


def test_pages_are_of_rows_alone(made):
    rows, tests = outcomes(made)
    text, pictures = verdict_study(rows, tests, made_by="command")
    assert "| all | 7 | 42.9 " in text and "7 runs, 5 with a known verdict" in text
    assert list(pictures) == ["verdict.png"]
    assert estimates_study(rows, made_by="command") is None  # no row has any
    assert verdict_study(rows[rows["method"] == "erm"], tests, made_by="command") is None
    text, pictures = estimates_study(ROWS.assign(git_commit="0123456789"), made_by="command")
    assert [axis.get_title() for axis in pictures["estimates.png"].axes] == ["good", "constant"]
    rho = f"{correlations(evaluations_of(ROWS))['rho'][0]:.2f}"
    assert f"| good | {rho} (7) | {rho} |" in text and "| constant | – (7) | – |" in text
