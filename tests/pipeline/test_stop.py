"""Stopping a run and going on with it: one sentence, the same result, and never half of it with other options."""

import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from transformers import Trainer

from hf_score import SCORETrainer
from hf_score.cli import main
from hf_score.pipeline import parse_arguments
from hf_score.pipeline.arguments import given_options
from hf_score.pipeline.run_folder import write_options

OPTIONS = [
    *("--model", "test_resnet", "--from_scratch", "--image_size", "32", "--use_cpu", "--disable_tqdm", "true"),
    *("--erm_epochs", "1", "--max_steps", "3", "--score_layer", "stage2", "--mask_area", "0.08"),
    *("--num_candidates", "4", "--decider", "proposal", "--num_keep", "2", "--save_strategy", "steps"),
    *("--save_steps", "1", "--learning_rate", "1e-3"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Class folders: noise, and noise with a bright square."""
    folder, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for i in range(count):
            image = generator.integers(0, 120, size=(32, 32, 3), dtype=np.uint8)
            image[:8, :8] = 255 if i % 2 else image[:8, :8]
            path = folder / split / ("square" if i % 2 else "plain") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder


def weights(run: Path) -> bytes:
    return (run / "score" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert main(["train", "--dataset", str(data), *OPTIONS, "--output_dir", str(run)]) == 0
    return run


@pytest.mark.parametrize(("by", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_training_goes_on_with_the_same_options_only(
    by, status, data, undisturbed, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    save = Trainer._save_checkpoint

    def stop(trainer, *args, **kwargs):
        save(trainer, *args, **kwargs)
        if "score-3" in trainer.args.output_dir and trainer.state.global_step == 2:
            signal.raise_signal(by)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_save_checkpoint", stop)
            assert main(["train", "--dataset", str(data), *OPTIONS, "--output_dir", str(run)]) == status
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr().err
    assert said.endswith(f"\nStopped. This goes on: hf-score train {run}\n") and "Traceback" not in said
    checkpoints = run / "checkpoints" / "score-3"
    assert (checkpoints / "checkpoint-2").is_dir() and not (run / "score").exists()

    options = (run / "run.yaml").read_bytes()
    for changed, told in (
        (["--learning_rate", "0.1"], "learning_rate 0.001, not 0.1"),
        (["--max_steps", "5"], "3, not 5"),
    ):
        assert main(["train", str(run), *changed]) == 2
        refused = capsys.readouterr().err
        assert told in refused and str(checkpoints) in refused
    assert (run / "run.yaml").read_bytes() == options and not (run / "score").exists()

    (checkpoints / "checkpoint-3").mkdir()  # killed while it was written
    begun, train = [], SCORETrainer.train

    def note(trainer, *, resume_from_checkpoint):
        begun.append(resume_from_checkpoint)
        return train(trainer, resume_from_checkpoint=resume_from_checkpoint)

    monkeypatch.setattr(SCORETrainer, "train", note)
    assert main(["train", str(run)]) == 0
    assert begun == [str(checkpoints / "checkpoint-2")]
    assert weights(run) == weights(undisturbed)


def test_a_run_folder_holds_all_options_of_its_run(undisturbed, data):
    kept = yaml.safe_load((undisturbed / "run.yaml").read_text())
    assert kept["dataset"] == str(data) and kept["learning_rate"] == 1e-3 and "output_dir" not in kept
    arguments, config = parse_arguments(["--dataset", str(data), *OPTIONS, "--output_dir", str(undisturbed)])
    for words in ([str(undisturbed)], ["--resume", str(undisturbed)]):
        again, config_again = parse_arguments(words)
        assert again.resume and asdict(again) | {"resume": False} == asdict(arguments)
        assert config_again.to_dict() == config.to_dict()
    copied, elsewhere = parse_arguments(["--config", str(undisturbed / "run.yaml"), "--output_dir", "other"])
    assert copied == arguments and elsewhere.output_dir == "other"


@pytest.mark.parametrize(
    "words",
    [
        ["--lambdas", "1,3.5,1e-5", "--controls", "--class_balanced", "false", "--seed", "3"],
        ["--value_range", "-160", "240", "--class_names", "a b", "c", "--freeze_batch_norm", "false"],
        ["--lr_scheduler_type", "cosine", "--lr_scheduler_kwargs", '{"num_cycles": 2}', "--optim", "sgd"],
        [
            "--cluster_lambdas",
            "0=10",
            "3=1",
            "--save_strategy",
            "steps",
            "--report_to",
            "none",
            "--bf16",
            "--tf32=false",
        ],
        ["--model", "-odd", "--dataloader_pin_memory", "false", "--eval_strategy", "epoch", "--warmup_steps", "0.1"],
    ],
    ids=" ".join,
)
def test_every_kind_of_option_comes_back(words, tmp_path):
    if words[1] == "-odd":
        words = ["--model=-odd", *words[2:]]
    run = tmp_path / "run"
    given = parse_arguments(["--model", "m", "--dataset", "d", "--use_cpu", "--output_dir", str(run), *words])
    run.mkdir()
    write_options(run, *given)
    arguments, config = parse_arguments([str(run)])
    assert asdict(arguments) | {"resume": False} == asdict(given[0])
    assert config.to_dict() == given[1].to_dict()


def test_changed_options_are_named(tmp_path, capsys):
    words = ["--model", "m", "--dataset", "d", "--use_cpu", "--output_dir", str(tmp_path)]
    write_options(tmp_path, *parse_arguments(words))
    assert not capsys.readouterr().err
    write_options(tmp_path, *parse_arguments([str(tmp_path), "--num_keep", "7"]))
    assert capsys.readouterr().err == "num_keep is 7 from here on; it was the default.\n"
    assert given_options(*parse_arguments([str(tmp_path)]))["num_keep"] == 7


def test_a_selection_file_counts_until_it_has_decided(tmp_path):
    words = ["--model", "m", "--dataset", "d", "--use_cpu", "--output_dir", str(tmp_path), "--selection", "mine.json"]
    write_options(tmp_path, *parse_arguments(words))
    assert parse_arguments([str(tmp_path)])[0].selection == "mine.json"
    (tmp_path / "selection.json").write_text("{}")
    assert parse_arguments([str(tmp_path)])[0].selection is None
