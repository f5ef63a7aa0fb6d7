"""`trainer.push_to_hub()`: a trainer's own card and results, in one commit, without what belongs to the training."""

import json

import numpy as np
import pytest
import timm
import torch
from datasets import Dataset
from hub_server import Refusal
from huggingface_hub import ModelCard
from PIL import Image
from tiny import square_images, square_samples, tiny_processor, tiny_vit
from transformers import AutoModelForImageClassification

from hf_score import SCOREConfig, SCORETrainer
from hf_score.baselines import BaselineConfig, ContinuedERMTrainer
from hf_score.errors import HFScoreError
from hf_score.models import load_model


def evaluation_set():
    """Images with groups, 32 pixels, of the classes of `tiny_vit`."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    return Dataset.from_dict(
        {
            "image": [Image.fromarray(image) for image in pixels],
            "label": [0, 0, 0, 0, 1, 1, 1, 1],
            "group": [0, 0, 1, 1, 2, 2, 3, 3],
        }
    )


def make_trainer(folder, kind=SCORETrainer, *, model=None, processor=None, **changes):
    """A trainer that has trained for one step, from a model that was loaded from a local folder."""
    if model is None:
        tiny_vit().save_pretrained(folder / "start" / "tiny")
        model = AutoModelForImageClassification.from_pretrained(folder / "start" / "tiny")
    settings = {"max_steps": 1, "per_device_train_batch_size": 8, "report_to": "none", "use_cpu": True, **changes}
    samples = {"spurious_samples": square_samples(4)} if kind is SCORETrainer else {}
    trainer = kind(
        model,
        (SCOREConfig if kind is SCORETrainer else BaselineConfig)(str(folder / "out"), **settings),
        train_dataset=square_images(16),
        processing_class=processor or tiny_processor(),
        **samples,
    )
    trainer.train()
    return trainer


def test_one_commit_of_checkpoint_card_and_results(hub, logged_in, tmp_path):
    trainer = make_trainer(tmp_path, hub_private_repo=True)
    metrics = trainer.evaluate(evaluation_set())
    trainer.save_state()  # trainer_state.json and the checkpoint's folder stay at home
    url = trainer.push_to_hub(license="mit", tags="mine", dataset="owner/squares")
    assert url.startswith(f"{hub.url}/tester/out/commit/")
    assert hub.commits("tester/out") == ["initial commit", "End of training"]
    assert hub.repos["model", "tester/out"].private
    files = hub.files("tester/out")
    model = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert set(files) == model | {"score_report.json", ".eval_results/hf-score.yaml"}

    card = ModelCard(files["README.md"].decode())
    card.validate()  # at the loopback Hub
    assert card.data.tags == ["hf-score", "shortcut-mitigation", "score", "mine"]
    assert card.data.license == "mit"
    assert 'model="tester/out"' in card.content
    assert "Kept: plain: 0; square: 4." in card.content
    results = json.loads(files["score_report.json"])
    assert results["methods"]["score"]["supervision"] == "class labels + decisions"
    assert results["methods"]["score"]["runs"][0]["metrics"]["worst_group_accuracy"] == pytest.approx(
        metrics["eval_worst_group_accuracy"]
    )
    assert {r.metric_type for r in card.data.eval_results} == {
        "worst_group_accuracy",
        "mean_group_accuracy",
        "accuracy",
    }


def test_no_trace_of_the_machine_in_what_is_pushed(hub, logged_in, tmp_path):
    make_trainer(tmp_path).push_to_hub()
    contents = [path.read_bytes() for path in hub.root.iterdir()]
    assert len(contents) >= 5
    for content in contents:
        assert str(tmp_path).encode() not in content
        assert hub.token.encode() not in content


def test_results_that_were_set_go_into_card_and_file(hub, logged_in, tmp_path, run_folder):
    trainer = make_trainer(tmp_path, hub_model_id="tester/named")
    trainer.results = json.loads((run_folder / "results.json").read_text())
    trainer.push_to_hub(revision="candidate", blocking=False).result(60)
    files = hub.files("tester/named", "candidate")
    assert hub.files("tester/named") == {}
    assert "owner/skin" in files["README.md"].decode()
    assert json.loads(files["score_report.json"])["selection"]["decided_by"] == "person"


def test_a_baseline_is_published_as_what_it_is(hub, logged_in, tmp_path):
    make_trainer(tmp_path, ContinuedERMTrainer).push_to_hub()
    card = ModelCard(hub.files("tester/out")["README.md"].decode())
    assert card.data.tags == ["hf-score", "shortcut-mitigation", "continued-erm"]
    assert "Supervision of continued ERM: class labels." in card.content
    assert "Its accuracy was not measured." in card.content
    assert "spurious-positive samples" not in card.content.lower().split("citations")[0]


def test_a_timm_model_loads_with_timm_and_with_transformers(hub, logged_in, tmp_path):
    model, processor, _ = load_model("test_resnet", class_names=["plain", "square"], image_size=32, from_scratch=True)
    trainer = make_trainer(tmp_path, ContinuedERMTrainer, model=model, processor=processor)
    trainer.push_to_hub()
    assert 'timm.create_model("hf-hub:tester/out", pretrained=True)' in hub.files("tester/out")["README.md"].decode()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = trainer.model.eval()(pixels).logits
        by_timm = timm.create_model("hf-hub:tester/out", pretrained=True, cache_dir=tmp_path / "cache").eval()
        stock = AutoModelForImageClassification.from_pretrained("tester/out", cache_dir=tmp_path / "cache").eval()
        # A mapped file's weights lie unaligned in memory, where a kernel may round differently.
        for loaded in (by_timm, stock):
            for parameter in loaded.parameters():
                parameter.data = parameter.data.clone()
        assert torch.equal(by_timm(pixels), expected)
        assert torch.equal(stock(pixels).logits, expected)


def test_a_failed_push_is_one_sentence_and_can_be_repeated(hub, logged_in, tmp_path):
    trainer = make_trainer(tmp_path)

    def full(method, path):
        if "/commit/" in path:
            raise Refusal(507, "Storage limit reached")

    hub.intercept = full
    with pytest.raises(HFScoreError, match=r"^The Hub has no room for tester/out \(Storage limit reached"):
        trainer.push_to_hub()
    assert hub.files("tester/out") == {}
    saved = tmp_path / "out" / "model.safetensors"
    assert saved.is_file()
    hub.intercept = lambda method, path: None
    trainer.push_to_hub()
    assert hub.commits("tester/out") == ["initial commit", "End of training"]
    assert hub.files("tester/out")["model.safetensors"] == saved.read_bytes()


def test_pushing_while_training_pushes_nothing_unfinished(hub, logged_in, tmp_path):
    with pytest.raises(HFScoreError, match="hub_strategy is 'every_save', which would push unfinished models"):
        SCOREConfig(str(tmp_path), push_to_hub=True, hub_strategy="every_save")
    trainer = make_trainer(tmp_path, push_to_hub=True, save_steps=1, hub_model_id="tester/kept")
    assert hub.files("tester/kept") == {}
    trainer.save_model()
    assert hub.commits("tester/kept") == ["initial commit", "Model save"]


def test_wrong_token_when_the_trainer_makes_the_repository(hub, logged_in, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HFScoreError, match=r"^The Hub refused the token for tester/kept"):
        make_trainer(tmp_path, push_to_hub=True, hub_model_id="tester/kept")
