"""Old names of options are taken with a warning that names the new one, and mean what they meant."""

import warnings

import pytest

from hf_score import HFScoreError, SCOREConfig
from hf_score.baselines import AFRConfig
from hf_score.renamed import OPTIONS, PLAN, in_new_words, with_new_names

PENALTIES = {
    "difference": {"score_form": "exchange"},
    "activation": {"score_form": "paper", "score_neuron_strength": "activation"},
    "contribution": {"score_form": "paper", "score_neuron_strength": "contribution"},
}


@pytest.mark.parametrize(("old", "new"), [("margin", "exchange"), ("neurons", "paper")])
def test_the_penalty_of_the_release_before_is_a_form(tmp_path, old, new):
    with pytest.warns(FutureWarning, match=f"score_penalty is called score_form='{new}' now"):
        assert SCOREConfig(tmp_path, score_penalty=old).score_form == new
    with pytest.warns(FutureWarning, match=f"the command line: score_penalty is called score_form='{new}' now"):
        assert in_new_words([f"--score-penalty={old}"]) == ["--score_form", new]


@pytest.mark.parametrize(("old", "new"), PENALTIES.items())
def test_a_configuration_takes_old_names(tmp_path, old, new):
    with pytest.warns(FutureWarning) as said:
        config = SCOREConfig(tmp_path, score_penalised=old, score_reading="channel", score_swap_weight=0.5)
    wanted = {**new, "score_granularity": "channel", "score_exchange_weight": 0.5}
    assert {name: getattr(config, name) for name in wanted} == wanted
    for warning, name in zip(said, [*list(new)[:1], "score_granularity", "score_exchange_weight"], strict=True):
        assert f"is called {name}" in str(warning.message) and warning.filename == __file__


def test_every_old_option_of_a_configuration_has_a_new_one(tmp_path):
    from hf_score.bench import TRAINERS

    known = {name for trainer in TRAINERS.values() for name in trainer.config_class.__dataclass_fields__}
    for old, new in OPTIONS.items():
        assert old not in known
        assert set([new] if isinstance(new, str) else new("activation")) <= known
    with pytest.warns(FutureWarning, match="AFRConfig: afr_pull is called afr_l2_to_start now"):
        assert AFRConfig(tmp_path, afr_pull=0.5).afr_l2_to_start == 0.5


def test_new_names_are_taken_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        SCOREConfig(tmp_path, score_form="paper")
        assert in_new_words(["--score_form", "both", "--seed=1"]) == ["--score_form", "both", "--seed=1"]
        assert with_new_names({"score_reading": "channel"}) == {"score_granularity": "channel"}  # no person wrote it


def test_an_old_name_beside_its_new_one_is_refused(tmp_path):
    with pytest.raises(HFScoreError, match="score_penalised is the old name of score_form: give one of them"):
        SCOREConfig(tmp_path, score_penalised="difference", score_form="exchange")


def test_a_command_line_takes_old_names():
    old = ["run", "--score_penalised", "contribution", "--score-reading=channel", "--seed", "0", "--resume"]
    new = ["run", "--score_form", "paper", "--score_neuron_strength", "contribution"]
    with pytest.warns(FutureWarning, match="the command line: score_penalised is called score_form='paper'"):
        assert in_new_words(old) == [*new, "--score_granularity", "channel", "--seed", "0", "--resume"]
    with pytest.warns(FutureWarning):
        assert in_new_words(["plan.yaml", "--sets", "isic"], PLAN) == ["plan.yaml", "--datasets", "isic"]
    with pytest.raises(HFScoreError, match="--score_reading has no value"):
        in_new_words(["--score_reading", "--resume"])


def test_a_choice_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(HFScoreError, match="score_form is 'weights': give one of paper, exchange, both"):
        SCOREConfig(tmp_path, score_form="weights")
