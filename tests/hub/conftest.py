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

import pytest
import torch
from huggingface_hub import close_session, constants
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

sys.path.insert(0, str(Path(__file__).parents[1]))

from hub_server import HubServer

from hf_score.hub import push_run


class Client:
    def __init__(self, hub: HubServer, root: Path) -> None:
        self.hub, self.root = hub, root

    def __call__(self, code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        home = tempfile.mkdtemp(dir=self.root, prefix="home")
        variables = self.hub.environment(home) | {"OMP_NUM_THREADS": "1"} | environment
        command = [sys.executable, "-c", code, *map(str, arguments)]
        result = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=home, timeout=120)
        assert result.returncode == 0, result.stderr
        return result


def make_run(run: Path, checkpoint: Path) -> Path:
    """What a finished run leaves, with the traces of a machine in its results."""
    shutil.copytree(checkpoint, run / "model")
    metrics: dict[str, Any] = {
        "accuracy": 0.75,
        "mean_group_accuracy": 0.75,
        "worst_group_accuracy": 0.5,
        "group_accuracy": {"a": 0.5, "b": 1.0},
    }
    results = {
        "schema": "hf-score/results/1",
        "command": f"run_score.py --output_dir {run} --hub_token secret",
        "model": {"name": str(checkpoint), "architecture": "ViTForImageClassification"},
        "dataset": {"name": "tiny", "class_names": ["benign", "malignant"], "group_names": ["a", "b"]},
        "seeds": [0],
        "methods": {"score": {"label": "SCORE", "runs": [{"seed": 0, "metrics": metrics}]}},
    }
    (run / "results.json").write_text(json.dumps(results))
    (run / "report").mkdir()
    (run / "report" / "index.html").write_text("<!doctype html><title>report</title>")
    return run


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    """Run Python code in a fresh process that is logged in at `hub` and has an empty cache of its own."""
    return Client(hub, tmp_path)


@contextmanager
def connection(hub: HubServer) -> Iterator[None]:
    """This process's client talks to `hub`: it has read its settings from the environment when it was imported."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (hub.variables() | {"HF_TOKEN": hub.token}).items():
            patch.setenv(name, value)
        for name, value in {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
            patch.setattr(constants, name, value)
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


@pytest.fixture
def run_folder(checkpoint: Path, tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", checkpoint)


@dataclass
class Pushed:
    """A run after `push_run` to `repo_id`, and what that returned."""

    hub: HubServer
    client: Client
    run_folder: Path
    repo_id: str
    url: str


@pytest.fixture(scope="session")
def pushed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """Pushed once for all tests that only look at the outcome."""
    root = tmp_path_factory.mktemp("pushed")
    run_folder = make_run(root / "runs" / "one", checkpoint)
    with HubServer(root / "hub") as server:
        with connection(server):
            url = push_run(run_folder, "tester/score-vit")
        yield Pushed(server, Client(server, root), run_folder, "tester/score-vit", url)
