"""`push_run` with the real client against the loopback Hub, and the way back through `pipeline`."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from huggingface_hub import EvalResultEntry, ModelCard, parse_eval_result_entries
from PIL import Image
from safetensors.torch import load_file, save_file

from hf_score.cli import main
from hf_score.errors import HFScoreError
from hf_score.publishing.push import push_run

# Bitwise: the float32 scores in hexadecimal. hf_score = None makes any import of it fail.
CLASSIFY = """
import sys
sys.modules["hf_score"] = None
import numpy as np
import torch
from PIL import Image
from transformers import pipeline
torch.set_num_threads(1)
image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8))
for model in sys.argv[1:]:
    for scored in pipeline("image-classification", model=model, function_to_apply="none")(image):
        print(scored["label"], float(scored["score"]).hex())
    print()
"""
MODEL_FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
ABOUT = {"score_report.json", ".eval_results/hf-score.yaml", "report/index.html"}
ON_THE_SHEET = "Contact sheet of candidates"


def change_results(run_folder, **changes):
    """Set `dataset` entries of a run's results."""
    path = run_folder / "results.json"
    results = json.loads(path.read_text())
    results["dataset"] |= changes
    path.write_text(json.dumps(results))


def test_pushed_model_gives_identical_logits_without_hf_score(pushed):
    assert pushed.url.startswith(f"{pushed.hub.url}/tester/score-vit/commit/")
    scores = pushed.client(CLASSIFY, pushed.run_folder / "model", pushed.repo_id).stdout.split("\n\n")
    here, there = scores[0].split(), scores[1].split()
    assert here == there
    assert set(there[::2]) == {"benign", "malignant"}


def test_push_is_one_commit_of_model_card_results_report_and_pictures(pushed):
    assert pushed.hub.commits(pushed.repo_id) == ["initial commit", "Upload model with hf-score"]
    files = pushed.hub.files(pushed.repo_id)
    assert set(files) == MODEL_FILES | ABOUT | {"assets/shortcut-benign.png"}
    assert files["model.safetensors"] == (pushed.run_folder / "model" / "model.safetensors").read_bytes()
    assert json.loads(files["score_report.json"])["methods"]["score"]["runs"][0]["seed"] == 0
    assert ON_THE_SHEET in files["report/index.html"].decode()
    card = ModelCard(files["README.md"].decode())
    assert 'pipeline("image-classification", model="tester/score-vit")' in card.content
    assert "](assets/shortcut-benign.png)" in card.content


def test_tags_and_results_in_both_forms_of_metadata(pushed):
    files = pushed.hub.files(pushed.repo_id)
    card = ModelCard(files["README.md"].decode())
    base = "facebook/deit-tiny-patch16-224"
    assert card.data.tags == ["hf-score", "shortcut-mitigation", "score", f"base_model:{base}"]
    assert (card.data.base_model, card.data.base_model_relation) == (base, "finetune")
    expected = {"worst_group_accuracy": 0.5, "mean_group_accuracy": 0.75, "accuracy": 0.75}
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == expected
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/hf-score.yaml"]))
    assert entries[0] == EvalResultEntry(
        dataset_id="owner/skin",
        task_id="worst_group_accuracy",
        value=0.5,
        date="2026-01-02",
        notes="test split, seed 0, supervision: class labels + person decisions",
    )
    assert {entry.task_id: entry.value for entry in entries} == expected


def test_neither_token_nor_local_path_leaves_the_machine(pushed):
    files = pushed.hub.files(pushed.repo_id)
    contents = {path.name: path.read_bytes() for path in pushed.hub.root.iterdir()}
    assert {hashlib.sha256(content).hexdigest() for content in files.values()} == set(contents)  # nothing else went up
    for content in contents.values():  # safetensors and their metadata, JSON, page, card and pictures
        assert pushed.hub.token.encode() not in content
        assert b"secret" not in content
        for folder in (pushed.run_folder.parents[1], Path.cwd(), sys.prefix):
            assert str(folder).encode() not in content
    uploads = [authorization for _, path, authorization in pushed.hub.requests if path.startswith("/_lfs/")]
    assert uploads
    assert set(uploads) == {None}


def test_pictures_carry_no_metadata(pushed):
    files = pushed.hub.files(pushed.repo_id)
    path = pushed.hub.root / "picture.png"
    for name in files:
        if name.endswith(".png"):
            path.write_bytes(files[name])
            with Image.open(path) as image:
                assert image.info == {}
    path.unlink()


@pytest.mark.parametrize(
    ("licence", "options", "shown"),
    [
        ("CC BY 4.0", {}, True),
        ("CC BY 4.0", {"publish_images": False}, False),
        (None, {}, False),
        ("CC BY-NC 4.0", {}, False),
        ("CC BY-NC 4.0", {"publish_images": True}, True),
    ],
)
def test_images_are_published_only_where_the_licence_or_the_user_says_so(
    hub, logged_in, run_folder, licence, options, shown
):
    change_results(run_folder, licence=licence)
    push_run(run_folder, "tester/m", **options)
    files = hub.files("tester/m")
    assert any(name.startswith("assets/") for name in files) == shown
    assert ("](assets/" in files["README.md"].decode()) == shown
    assert ("Images of the data set are not published here." in files["README.md"].decode()) != shown
    page = files["report/index.html"].decode()
    assert (ON_THE_SHEET in page) == shown
    assert "Bar chart of the accuracies per group" in page


def test_several_seeds_publish_the_pictures_of_the_first(hub, logged_in, run_folder):
    for name in ("candidates", "selection.json"):
        (run_folder / "seed-0").mkdir(exist_ok=True)
        shutil.move(run_folder / name, run_folder / "seed-0" / name)
    push_run(run_folder, "tester/m")
    assert "assets/shortcut-benign.png" in hub.files("tester/m")


