"""The user's command, from data to report, and every bad input in one sentence with exit status 2."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import pipeline

from hf_score import SCOREConfig
from hf_score.cli import main
from hf_score.detection import Candidates, ObjectFinder, Selection
from hf_score.models import load_model
from hf_score.pipeline import RunArguments
from hf_score.pipeline.controls import methods_of
from hf_score.pipeline.run_folder import DECIDES, HARMLESS, inputs_of
from hf_score.report import FORMS, render_model_card, render_table
from hf_score.review import DecisionStore

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    *("--model", "test_resnet", "--from_scratch", "--image_size", "32", "--use_cpu", "--disable_tqdm", "true"),
    *("--erm_epochs", "3", "--erm_learning_rate", "2e-3", "--max_steps", "3", "--per_device_train_batch_size", "32"),
    *("--mask_area", "0.08", "--oracle_threshold", "0.1", "--num_candidates", "20", "--score_layer", "stage2"),
]


def folder_of_squares(folder: Path, *, classes: int = 2, extra: dict | None = None) -> Path:
    """An imagefolder with metadata.csv: class 1 carries a bright square."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        (folder / split).mkdir(parents=True)
        lines = ["file_name,label,spurious,group"]
        for i in range(count):
            label = i % classes
            image = generator.integers(0, 120, size=(32, 32, 3), dtype=np.uint8)
            if label:
                image[:8, :8] = 255
            Image.fromarray(image).save(folder / split / f"{i}.png")
            lines.append(f"{i}.png,{label},{label},{3 * label}")
        (folder / split / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    command = [sys.executable, str(ROOT / "examples" / "run_score.py"), "--dataset", "fashion_patch", *TINY]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--output_dir", str(folder)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "has no head for these classes: fine-tuning it first" in done.stdout
    assert "worst group" in done.stdout and "index.html" in done.stdout
    assert "pasted into 256 test images of other classes" in done.stdout
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> tuple[Path, list[str]]:
    """A copy of the finished run for one test, and its options."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    return run, ["--dataset", "fashion_patch", *TINY, "--output_dir", str(run)]


def test_a_run_leaves_everything_it_promises(finished):
    results = json.loads((finished / "results.json").read_text())
    assert list(results["methods"]) == ["erm", "score"]
    for method in results["methods"].values():
        metrics = method["runs"][0]["metrics"]
        groups = [value for value in metrics["group_accuracy"].values() if value is not None]
        assert metrics["worst_group_accuracy"] == min(groups) and len(groups) == 4
        assert 0 <= method["runs"][0]["relevance_in_region"] <= 1
        assert method["runs"][0]["verdict"]["figures"]["inserted"]["count"] == 256
    weights = (finished / "model" / "model.safetensors").read_bytes()
    assert results["methods"]["score"]["runs"][0]["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert results["selection"]["decided_by"] == "oracle"
    selection = json.loads((finished / "selection.json").read_text())
    assert selection["schema"] == "hf-score/selection/1" and selection["decisions"]
    page = (finished / "report" / "index.html").read_text()
    assert "data:image/png" in page and 'src="http' not in page
    assert sorted(p.name for p in (finished / "contact_sheets").iterdir()) == ["pullover.png", "shirt.png"]
    assert not list(finished.rglob("training_args.bin")) and not (finished / "checkpoints").exists()


def test_the_model_is_a_stock_checkpoint(finished):
    classifier = pipeline("image-classification", model=str(finished / "model"))
    answer = classifier(Image.new("RGB", (32, 32)))
    assert {entry["label"] for entry in answer} == {"pullover", "shirt"}
    assert "| SCORE-X |" in (finished / "model" / "README.md").read_text().replace("**", "")


def test_a_selection_file_decides_and_one_for_another_data_set_is_refused(finished, tmp_path, capsys):
    mine = tmp_path / "selection.json"
    content = json.loads((finished / "selection.json").read_text())
    content["dataset_fingerprint"] = "0" * 16
    mine.write_text(json.dumps(content))
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "selection.json").unlink()
    words = ["--dataset", "fashion_patch", *TINY, "--output_dir", str(run), "--selection", str(mine)]
    assert main(["decide", *words]) == 2
    assert "decided for another data set (fingerprint 0000000000000000" in capsys.readouterr().err
    assert not (run / "selection.json").exists()
    content = json.loads((finished / "selection.json").read_text())
    mine.write_text(json.dumps(content))
    assert main(["decide", *words]) == 0
    assert json.loads((run / "selection.json").read_text()) == content


def test_without_masks_a_person_decides_on_the_review_page_and_the_run_goes_on(tmp_path, capsys):
    data, run = folder_of_squares(tmp_path / "data"), tmp_path / "run"
    words = ["run", "--dataset", str(data), *TINY, "--num_candidates", "4", "--output_dir", str(run)]
    assert main(words) == 0  # nothing has failed
    shown = capsys.readouterr().out
    assert (
        "8 candidates in" in shown
        and f"\n  hf-score review {run}\n" in shown
        and shown.endswith(f"\n  hf-score run --resume {run}\n")
    )
    assert not (run / "selection.json").exists() and not (run / "score").exists()
    store = DecisionStore(run)
    assert len(store.table) == 8
    store.decide(range(8), "core")
    assert main(["run", "--resume", str(run)]) == 2
    assert "none of the 8 candidates" in capsys.readouterr().err
    store.decide(range(4, 8), "spurious")
    capsys.readouterr()
    assert main(["run", "--resume", str(run)]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["selection"]["decided_by"] == "person"
    verdict = results["methods"]["score"]["runs"][0]["verdict"]
    assert verdict["figures"]["inserted"]["count"] == 4 and verdict["samples"] == {"count": 4, "held_out": False}
    sentence = (
        "regions that a person judged to be a shortcut (4 samples, the same that were penalised) were pasted into 4"
    )
    places = (
        capsys.readouterr().out,
        (run / "report" / "index.html").read_text(),
        (run / "model" / "README.md").read_text(),
    )
    for shown in places:
        assert sentence in shown.replace("\u00a0", " ") and "too few pictures for a verdict" in shown
        assert "cannot be judged" not in shown


def test_a_repair_without_training_is_a_stock_checkpoint_and_a_row_of_the_report(copied, capsys):
    run, _ = copied
    assert main(["repair", str(run)]) == 0
    record, said = json.loads((run / "repair.json").read_text()), capsys.readouterr().out
    assert record["edit"] != "none" and record["estimate_after"] > record["estimate_before"]
    assert record["accuracy_after"] >= record["accuracy_before"] - 0.01 and str(run / "repair") in said
    before, after = ({**load_file(run / name / "model.safetensors")} for name in ("erm", "repair"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and len(changed) == 2  # weight and bias of the head
    answer = pipeline("image-classification", model=str(run / "repair"))(Image.new("RGB", (32, 32)))
    assert {entry["label"] for entry in answer} == {"pullover", "shirt"}
    assert main(["evaluate", str(run)]) == 0 and main(["report", str(run)]) == 0
    assert list(json.loads((run / "results.json").read_text())["methods"]) == ["erm", "repair", "score"]
    assert "repair, no training" in (run / "report" / "index.html").read_text()
    assert not (run / "checkpoints").exists()


def test_a_repair_that_cannot_be_is_refused_in_a_sentence(copied, tmp_path, capsys):
    run, _ = copied
    for words, told in (
        (["repair", str(tmp_path / "nowhere")], "has no run.yaml"),
        (["repair", str(run), "--max_loss", "-1"], "max_loss is -1.0"),
    ):
        assert main(words) == 2
        assert told in capsys.readouterr().err
    (run / "selection.json").unlink()
    assert main(["repair", str(run)]) == 2
    assert "has no selection.json yet" in capsys.readouterr().err
    assert not (run / "repair").exists()


def test_a_proposal_decides_only_when_asked_and_is_marked(tmp_path):
    data, run = folder_of_squares(tmp_path / "data"), tmp_path / "run"
    words = ["--dataset", str(data), *TINY, "--num_candidates", "4", "--output_dir", str(run)]
    assert main(["run", *words, "--decider", "proposal", "--num_keep", "2"]) == 0
    assert json.loads((run / "results.json").read_text())["selection"]["decided_by"] == "proposal"
    assert "proposal" in (run / "model" / "README.md").read_text()
    page = (run / "report" / "index.html").read_text()
    assert "regions that a proposal, seen by nobody, took" in page and "nobody has looked at them" in page


def test_masks_can_be_all_but_what_another_model_sees(finished, tmp_path):
    data, run, other = folder_of_squares(tmp_path / "data"), tmp_path / "run", str(finished / "model")
    words = ["scan", "--dataset", str(data), *TINY, "--num_candidates", "4", "--output_dir", str(run)]
    assert main([*words, "--object_model", other, "--object_share", "0.3"]) == 0
    found = Candidates.load(run / "candidates")
    model, processor, _ = load_model(other, class_names=None)
    seen = ObjectFinder(model, processor, share=0.3)(np.stack([np.asarray(image) for image in found.images]))
    assert (found.masks != seen.numpy()).mean() > 0.999


def test_arguments_that_do_not_go_together_end_in_one_sentence(tmp_path, capsys):
    words = ["--model", "test_resnet", "--dataset", "fashion_patch", "--output_dir", str(tmp_path / "out")]
    for options, told in (
        (["--cluster_lambdas", "0=10", "--lambdas", "1,3"], "give it with score_lambda, or give lambdas alone"),
        (["--cluster_lambdas", "0:10"], "cluster_lambdas is '0:10': give a cluster and its λ such as 3=1.0"),
        (["--lambdas", "0", "3"], "lambdas is '0 3': give numbers above 0"),
        (["--score_forms", "paper,mine"], "score_forms has 'mine': give some of paper, exchange, both"),
        (["--score_forms", "paper", "both", "--controls"], "controls are of one form"),
    ):
        assert main(["run", *words, *options]) == 2
        assert told in capsys.readouterr().err
    assert main(["run", *words, "--score_lambda", "-1"]) == 2
    assert "score_lambda is -1.0" in capsys.readouterr().err
    assert main(["run", *words, "--fp16", "true", "--bf16", "true", "--use_cpu", "true"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def bad(name: str, folder: Path) -> tuple[list[str], str]:
    """Options that are wrong in one way, and what the sentence has to say."""
    if name == "no such folder":
        return ["--dataset", str(folder / "nowhere")], "nowhere"
    if name == "not empty":
        (folder / "out").mkdir()
        (folder / "out" / "mine.txt").write_text("keep me")
        return ["--dataset", "fashion_patch"], "is not empty"
    if name == "hub id offline":
        return ["--dataset", "fashion_patch", "--model", "google/vit-base-patch16-224"], "google/vit-base-patch16-224"
    if name == "no such object model":
        return ["--dataset", "fashion_patch", "--object_model", "nowhere/at-all"], "nowhere/at-all"
    if name == "unsupported architecture":
        return ["--dataset", "fashion_patch", "--model", "hrnet_w18_small"], "HighResolutionNet"
    data = folder_of_squares(folder / "data", classes=1 if name == "one class" else 2)
    if name == "no label":
        table = data / "train" / "metadata.csv"
        table.write_text(table.read_text().replace("label,", "kind,"))
        return ["--dataset", str(data)], "label"
    if name == "truncated image":
        image = data / "train" / "3.png"
        image.write_bytes(image.read_bytes()[:200])
        return ["--dataset", str(data), "--strict"], "3.png"
    assert name == "one class"
    return ["--dataset", str(data)], "one class"


@pytest.mark.parametrize(
    "name",
    [
        "no such folder",
        "not empty",
        "hub id offline",
        "no such object model",
        "unsupported architecture",
        "no label",
        "truncated image",
        "one class",
    ],
)
def test_bad_input_ends_in_one_sentence_and_writes_nothing(name, tmp_path, capsys):
    options, said = bad(name, tmp_path)
    before = sorted(p.name for p in (tmp_path / "out").glob("*"))
    scratch = [] if "google" in str(options) else ["--from_scratch"]
    words = ["--model", "test_resnet", *scratch, "--image_size", "32", "--use_cpu", *options]
    if name == "hub id offline":
        words = [word for word in words if word not in ("--image_size", "32")]
    assert main(["run", *words, "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    sentence = error[error.index("error: ") :].strip()
    assert said.lower() in sentence.lower() and "\n" not in sentence, sentence
    assert sorted(p.name for p in (tmp_path / "out").glob("*")) == before


def test_what_other_options_made_is_not_taken_for_theirs(copied, capsys):
    run, words = copied
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for step, options, part, told in (
        (["run", "--resume"], ["--score_lambda", "10"], "score", "score_lambda 3.0, not 10.0"),
        (["run", "--resume"], ["--model", "resnet18"], "erm", "model 'test_resnet', not 'resnet18'"),
        (["evaluate"], ["--mask_area", "0.3"], "candidates", "mask_area 0.08, not 0.3"),
        (["train"], ["--num_keep", "5"], "selection.json", "num_keep 40, not 5"),
        (["decide"], ["--decider", "proposal"], "selection.json", "decider 'oracle', not 'proposal'"),
        (["run", "--resume"], ["--num_seeds", "2"], "", "num_seeds 1, not 2"),
    ):
        assert main([*step, *words, *options]) == 2, options
        error = capsys.readouterr().err
        assert told in error and str(run / part) in error and error.count("\n") == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "options",
    [
        ["--per_device_train_batch_size", "16"],
        ["--weight_decay", "0.1"],
        ["--lr_scheduler_type", "cosine"],
        ["--class_balanced", "false"],
        ["--invert_masks"],
        ["--masks", "elsewhere"],
        ["--max_grad_norm", "0.5"],
        ["--adam_beta2", "0.98"],
        ["--erm_epochs", "4"],
    ],
    ids=" ".join,
)
def test_every_option_that_decides_a_part_is_noticed(copied, capsys, options):
    run, words = copied
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["run", "--resume", *words, *options]) == 2
    assert f"was made with {options[0].removeprefix('--')} " in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_harmless_options_are_those_that_are_listed():
    """A new option of transformers or of ours decides the starting model until somebody says that it does not."""
    arguments, config = RunArguments(model="m", dataset="d"), SCOREConfig("out", use_cpu=True)
    everything = inputs_of("results.json", arguments, config, erm_is_trained=True)
    options = {f.name for kind in (RunArguments, SCOREConfig) for f in fields(kind)}
    assert {name for name in options - everything.keys() if not name.startswith(HARMLESS)} == {
        *DECIDES["selection.json"],  # results know the decisions themselves
    }
    assert all(any(name.startswith(beginning) for name in options) for beginning in HARMLESS)
    assert {"seed", "weight_decay", "bf16", "dataset", "erm_epochs"} <= inputs_of(
        "erm", arguments, config, erm_is_trained=True
    ).keys()


def test_a_model_that_is_taken_as_it_came_does_not_depend_on_how_others_are_trained():
    arguments, config = RunArguments(model="m", dataset="d"), SCOREConfig("out", use_cpu=True)
    inputs = inputs_of("candidates", arguments, config, erm_is_trained=False)
    assert "weight_decay" not in inputs and {"score_layer", "seed", "num_candidates"} <= inputs.keys()


def test_several_seeds_with_all_controls(tmp_path, capsys):
    data, run = folder_of_squares(tmp_path / "data"), tmp_path / "run"
    for split, count in (("train", 24), ("test", 8)):
        (tmp_path / "masks" / split).mkdir(parents=True)
        for i in range(1, count, 2):
            mask = np.zeros((32, 32), dtype=np.uint8)
            mask[:8, :8] = 255
            Image.fromarray(mask).save(tmp_path / "masks" / split / f"{i}.png")
    words = ["run", "--dataset", str(data), "--masks", str(tmp_path / "masks"), *TINY, "--output_dir", str(run)]
    words += ["--num_seeds", "2", "--controls", "--seed", "5", "--oracle_threshold", "0.01"]
    assert main(words) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["seeds"] == [5, 6]
    assert list(results["methods"]) == methods_of(SCOREConfig("out", use_cpu=True), controls=True)
    assert len(results["methods"]) == 6
    for key, method in results["methods"].items():
        assert [one["seed"] for one in method["runs"]] == [5, 6]
        for one in method["runs"]:
            weights = (run / f"seed-{one['seed']}" / key / "model.safetensors").read_bytes()
            assert one["weights_sha256"] == hashlib.sha256(weights).hexdigest()
            own = json.loads((run / f"seed-{one['seed']}" / "results.json").read_text())
            assert own["methods"][key]["runs"] == [one]
    digests = {one["weights_sha256"] for method in results["methods"].values() for one in method["runs"]}
    assert len(digests) == 12  # no two controls are the same training
    shown = capsys.readouterr().out
    assert "Seed 5" in shown and "Seed 6" in shown and "±" in shown
    before = {path: path.stat().st_mtime_ns for path in run.rglob("model.safetensors") if "model" not in path.parts}
    assert main([*words, "--resume"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_chosen_lambda_is_the_one_that_results_and_card_name(copied, capsys):
    run, words = copied
    shutil.rmtree(run / "score")
    words = [*words, "--lambdas"]
    with pytest.raises(SystemExit):
        main(["train", *words, "1", "many"])
    assert "invalid float value: 'many'" in capsys.readouterr().err
    for step in ("train", "evaluate", "report"):
        assert main([step, *words, "0.5,200"]) == 0
    results = json.loads((run / "results.json").read_text())
    (one,) = results["methods"]["score"]["runs"]
    assert [value for value, _ in one["lambda_estimates"]] == [0.5, 200]
    assert one["score_lambda"] == max(one["lambda_estimates"], key=lambda pair: pair[1])[0]
    assert "score_lambda" not in results["config"]
    chosen = f"λ = {one['score_lambda']:g} for seed 42 (0.5: "
    assert chosen in (run / "report" / "index.html").read_text()
    assert chosen in render_model_card(results, model_name="mine")


def test_a_chosen_form_is_the_one_that_results_and_card_name(copied):
    run, words = copied
    shutil.rmtree(run / "score")
    for step in ("train", "evaluate", "report"):
        assert main([step, *words, "--score_forms", "exchange,both"]) == 0
    results = json.loads((run / "results.json").read_text())
    (one,) = results["methods"]["score"]["runs"]
    estimates = {form: estimate for form, _, estimate in one["form_estimates"]}
    assert list(estimates) == ["exchange", "both"] and "score_form" not in results["config"]
    assert one["score_form"] == max(estimates, key=estimates.get)
    name = FORMS[one["score_form"]]
    assert name in render_table(results) and name in (run / "report" / "index.html").read_text()
    assert name in render_model_card(results, model_name="mine")


def test_a_cluster_has_a_lambda_of_its_own(copied, finished, capsys):
    run, words = copied
    shutil.rmtree(run / "score")
    words = [*words, "--cluster_lambdas"]
    assert main(["train", *words, "99=1"]) == 2
    assert "there is no cluster 99" in capsys.readouterr().err
    candidates, samples = Candidates.load(run / "candidates"), Selection.load(run / "selection.json").spurious
    of_sample = dict(zip(candidates.idx.tolist(), candidates.cluster.tolist(), strict=True))
    everyone = ",".join(f"{cluster}=9" for cluster in {of_sample[decision.idx] for decision in samples})
    assert main(["train", *words, everyone]) == 0
    assert (run / "score" / "model.safetensors").read_bytes() != (
        finished / "score" / "model.safetensors"
    ).read_bytes()


def test_a_model_is_trained_anew_for_other_decisions_or_not_used(copied, capsys):
    run, words = copied
    selection = json.loads((run / "selection.json").read_text())
    kept = [d for d in selection["decisions"] if d["verdict"] == "spurious"]
    kept[0] |= {"verdict": "core", "decided_by": "person"}
    (run / "selection.json").write_text(json.dumps(selection))
    assert main(["train", *words]) == 2
    assert f"decisions '{len(kept)} spurious" in capsys.readouterr().err
    weights = (run / "score" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "score")
    assert main(["train", *words, "--num_keep", "5"]) == 0  # the oracle's option, and a person has decided
    assert (run / "score" / "model.safetensors").read_bytes() != weights
    assert main(["report", *words]) == 2  # the results are still those of the old model
    assert f"{run / 'results.json'} was made with decisions" in capsys.readouterr().err
    assert main(["evaluate", *words]) == main(["report", *words]) == 0
