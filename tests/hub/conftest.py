"""A loopback Hub, a tiny stock checkpoint and a run folder around it; clients run in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from hub_server import HubServer

MAKE_CHECKPOINT = """
import sys
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

torch.manual_seed(0)
torch.set_num_threads(1)
names = ["benign", "malignant"]
config = ViTConfig(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
    id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
)
ViTForImageClassification(config).save_pretrained(sys.argv[1])
ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(sys.argv[1])
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python code in a fresh process that is logged in at `hub` and has an empty cache of its own."""

    def run(code: str, *arguments: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        homes = [path for path in tmp_path.iterdir() if path.name.startswith("home")]
        variables = hub.environment(tmp_path / f"home{len(homes)}") | {"OMP_NUM_THREADS": "1"} | environment
        (tmp_path / f"home{len(homes)}").mkdir()
        command = [sys.executable, "-c", code, *map(str, arguments)]
        result = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert not check or result.returncode == 0, result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    subprocess.run([sys.executable, "-c", MAKE_CHECKPOINT, str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def run_folder(checkpoint: Path, tmp_path: Path) -> Path:
    """What a finished run leaves, with the traces of a machine in its results."""
    run = tmp_path / "runs" / "one"
    (run / "model").mkdir(parents=True)
    for path in checkpoint.iterdir():
        (run / "model" / path.name).write_bytes(path.read_bytes())
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