def test_a_data_set_that_is_not_on_the_hub_has_model_index_alone(hub, logged_in, run_folder):
    change_results(run_folder, name="fashion_patch")
    push_run(run_folder, "tester/m")
    assert set(hub.files("tester/m")) == MODEL_FILES | ABOUT - {".eval_results/hf-score.yaml"} | {
        "assets/shortcut-benign.png"
    }


def test_own_card_is_kept_and_a_second_push_updates(hub, logged_in, run_folder):
    card = '---\nlicense: mit\n---\n\nclassifier = pipeline("image-classification", model="{}")\n\n# Mine\n'
    (run_folder / "model" / "README.md").write_text(card.format("USER/one"))
    push_run(run_folder, "score-vit")  # a name alone goes to the user's own repositories
    change_results(run_folder, description="Told apart.")
    push_run(run_folder, "tester/score-vit")
    files = hub.files("tester/score-vit")
    assert files["README.md"].decode() == card.format("tester/score-vit")
    assert json.loads(files["score_report.json"])["dataset"]["description"] == "Told apart."
    assert len(hub.commits("tester/score-vit")) == 3


def test_command_line_with_licence_privacy_and_branch(hub, logged_in, run_folder, capsys):
    words = ["--license", "apache-2.0", "--private", "--revision", "candidate", "--no-publish_images"]
    assert main(["push", str(run_folder), "--repo_id", "tester/hidden", *words]) == 0
    assert "/tester/hidden/commit/" in capsys.readouterr().out
    assert hub.repos["model", "tester/hidden"].private
    assert hub.files("tester/hidden") == {}
    files = hub.files("tester/hidden", "candidate")
    assert ModelCard(files["README.md"].decode()).data.license == "apache-2.0"
    assert set(files) == MODEL_FILES | ABOUT


@pytest.mark.parametrize(
    "name", ["training_args.bin", "optimizer.pt", "trainer_state.json", "checkpoint-5/config.json"]
)
def test_what_belongs_to_the_training_is_refused(run_folder, name):
    path = run_folder / "model" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"anything")
    with pytest.raises(HFScoreError, match=f"^{name} is a pickle or belongs to the training"):
        push_run(run_folder, "tester/m", token="hf_unused")


def test_figures_of_another_model_are_refused(run_folder, hub, logged_in):
    weights = run_folder / "model" / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    results = json.loads((run_folder / "results.json").read_text())
    results["methods"]["score"]["runs"][0]["weights_sha256"] = digest
    (run_folder / "results.json").write_text(json.dumps(results))
    push_run(run_folder, "tester/same")
    assert digest in hub.files("tester/same")["README.md"].decode()
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    with pytest.raises(HFScoreError, match="are of another model than the one in"):
        push_run(run_folder, "tester/other")


@pytest.mark.parametrize("place", ["model/model.safetensors", "model/README.md", "report/index.html"])
@pytest.mark.parametrize("secret", ["short-custom-token", "hf_" + "aB3" * 12])
def test_a_token_in_a_file_is_refused_wherever_it_lies(run_folder, place, secret):
    path = run_folder / place
    # Across the border of two chunks, where a search chunk by chunk would miss it.
    path.write_bytes(b"x" * ((1 << 20) - 8) + b" " + secret.encode() + b" " + b"y" * 100)
    with pytest.raises(HFScoreError, match=r"holds an access token: take it out") as error:
        push_run(run_folder, "tester/m", token="short-custom-token")
    assert secret not in str(error.value)


@pytest.mark.parametrize("place", ["model/config.json", "model/model.safetensors", "report/index.html"])
@pytest.mark.parametrize("which", ["run", "working folder", "home"])
def test_a_local_path_in_a_file_is_refused(run_folder, tmp_path, monkeypatch, place, which):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    folder = {
        "run": (run_folder / place).parent.resolve(),
        "working folder": tmp_path / "x",
        "home": tmp_path / "home" / "y",
    }[which]
    (run_folder / place).write_text("x" * ((1 << 20) - 8) + f' "{folder}" ')
    with pytest.raises(HFScoreError, match=f"^{place.removeprefix('model/')} holds the local path /.*: take it out"):
        push_run(run_folder, "tester/m", token="hf_unused")


@pytest.mark.parametrize("spelt", [json.dumps, quote, str])
def test_a_local_path_is_found_however_it_is_spelt(run_folder, tmp_path, monkeypatch, spelt):
    monkeypatch.setenv("HOME", str(tmp_path / "zoë und max"))
    (run_folder / "model" / "config.json").write_text(f"x {spelt(f'{tmp_path}/zoë und max/runs')} y")
    with pytest.raises(HFScoreError, match=r"^config.json holds the local path /.*: take it out"):
        push_run(run_folder, "tester/m", token="hf_unused")


def test_a_local_path_in_the_metadata_of_safetensors_is_refused(run_folder):
    weights = run_folder / "model" / "model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt", "made_in": str(run_folder / "model")})
    with pytest.raises(HFScoreError, match=r"^model.safetensors holds the local path /.*: take it out"):
        push_run(run_folder, "tester/m", token="hf_unused")


def test_incomplete_runs(run_folder, tmp_path):
    with pytest.raises(HFScoreError, match="There is no run at"):
        push_run(tmp_path / "nowhere", "tester/m", token="t")
    (run_folder / "results.json").write_text("{")
    with pytest.raises(HFScoreError, match=r"results.json cannot be read as JSON"):
        push_run(run_folder, "tester/m", token="t")
    (run_folder / "model" / "model.safetensors").unlink()
    with pytest.raises(HFScoreError, match="holds no checkpoint"):
        push_run(run_folder, "tester/m", token="t")
