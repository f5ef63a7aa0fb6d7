"""A finished run of the embedded benchmark, put together from the example's checkpoints and made candidates."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from hf_score.detection import Candidates, Decision, Selection

EXAMPLE = Path(__file__).parents[3] / "examples" / "space"
#: Training images of fashion_patch: a pullover with the square and a shirt without.
WITH_SQUARE, WITHOUT = 1, 5


def load_app(folder: Path) -> ModuleType:
    """The `app.py` of a Space, as a module; each call reads its `space.json` and loads its models again."""
    pytest.importorskip("gradio")
    spec = importlib.util.spec_from_file_location("space_app", folder / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def app() -> ModuleType:
    """The example's app."""
    return load_app(EXAMPLE)


def made_candidates() -> Candidates:
    """Noise images with a mask of 6 × 4 pixels."""
    generator = np.random.default_rng(0)
    masks = np.zeros((2, 32, 32), dtype=bool)
    masks[:, 10:16, 20:24] = True
    return Candidates(
        idx=np.array([WITH_SQUARE, WITHOUT]),
        position=np.array([0, 2]),
        labels=np.array([0, 1]),
        logits=np.array([3.0, 2.0]),
        masked_margins=np.ones(2),
        heatmaps=np.zeros((2, 32, 32), dtype=np.float32),
        masks=masks,
        shortcut_relevance=np.ones((2, 4), dtype=np.float32),
        cluster=np.array([0, 1]),
        dataset_fingerprint="data",
        model_fingerprint="model",
        layer="layer4",
        class_names=("pullover", "shirt"),
        images=[Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(2)],
    )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make a run whose candidates `idx` were kept as spurious-positive, and their shortcut given a name."""

    def make(
        idx: Iterable[int] = (), *, dataset: str = "fashion_patch", seeds: bool = False, shortcut: str = ""
    ) -> Path:
        run = tmp_path / "runs" / "mine"
        home = run / "seed-0" if seeds else run
        shutil.copytree(EXAMPLE / "original", home / "erm")
        shutil.copytree(EXAMPLE / "debiased", run / "model")
        (run / "model" / "README.md").write_text(f"made in {run}")
        arguments = {"dataset": dataset, "seed": 0, "held_out": 0.15, "drop_minority": False}
        (run / "run.json").write_text(json.dumps(arguments))
        made_candidates().save(home / "candidates")
        decisions = tuple(Decision(i, 0, "spurious", "person", shortcut=shortcut) for i in idx)
        Selection(decisions, "data", "model").save(home / "selection.json")
        return run

    return make
