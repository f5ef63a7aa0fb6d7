"""A loopback Hub, a tiny stock checkpoint and a run folder around it.

What downloads runs in a process of its own, with an empty cache; what only pushes runs here, `logged_in`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import close_session, constants
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

sys.path.insert(0, str(Path(__file__).parents[1]))

from hub_server import HubServer

from hf_score.detection import Candidates, Decision, Selection
from hf_score.publishing.push import push_run
from hf_score.report import contact_sheet, write_report


class Client:
    """Run Python code in a fresh process that is logged in at `hub` and has an empty cache of its own."""

    def __init__(self, hub: HubServer, root: Path, python: str | Path = sys.executable) -> None:
        self.hub, self.root, self.python = hub, root, python

    def __call__(self, code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        home = tempfile.mkdtemp(dir=self.root, prefix="home")
        variables = self.hub.environment(home) | {"OMP_NUM_THREADS": "1"} | environment
        command = [str(self.python), "-c", code, *map(str, arguments)]
        result = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=home, timeout=300)
        assert result.returncode == 0, result.stderr
        return result


GROUPS = ["benign, plain", "benign, patch", "malignant, plain", "malignant, patch"]


def make_run(run: Path, checkpoint: Path) -> Path:
    """What a finished run leaves: an open data set that is on the Hub, and the traces of a machine in the results."""
    shutil.copytree(checkpoint, run / "model")
    images = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((4, 32, 32), dtype=bool)
    masks[:, :8, :8] = True
    made_from = {"dataset_fingerprint": "data0", "model_fingerprint": "model0"}
    Candidates(
        idx=np.arange(10, 14),
        position=np.arange(4),
        labels=np.array([0, 0, 1, 1]),
        logits=np.arange(4.0, dtype=np.float32),
        masked_margins=np.ones(4, dtype=np.float32),
        heatmaps=np.ones((4, 32, 32), dtype=np.float32),
        masks=masks,
        shortcut_relevance=np.ones((4, 2), dtype=np.float32),
        cluster=np.zeros(4, dtype=np.int64),
        layer="block1",
        class_names=("benign", "malignant"),
        images=[Image.fromarray(image) for image in images],
        **made_from,
    ).save(run / "candidates")
    kept = (Decision(10, 0, "spurious", "person"), Decision(11, 0, "spurious", "person"))
    Selection((*kept, Decision(12, 1, "core", "person")), **made_from).save(run / "selection.json")
    metrics: dict[str, Any] = {
        "accuracy": 0.75,
        "mean_group_accuracy": 0.75,
        "worst_group_accuracy": 0.5,
        "worst_group": GROUPS[1],
        "group_accuracy": dict(zip(GROUPS, (1.0, 0.5, 0.75, 0.75), strict=True)),
    }
    supervision = "class labels + person decisions"
    results = {
        "schema": "hf-score/results/1",
        "created": "2026-01-02T03:04:05+00:00",
        "command": f"hf-score run --output_dir {run} --hub_token secret",
        "model": {
            "name": str(checkpoint),
            "architecture": "ViTForImageClassification",
            "base_model": "facebook/deit-tiny-patch16-224",
        },
        "dataset": {
            "name": "owner/skin",
            "class_names": ["benign", "malignant"],
            "group_names": GROUPS,
            "licence": "CC BY 4.0",
            "source": str(run.parent / "skin"),
        },
        "config": {"output_dir": str(run), "score_form": "exchange", "score_lambda": 3.0},
        "seeds": [0],
        "selection": {"decided_by": "person", "classes": {"benign": 2, "malignant": 0}},
        "methods": {
            "score": {"label": "SCORE", "supervision": supervision, "runs": [{"seed": 0, "metrics": metrics}]}
        },
    }
    (run / "results.json").write_text(json.dumps(results))
    sheet = contact_sheet(images, None, masks, captions=[""] * 4, title="benign")
    write_report(run / "report", results, {"contact_sheet/benign": (sheet, "Candidates of class benign.")})
    return run


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    return Client(hub, tmp_path)


@contextmanager
def connection(hub: HubServer) -> Iterator[None]:
    """This process's client talks to `hub`: it has read its settings from the environment when it was imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (hub.variables() | {"HF_TOKEN": hub.token}).items():
            patch.setenv(name, value)
        read = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in read.items():
            patch.setattr(constants, name, value)
        patch.setattr("transformers.utils.hub._hf_api", None)
        close_session()
        yield
    close_session()


@pytest.fixture
def logged_in(hub: HubServer) -> Iterator[None]:
    with connection(hub):
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    names = ["benign", "malignant"]
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def made_run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "runs" / "one", checkpoint)


@pytest.fixture
def run_folder(made_run: Path, tmp_path: Path) -> Path:
    """A copy of its own for each test."""
    return Path(shutil.copytree(made_run, tmp_path / "runs" / "one"))


@dataclass
class Pushed:
    """A run after `push_run` to `repo_id`, and what that returned."""

    hub: HubServer
    client: Client
    run_folder: Path
    repo_id: str
    url: str


@pytest.fixture(scope="session")
def pushed(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """Pushed once for all tests that only look at the outcome."""
    root = tmp_path_factory.mktemp("pushed")
    with HubServer(root / "hub") as server:
        with connection(server):
            url = push_run(made_run, "tester/score-vit")
        yield Pushed(server, Client(server, root), made_run, "tester/score-vit", url)
