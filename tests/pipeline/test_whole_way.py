"""From folders of real photographs to a model on the Hub, by what a person types: run, review, resume, push.

Neither groups nor masks, a model with a sigmoid for each output, and pictures as PNG or as DICOM. What is pushed is
loaded by `pipeline` in a process in which hf-score cannot be imported.
"""

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from data.inputs import write_dicom
from datasets import load_dataset
from hub_server import HubServer
from model_inputs import MULTI, save_vit
from publishing.conftest import Client, connection
from transformers import AutoImageProcessor

import hf_score
from hf_score.cli import main
from hf_score.data import load_data
from hf_score.models import classes_of_model, load_checkpoint
from hf_score.review import DecisionStore

PHOTOGRAPHS = Path(hf_score.__file__).parent / "data" / "registry" / "fashion_patch"
CLASSES = ["pullover", "shirt"]
SAY = """
import json, sys
sys.modules["hf_score"] = None  # any import of it fails
from transformers import pipeline
for model, image in zip(sys.argv[1::2], sys.argv[2::2]):
    print(json.dumps({one["label"]: one["score"] for one in pipeline("image-classification", model=model)(image)}))
"""


@dataclass
class Kind:
    """A kind of model and of files; `outputs` of the model, and which one is looked at."""

    name: str
    outputs: list[str]
    suffix: str
    split: bool
    model: dict[str, str]
    options: tuple[str, ...] = ()


KINDS = [
    Kind("one_output", ["shirt"], ".png", False, {}),
    Kind("multi_label", ["shirt", "pocket", "pullover"], ".dcm", True, MULTI, ("--label", "shirt")),
    Kind("two_outputs", CLASSES, ".dcm", False, {}),
]


def write_photographs(folder: Path, split: str, *, each: int, suffix: str) -> None:
    """Class folders of the embedded photographs, the first of every class and kind."""
    rows = load_dataset("parquet", data_files=str(PHOTOGRAPHS / f"{split}.parquet"), split="train")
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in np.flatnonzero(np.array(rows["label"][:]) == label)[:each].tolist():
            image, path = rows[i]["image"].convert("RGB"), folder / name / f"{i}{suffix}"
            if suffix == ".dcm":
                write_dicom(path, np.asarray(image))
            else:
                image.save(path)


@dataclass
class Walked:
    """What was said on the way of one kind, and where it ended."""

    kind: Kind
    data: Path
    run: Path
    repo_id: str
    files: dict[str, bytes]
    stopped: str
    finished: str


def say(words: list[str]) -> str:
    """What a command that succeeds prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert main(words) == 0
    return printed.getvalue()


def walk(kind: Kind, folder: Path, hub: HubServer) -> Walked:
    """The whole way, with every second candidate judged to be a shortcut."""
    data, run = folder / "photographs", folder / "run"
    if kind.split:
        write_photographs(data / "train", "train", each=24, suffix=kind.suffix)
        write_photographs(data / "test", "test", each=12, suffix=kind.suffix)
    else:
        write_photographs(data, "train", each=32, suffix=kind.suffix)
    save_vit(folder / "model", kind.outputs, **kind.model)
    words = ["run", "--model", str(folder / "model"), "--dataset", str(data), "--output_dir", str(run), *kind.options]
    words += ["--use_cpu", "--max_steps", "4", "--learning_rate", "1e-3", "--num_candidates", "6"]
    words += ["--disable_tqdm", "true"]
    stopped = say(words)
    assert not (run / "score").exists()
    store = DecisionStore(run)
    store.decide(range(len(store.table)), "core")
    store.decide(range(0, len(store.table), 2), "spurious")
    finished = say([*words, "--resume"])
    repo_id = f"tester/{kind.name}"
    with connection(hub):
        say(["push", str(run), "--repo_id", repo_id])
    return Walked(kind, data, run, repo_id, hub.files(repo_id), stopped, finished)


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Iterator[HubServer]:
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def walks(hub, tmp_path_factory) -> list[Walked]:
    return [walk(kind, tmp_path_factory.mktemp(kind.name), hub) for kind in KINDS]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def walked(request, walks) -> Walked:
    return walks[KINDS.index(request.param)]


def test_it_stops_for_a_person_and_says_how_to_go_on(walked):
    assert "12 candidates in" in walked.stopped and f"\n  hf-score review {walked.run}\n" in walked.stopped
    assert walked.stopped.endswith(f"\n  hf-score run --resume {walked.run}\n")


def test_the_report_tells_what_came_of_it(walked):
    results = json.loads((walked.run / "results.json").read_text())
    assert sorted(results["dataset"]["class_names"]) == CLASSES
    assert results["selection"]["decided_by"] == "person" and sum(results["selection"]["classes"].values()) == 6
    assert results["dataset"]["group_names"] is None
    for method in results["methods"].values():
        figures = method["runs"][0]["verdict"]["figures"]
        assert figures["inserted"]["count"] > 0 and figures["auroc"]["value"] is not None
    page = (walked.run / "report" / "index.html").read_text()
    verdict = "regions that a person judged to be a shortcut"
    for shown in (walked.finished, page, walked.files["README.md"].decode()):
        assert verdict in shown.replace("\u00a0", " ")
    assert page.count("data:image/png") >= 4  # two contact sheets, curves, heatmaps
    assert {path.name for path in (walked.run / "contact_sheets").iterdir()} == {"pullover.png", "shirt.png"}


def test_files_from_a_scanner_are_the_same_pixels(walks):
    """The class folders of PNG and of DICOM hold the same photographs, and training sees the same."""
    png, dicom = (load_data(one.data) for one in (walks[0], walks[2]))
    assert {path.suffix for path in walks[2].data.rglob("*.*")} == {".dcm"}
    for split in ("train", "held_out", "test"):
        there, here = getattr(png, split), getattr(dicom, split)
        assert there["label"][:] == here["label"][:]
        for a, b in zip(there["image"], here["image"], strict=True):
            assert (np.asarray(a.convert("RGB")) == np.asarray(b.convert("RGB"))).all()


def test_what_was_pushed_is_a_stock_checkpoint(walks, hub, tmp_path):
    """`pipeline` gives of every output the probability that the run's model gives to its class."""
    image = load_data(walks[0].data).test[0]["image"]
    image.save(tmp_path / "image.png")
    pairs = [word for one in walks for word in (one.repo_id, tmp_path / "image.png")]
    said = [json.loads(line) for line in Client(hub, tmp_path)(SAY, *pairs).stdout.splitlines()]
    for one, scores in zip(walks, said, strict=True):
        assert scores.keys() == {*one.kind.outputs}
        model = load_checkpoint(one.run / "model")
        pixel_values = AutoImageProcessor.from_pretrained(one.run / "model")([image], return_tensors="pt")
        with torch.no_grad():
            probabilities = model(**pixel_values).logits.softmax(dim=1)[0].tolist()
        names = classes_of_model(model)
        assert scores["shirt"] == pytest.approx(probabilities[list(names.values()).index("shirt")], abs=1e-5)
        if one.kind.name == "two_outputs":
            assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        assert 0 < scores["shirt"] < 1


def test_the_card_says_what_the_scores_are(walks):
    one, several, two = (" ".join(walked.files["README.md"].decode().split()) for walked in walks)
    assert "The score of “shirt” is the probability of the class shirt" in one
    assert "The score of “shirt” is the probability of the class shirt" in several
    assert "Its other 2 labels" in several and "other" not in one[one.index("The score of") :][:200]
    assert "The score of" not in two
