import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_score.errors import HFScoreError
from hf_score.report import render_model_card
from hf_score.report.card import PICTURES_MARK, eval_results_yaml

EXPECTED = Path(__file__).parent / "expected_card.md"


def test_whole_card(results):
    """After a wanted change: run with HF_SCORE_UPDATE=1, and read the difference before committing it."""
    card = render_model_card(
        results,
        model_name="deit-tiny-isic-score",
        license="apache-2.0",
        pictures={"assets/shortcut-benign.png": "“benign”: original and masked"},
    )
    if os.environ.get("HF_SCORE_UPDATE"):
        EXPECTED.write_text(card, encoding="utf-8")
    assert card == EXPECTED.read_text(encoding="utf-8")


def test_metadata_survives_the_clients_own_reading(results):
    card = ModelCard(render_model_card(results, model_name="m", base_model="owner/base", license="mit", seed=1))
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.tags == ["hf-score", "shortcut-mitigation", "score", "base_model:owner/base"]
    assert card.data.base_model == "owner/base"
    assert card.data.base_model_relation == "finetune"
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {"worst_group_accuracy": 0.7, "mean_group_accuracy": 0.8, "accuracy": 0.8}
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()


@pytest.mark.parametrize("base_model", ["/data/weights/deit", "resnet18", "../weights/x", "owner/na me"])
def test_base_model_that_is_no_hub_id_stays_out_of_the_metadata(results, base_model):
    data = ModelCard(render_model_card(results, model_name="m", base_model=base_model)).data
    assert data.base_model is None
    assert data.tags == ["hf-score", "shortcut-mitigation", "score"]


