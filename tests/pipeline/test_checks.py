"""What a later step needs is asked first: a run that could not be finished ends at once, with nothing written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hub_server import HubServer
from model_inputs import save_vit
from PIL import Image
from publishing.conftest import connection

from hf_score.cli import main
from hf_score.errors import ModelError
from hf_score.pipeline import SeedRun, parse_arguments

TINY = ["--model", "test_resnet", "--from_scratch", "--image_size", "32", "--use_cpu", "--disable_tqdm", "true"]


def class_folders(folder: Path, **counts: int) -> Path:
    """Noise images of so many of each class."""
    generator = np.random.default_rng(len(str(folder)))
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            write_noise(folder / name / f"{i}.png", generator)
    return folder


def write_noise(path: Path, generator: np.random.Generator, size: tuple[int, int] = (32, 32)) -> None:
    Image.fromarray(generator.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def a_data_set(folder: Path, *, train: dict | None = None, test: dict | None = None) -> Path:
    class_folders(folder / "train", **(train or {"cat": 8, "dog": 8}))
    class_folders(folder / "test", **(test or {"cat": 3, "dog": 3}))
    return folder


def refused(words: list[str], out: Path, capsys) -> str:
    """The sentence of a run that is refused before anything was written or trained."""
    assert main(["run", *words, "--output_dir", str(out)]) == 2
    shown = capsys.readouterr()
    sentence = shown.err[shown.err.rindex("error: ") :].strip()
    assert not out.exists() and not shown.out
    assert "\n" not in sentence and sentence.endswith("."), sentence
    return sentence


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"train": {"cat": 1, "dog": 8}}, "no second training image of 'cat'"),
        ({"train": {"cat": 1, "dog": 1}}, "no second training image of 'cat', 'dog'"),
        ({"test": {"cat": 3}}, "test split of 'data' has no image of 'dog'"),
    ],
)
def test_two_classes_are_needed_in_every_split(counts, told, tmp_path, capsys):
    data = a_data_set(tmp_path / "data", **counts)
    assert told in refused([*TINY, "--dataset", str(data)], tmp_path / "out", capsys)


@pytest.mark.parametrize(
    ("counts", "told"),
    [({"cat": 2, "dog": 2}, "no second training image"), ({"cat": 1, "dog": 8}, "no image of 'cat' would be left")],
)
def test_class_folders_alone_need_images_for_every_split(counts, told, tmp_path, capsys):
    data = class_folders(tmp_path / "data", **counts)
    assert told in refused([*TINY, "--dataset", str(data)], tmp_path / "out", capsys)


def test_a_class_that_cannot_be_measured_beside_two_others_is_said(tmp_path, caplog):
    data = a_data_set(
        tmp_path / "data", train={"cat": 8, "cow": 1, "dog": 8, "elk": 8}, test={"cat": 2, "cow": 2, "dog": 2}
    )
    words = [*TINY, "--dataset", str(data), "--output_dir", str(tmp_path / "out"), "--num_candidates", "2"]
    assert main(["run", *words, "--erm_epochs", "1"]) == 0  # waits for decisions
    assert "no second training image of 'cow' to set aside: nothing is measured on that there" in caplog.text
    assert "The test split of 'data' has no image of 'elk': nothing is measured" in caplog.text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--selection", "nowhere.json"], "there is no selection file"),
        (["--selection", "broken.json"], "cannot be read as JSON"),
        (["--selection", "other.json"], "decided for another data set"),
        (["--decider", "oracle"], "has no masks of the shortcut"),
        (["--report_to", "nowhere"], "nowhere is not supported"),
        (["--optim", "adamw_bnb_8bit"], "install `bitsandbytes`"),
        (["--score_layer", "nowhere"], "no layer 'nowhere'"),
        (["--push_to_hub", "true"], "nobody is logged in to the Hub"),
        (["--push_to_hub", "true", "--hub_model_id", "a/b/c"], "'a/b/c' is not a repository id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_fail_later_are_refused_first(options, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hf_score.pipeline.checks.get_token", lambda: None)
    if "bitsandbytes" in told:
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    (tmp_path / "broken.json").write_text("{")
    other = {"schema": "hf-score/selection/1", "dataset_fingerprint": "0" * 16, "model_fingerprint": "m"}
    (tmp_path / "other.json").write_text(json.dumps({**other, "decisions": []}))
    data = a_data_set(tmp_path / "data")
    assert told in refused([*TINY, "--dataset", str(data), *options], tmp_path / "out", capsys)


def test_the_hub_is_asked_before_a_run_that_is_pushed(tmp_path, capsys, monkeypatch):
    data = a_data_set(tmp_path / "data")
    words = [*TINY, "--dataset", str(data), "--push_to_hub", "true", "--hub_model_id", "tester/m"]
    with HubServer(tmp_path / "hub") as hub, connection(hub):
        words_of_run = ["run", *words, "--output_dir", str(tmp_path / "out"), "--erm_epochs", "1"]
        assert main(words_of_run) == 0  # waits for decisions
        capsys.readouterr()
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        assert "The Hub refused the token for tester/m" in refused(words, tmp_path / "other", capsys)
    assert not hub.repos


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("train/cat/0.png", "cannot make one batch of images of 2 sizes"),  # among those that are tried
        ("test/dog/2.png", "split 'test' has one of 50×40 pixels (idx 5)"),
    ],
)
def test_one_image_of_another_size_and_a_processor_that_does_not_resize(place, told, tmp_path, capsys):
    data = a_data_set(tmp_path / "data", train={"cat": 40, "dog": 40})
    save_vit(tmp_path / "model", ["cat", "dog"], processor={"do_resize": False})
    words = ["--model", str(tmp_path / "model"), "--use_cpu", "--dataset", str(data)]
    write_noise(data / place, np.random.default_rng(0), size=(50, 40))
    sentence = refused(words, tmp_path / "out", capsys)
    assert told in sentence and "50×40" in sentence and "set do_resize=true" in sentence


def test_a_frozen_model_is_refused_before_the_scan(tmp_path):
    data = a_data_set(tmp_path / "data")
    save_vit(tmp_path / "model", ["cat", "dog"])
    words = ["--model", str(tmp_path / "model"), "--use_cpu", "--dataset", str(data)]
    arguments, config = parse_arguments([*words, "--output_dir", str(tmp_path / "out")])
    seed_run = SeedRun(tmp_path / "out", arguments, config)
    seed_run.workspace.loaded.model.requires_grad_(False)
    with pytest.raises(ModelError, match="All weights of ViTForImageClassification are frozen"):
        seed_run.check()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("installed", [True, False])
def test_what_the_review_needs_is_said_where_the_run_stops(installed, tmp_path, capsys, monkeypatch):
    if not installed:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
    data = a_data_set(tmp_path / "data")
    save_vit(tmp_path / "model", ["cat", "dog"])
    words = ["--model", str(tmp_path / "model"), "--use_cpu", "--dataset", str(data), "--num_candidates", "2"]
    assert main(["run", *words, "--output_dir", str(tmp_path / "out")]) == 0
    said = "The review page needs uvicorn: pip install 'hf-score[review]'." in capsys.readouterr().out
    assert said == (not installed)
