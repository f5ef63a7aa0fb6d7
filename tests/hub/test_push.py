"""`push_run` with the real client against the loopback Hub, and the way back through `pipeline`."""

import json

import pytest
from huggingface_hub import ModelCard

from hf_score.errors import HFScoreError
from hf_score.hub import push_run

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


def test_pushed_model_gives_identical_logits_without_hf_score(pushed):
    assert pushed.url.startswith(f"{pushed.hub.url}/tester/score-vit/commit/")
    scores = pushed.client(CLASSIFY, pushed.run_folder / "model", pushed.repo_id).stdout.split("\n\n")
    here, there = scores[0].split(), scores[1].split()
    assert here == there
    assert set(there[::2]) == {"benign", "malignant"}


def test_push_is_one_commit_of_model_card_results_and_report(pushed):
    assert pushed.hub.commits(pushed.repo_id) == ["initial commit", "Upload model with hf-score"]
    files = pushed.hub.files(pushed.repo_id)
    assert set(files) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "report/index.html",
        "results.json",
    }
    assert files["model.safetensors"] == (pushed.run_folder / "model" / "model.safetensors").read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert 'pipeline("image-classification", model="tester/score-vit")' in card.content
    assert {r.metric_type: r.metric_value for r in card.data.eval_results}["worst_group_accuracy"] == 0.5
    assert json.loads(files["results.json"])["methods"]["score"]["runs"][0]["seed"] == 0


def test_neither_token_nor_local_path_leaves_the_machine(pushed):
    for path in pushed.hub.root.iterdir():
        content = path.read_bytes()
        assert pushed.hub.token.encode() not in content
        assert b"secret" not in content
        assert str(pushed.run_folder.parent).encode() not in content
    uploads = [authorization for _, path, authorization in pushed.hub.requests if path.startswith("/_lfs/")]
    assert uploads == [None]


def test_own_card_is_kept_and_a_second_push_updates(hub, logged_in, run_folder):
    card = '---\nlicense: mit\n---\n\nclassifier = pipeline("image-classification", model="{}")\n\n# Mine\n'
    (run_folder / "model" / "README.md").write_text(card.format("USER/one"))
    push_run(run_folder, "score-vit")  # a name alone goes to the user's own repositories
    (run_folder / "report" / "index.html").write_text("<title>new</title>")
    push_run(run_folder, "tester/score-vit")
    files = hub.files("tester/score-vit")
    assert files["README.md"].decode() == card.format("tester/score-vit")
    assert files["report/index.html"] == b"<title>new</title>"
    assert len(hub.commits("tester/score-vit")) == 3


def test_private_repository_and_branch(hub, logged_in, run_folder):
    push_run(run_folder, "tester/hidden", private=True, revision="candidate")
    assert hub.repos["model", "tester/hidden"].private
    assert hub.files("tester/hidden") == {}
    assert "model.safetensors" in hub.files("tester/hidden", "candidate")


@pytest.mark.parametrize(
    "name", ["training_args.bin", "optimizer.pt", "trainer_state.json", "checkpoint-5/config.json"]
)
def test_what_belongs_to_the_training_is_refused(run_folder, name):
    path = run_folder / "model" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"anything")
    with pytest.raises(HFScoreError, match=f"^{name} is a pickle or belongs to the training"):
        push_run(run_folder, "tester/m", token="hf_unused")


@pytest.mark.parametrize("place", ["model/model.safetensors", "model/README.md", "report/index.html"])
@pytest.mark.parametrize("secret", ["short-custom-token", "hf_" + "aB3" * 12])
def test_a_token_in_a_file_is_refused_wherever_it_lies(run_folder, place, secret):
    path = run_folder / place
    # Across the border of two chunks, where a search chunk by chunk would miss it.
    path.write_bytes(b"x" * ((1 << 20) - 8) + b" " + secret.encode() + b" " + b"y" * 100)
    with pytest.raises(HFScoreError, match=r"holds an access token: take it out") as error:
        push_run(run_folder, "tester/m", token="short-custom-token")
    assert secret not in str(error.value)


def test_incomplete_runs(run_folder, tmp_path):
    with pytest.raises(HFScoreError, match="There is no run at"):
        push_run(tmp_path / "nowhere", "tester/m", token="t")
    (run_folder / "results.json").write_text("{")
    with pytest.raises(HFScoreError, match=r"results.json is not JSON"):
        push_run(run_folder, "tester/m", token="t")
    (run_folder / "model" / "model.safetensors").unlink()
    with pytest.raises(HFScoreError, match="holds no checkpoint"):
        push_run(run_folder, "tester/m", token="t")


FAIL = """
import sys
from hf_score.errors import HFScoreError
from hf_score.hub import push_run
try:
    push_run(sys.argv[1], sys.argv[2])
except HFScoreError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("repo_id", "environment", "message"),
    [
        ("tester/m", {"HF_TOKEN": ""}, "Nobody is logged in to the Hub: run `hf auth login`"),
        ("tester/m", {"HF_TOKEN": "hf_wrong"}, "The Hub refused the token for tester/m: give one with write access"),
        ("tester/m", {"HF_HUB_OFFLINE": "1"}, "was not pushed because HF_HUB_OFFLINE is set: unset it"),
        ("tester/m", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ("a/b/c", {}, "'a/b/c' is not a repository id: give OWNER/NAME"),
    ],
)
def test_one_sentence_for_what_goes_wrong(hub, client, run_folder, repo_id, environment, message):
    printed = client(FAIL, run_folder, repo_id, **environment).stdout
    assert message in printed
    assert printed.count("\n") == 1
    assert not hub.repos


def test_invalid_card_is_refused_before_anything_is_uploaded(hub, client, run_folder):
    (run_folder / "model" / "README.md").write_text("---\ntags: 3\n---\n")
    assert "was not pushed (Invalid metadata in README.md)" in client(FAIL, run_folder, "tester/m").stdout
    assert hub.files("tester/m") == {}