def test_a_local_folder_is_no_base_model(results, tmp_path, monkeypatch):
    (tmp_path / "runs" / "erm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert ModelCard(render_model_card(results, model_name="m", base_model="runs/erm")).data.base_model is None


def test_hub_data_set_is_linked(results):
    results["dataset"]["name"] = "owner/birds"
    assert ModelCard(render_model_card(results, model_name="m")).data.datasets == ["owner/birds"]


def test_nothing_of_the_machine_is_in_the_card(results):
    results["model"]["name"] = "/home/ann/weights/deit"
    results["dataset"]["source"] = "/home/ann/data/isic"
    results["config"]["output_dir"] = "/home/ann/runs"
    results["config"]["hub_token"] = "hf_" + "x" * 30
    card = render_model_card(results, model_name="m")
    assert "/home" not in card
    assert "ann" not in card.replace("Neumann", "").replace("cannot", "")
    assert "hf_" not in card
    assert "python run_score.py --dataset 'my images' --hub_token '***'" in card


def test_timm_is_asked_for_only_where_it_is_needed(results):
    assert "pip install timm" not in render_model_card(results, model_name="m")
    results["model"]["is_timm"] = True
    card = render_model_card(results, model_name="m")
    assert "pip install timm" in card
    assert 'timm.create_model("hf-hub:USER/m", pretrained=True)' in card


def test_metadata_cannot_be_broken_by_names(results):
    evil = 'x\n---\n# "not: [yaml'
    results["dataset"]["name"] = results["methods"]["score"]["label"] = evil
    card = ModelCard(render_model_card(results, model_name=evil))
    assert card.data.model_name == evil
    assert card.data.eval_results[0].dataset_name == evil


def test_pictures_are_named_or_their_place_is_marked(results):
    assert PICTURES_MARK in render_model_card(results, model_name="m")
    card = render_model_card(results, model_name="m", pictures={"assets/a b.png": "[one]\n<b>*two*"})
    assert PICTURES_MARK not in card
    assert "![(one) btwo](assets/a%20b.png)\n\n*(one) btwo*" in card


def test_what_is_not_known_is_not_in_the_card(results):
    for name in ("command", "git_commit", "versions", "hardware", "config", "selection"):
        del results[name]
    del results["methods"]["score"]["runs"][0]["train_seconds"]
    for name in ("citation", "description", "fingerprint", "licence", "source", "train_group_counts"):
        del results["dataset"][name]
    card = render_model_card(results, model_name="m")
    assert "None" not in card
    assert "Undefined" not in card
    for text in ("Commit", "Versions:", "minutes", "All settings", "fingerprint"):
        assert text not in card
    assert "Hardware: not recorded" in card
    assert "Emissions: not measured" in card


def test_measured_emissions_are_told(results):
    results["methods"]["score"]["runs"][0]["emissions_kg"] = 0.0123
    assert (
        "12.3 g of CO₂ equivalents for the training of this checkpoint, measured by codecarbon"
        in render_model_card(results, model_name="m")
    )


@pytest.mark.parametrize(
    "words",
    [
        {"score_form": "paper", "score_neuron_strength": "activation", "score_granularity": "channel"},
        {"score_penalty": "neurons", "score_granularity": "channel"},  # of the release before
        {"score_penalised": "activation", "score_reading": "channel"},  # of the one before that
    ],
)
def test_penalty_on_neurons_is_described(results, words):
    del results["config"]["score_form"]
    results["config"] |= words
    results["methods"]["score"]["label"] = "SCORE"
    card = render_model_card(results, model_name="m")
    assert (
        "penalty: the activation of the neurons behind these regions at the probe layer (`block4`, channel)." in card
    )
    assert "run “SCORE”" in card and "SCORE-X" not in card


@pytest.mark.parametrize(("form", "name"), [("paper", "SCORE"), ("exchange", "SCORE-X"), ("both", "SCORE-B")])
def test_results_of_the_release_before_are_called_by_their_form(results, form, name):
    results["methods"]["score"]["label"] = "SCORE"
    results["config"]["score_form"] = form
    card = render_model_card(results, model_name="m")
    assert f"run “{name}”" in card and f"\n| {name} |" in card and f"With {name} the worst-group" in card
    assert ("The paper's penalty" in card) == (form != "exchange")
    assert ("exchanged with that of an image" in card) == (form != "paper")


def test_the_hubs_other_form_of_results(results):
    assert eval_results_yaml(results) is None  # the data set is not on the Hub
    results["dataset"]["name"] = "owner/birds"
    entries = parse_eval_result_entries(yaml.safe_load(eval_results_yaml(results, seed=1)))
    assert [(entry.dataset_id, entry.task_id, entry.value) for entry in entries] == [
        ("owner/birds", "worst_group_accuracy", 0.7),
        ("owner/birds", "mean_group_accuracy", 0.8),
        ("owner/birds", "accuracy", 0.8),
    ]
    assert entries[0].date == "2026-01-02"
    results["methods"]["score"]["runs"][0]["metrics"] = {}
    assert eval_results_yaml(results, seed=0) is None


def test_data_without_groups(results):
    for method in results["methods"].values():
        for run in method["runs"]:
            run["metrics"] = {"accuracy": 0.75}
    results["dataset"]["group_names"] = None
    card = ModelCard(render_model_card(results, model_name="m"))
    assert [result.metric_type for result in card.data.eval_results] == ["accuracy"]
    assert "average accuracy 75.0 %" in card.content


def test_a_run_that_is_not_there(results):
    with pytest.raises(HFScoreError, match=r"no run of method 'score' with seed 7: choose among the methods erm, "):
        render_model_card(results, model_name="m", seed=7)
    with pytest.raises(HFScoreError, match="no run of method 'jtt'"):
        render_model_card(results, model_name="m", method="jtt")


def test_a_long_command_is_folded_into_the_same_command(results):
    command = "accelerate launch --cpu run_score.py " + " ".join(f"--option_{i} 'value  {i}'" for i in range(20))
    results["command"] = command
    card = render_model_card(results, model_name="m")
    (shown,) = re.findall(r"```bash\n(.*?)\n```", card, re.DOTALL)
    assert shlex.split(shown.replace("\\\n", " ")) == shlex.split(command)
    assert max(len(line) for line in shown.splitlines()) <= 88
